"""`select`: which models make the best ensemble, with which weights, within which budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from harness.commands.options import WORK, Data, Json, SplitOption, Work, emit, read_photos, show, workplace
from harness.commands.tables import plain_table

if TYPE_CHECKING:
    from harness.jobs.selection_report import Selection

app = typer.Typer()


@app.command()
def select(
    data: Data,
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL...]", help="To choose from: m4 m9 … or 'm1-16 (w/o m7)'; default: all."),
    ] = None,
    work: Work = WORK,
    split: SplitOption = "validation",
    boxes: Annotated[str | None, typer.Option("--boxes", help="WBF_5, ATSS, GT …; default: WBF_5.")] = None,
    k: Annotated[int, typer.Option("--k", min=1, max=20, help="Of the Acc@k that is to become high.")] = 10,
    method: Annotated[
        Literal["auto", "exhaustive", "greedy"],
        typer.Option("--method", help="exhaustive judges all subsets; auto does up to twelve models."),
    ] = "auto",
    max_models: Annotated[int | None, typer.Option("--max-models", min=1, help="Most models.")] = None,
    max_milliseconds: Annotated[
        float | None, typer.Option("--max-milliseconds", min=0, help="Most time to embed a crop by all models.")
    ] = None,
    max_gigabytes: Annotated[
        float | None, typer.Option("--max-gigabytes", min=0, help="Most memory for the features of all boxes.")
    ] = None,
    cost: Annotated[
        list[str] | None,
        typer.Option("--cost", metavar="NAME=MS", help="Milliseconds a crop, not those measured; may be repeated."),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Weights to try.")] = 60,
    with_weights: Annotated[
        bool, typer.Option("--weights/--no-weights", help="Fit weights of the chosen models, or leave them equal.")
    ] = True,
    with_contaminated: Annotated[
        bool, typer.Option("--with-contaminated", help="Choose also from models that saw the photos.")
    ] = False,
    num_halvings: Annotated[
        int, typer.Option("--halves", min=1, help="How often the pairs are halved to measure the optimism.")
    ] = 10,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the halves and of the search for weights.")] = 0,
    num_candidates: Annotated[
        int, typer.Option("--candidates", min=20, help="Best rows of each model that are listed for a query.")
    ] = 60,
    as_json: Json = False,
) -> None:
    """Choose an ensemble on one half of the pairs, and report on the other half.

    Missing embeddings are made. Of the train split the pairs are those that `train --hold-out` leaves out.
    """
    from harness.jobs.selection import Request
    from harness.jobs.selection import select as choose
    from harness.pipeline import Pipeline
    from harness.progress import bars
    from harness.training.pairs import held_out_pairs

    photos = read_photos(data, split)
    request = Request(
        models=",".join(models) if models else None,
        boxes=boxes,
        k=k,
        method=method,
        max_models=max_models,
        max_milliseconds=max_milliseconds,
        max_gigabytes=max_gigabytes,
        milliseconds=_milliseconds(cost or []),
        num_trials=trials if with_weights else 0,
        with_contaminated=with_contaminated,
        num_halvings=num_halvings,
        seed=seed,
        num_candidates=num_candidates,
    )
    place = workplace(work)
    with bars() as report:
        image_ids = held_out_pairs(photos)[1] if split == "train" else None
        found = choose(Pipeline(place, photos, image_ids=image_ids, report=report), request)
    next_step = f"run.py score '{found.spec}' --data {data} --work {work}"
    if as_json:
        emit(asdict(found) | {"kept_in": str(place.selections), "next": next_step})
        return
    show(*_heading(found), "", _models_table(found), "", _offers_table(found), "")
    show(*selection_lines(found))
    show(f"kept in {place.selections}; next: {next_step}")


def _milliseconds(given: list[str]) -> Mapping[str, float]:
    costs: dict[str, float] = {}
    for text in given:
        name, _, number = text.partition("=")
        try:
            costs[name] = float(number)
        except ValueError:
            costs[name] = -1.0
        if not name or not 0 <= costs[name] < float("inf"):
            raise typer.BadParameter(f"{text!r}: expected NAME=MILLISECONDS", param_hint="--cost")
    return costs


def _heading(found: Selection) -> list[str]:
    chose, others = found.num_queries
    where = f"{'RENDERED ' if found.rendered else ''}{found.split} with {found.boxes}"
    return [
        f"Acc@{found.k} on {where}: chosen on {chose:,} queries, reported on {others:,} others that share no pair with "
        "them",
        f"missed by all: {found.num_silent:,} queries for which no box speaks, {found.num_hopeless:,} for which no "
        "shop box is right",
        *(f"left out: {name} was {how} {found.split}" for name, how in found.left_out.items()),
        *(f"beware: {doubt}" for doubt in found.doubts),
    ]


def _models_table(found: Selection) -> Any:
    """Every model by itself, how often it is chosen, and what the chosen ensemble loses without it."""
    table = plain_table(["model", "alone", "others", "taken", "weight", "adds", "others", "ms", "GB"])
    for model in found.models:
        milliseconds = model.cost.milliseconds
        table.add_row(
            model.name,
            f"{model.chosen_acc:.4f}",
            f"{model.other_acc:.4f}",
            f"{model.chosen_share:.0%}",
            "" if model.weight is None else f"{model.weight:g}",
            _signed(model.adds_chosen),
            _signed(model.adds_other),
            "?" if milliseconds is None else f"{milliseconds:.3g}",
            f"{model.cost.gigabytes:.2g}",
        )
    return table


def _offers_table(found: Selection) -> Any:
    table = plain_table(["best of its size or cost, equal weights", "chose", "others", "ms", "GB"])
    for offer in found.offers:
        table.add_row(
            offer.spec,
            f"{offer.chosen_acc:.4f}",
            f"{offer.other_acc:.4f}",
            f"{offer.milliseconds:.3g}",
            f"{offer.gigabytes:.2g}",
        )
    return table


def selection_lines(found: Selection) -> list[str]:
    """What was chosen, what it is worth, and how far that can be believed."""
    mark = "RENDERED: " if found.rendered else ""
    lines = [
        f"{mark}chosen: {found.spec}",
        f"  Acc@{found.k} {found.chosen_acc:.4f} where it was chosen, {found.other_acc:.4f} on the others",
    ]
    for other in found.against:
        low, high = other.interval
        verdict = "" if other.p_value < 0.05 else ": may be chance"
        over = ", over the budget" if other is found.against[0] and not found.alike_fits else ""
        lines.append(
            f"  against {other.what} ({other.spec}{over}) {other.acc:.4f}: {other.difference:+.4f} on the others, 95 % "
            f"interval {low:+.4f} to {high:+.4f}, p {other.p_value:.2g} (exact McNemar){verdict}"
        )
    told = found.optimism
    lines += [
        f"optimism of choosing so: {told.mean:+.4f}, from {told.low:+.4f} to {told.high:+.4f} (mean of both halves of "
        f"each of {found.num_halvings} halvings)",
        f"  against all models alike, where it did not choose: {found.mean_gain:+.4f} on the average, better in "
        f"{found.share_of_gains:.0%} of {2 * found.num_halvings} choices"
        + (f"; with equal weights {found.mean_gain_unweighted:+.4f}" if found.num_trials else ""),
        f"{found.num_judged:,} subsets judged ({found.method}) on {found.num_candidates:,} candidates"
        + (f", {found.num_trials} weights" if found.num_trials else "")
        + f"; answers not proven to be those of the search: {found.unproven_share:.2%}; the exact search of the chosen "
        f"ensemble gives another answer for {found.num_corrected:,} queries",
    ]
    if found.mean_gain <= 0 and found.alike_fits:
        lines.insert(-1, f"  so rather take all models alike: {found.against[0].spec}")
    for whence in dict.fromkeys(model.cost.whence for model in found.models):
        names = ", ".join(model.name for model in found.models if model.cost.whence == whence)
        lines.append(f"ms a crop of {names}: {whence}")
    unknown = [model.name for model in found.models if model.cost.milliseconds is None]
    if unknown:
        lines.append(f"what is not known counts as nothing; say it: --cost {unknown[0]}=MS")
    what = "models and weights were" if found.num_trials else "the models were"
    lines.append(
        f"{what} fitted on {found.split}: a row of this ensemble there is not comparable with rows that were not"
    )
    return lines


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}"
