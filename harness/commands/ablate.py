"""`ablate`: recipes of retrieval models against one another, over several seeds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from harness.commands.options import (
    WORK,
    Data,
    Deduplicate,
    Json,
    LeaveOut,
    Names,
    Sources,
    Work,
    emit,
    one_of,
    read_photos,
    read_sources,
    refuse_leave_out,
    show,
    without_copies,
    workplace,
)
from harness.commands.tables import plain_table

app = typer.Typer()


@app.command()
def ablate(
    names: Names,
    data: Data,
    work: Work = WORK,
    scale: Annotated[Literal["full", "tiny"], typer.Option("--scale", help="full (the paper's) or tiny.")] = "full",
    seeds: Annotated[str, typer.Option("--seeds", help="With commas between them.")] = "0,1,2",
    split: Annotated[Literal["train", "validation"], typer.Option("--evaluate-on", help="Split.")] = "validation",
    recipes: Annotated[
        Path | None, typer.Option("--recipes", help="A TOML file of further models, of the form of models.toml.")
    ] = None,
    source: Sources = None,
    deduplicate: Deduplicate = None,
    leave_out: LeaveOut = False,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Optimiser steps instead of the recipes'.")
    ] = None,
    deepfashion2_only: Annotated[
        bool,
        typer.Option(
            "--without-missing", "--deepfashion2-only", help="Train without the recipes' sources that are not given."
        ),
    ] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Trainings side by side; a GPU or thread each.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Replace trainings of other settings.")] = False,
    as_json: Json = False,
) -> None:
    """Train recipes with several seeds each, and compare them with the first on the same queries.

    Scored as the paper's Table 3: official protocol, ground-truth boxes. An interrupted call goes on.
    """
    from harness.data.garments import garments_of
    from harness.jobs.ablation import ablate as compare
    from harness.progress import bars
    from harness.retrieval.recipes import load_recipes

    refuse_leave_out(leave_out, deduplicate, source)
    known = load_recipes(recipes)
    chosen = [one_of(known, name, "retrieval model") for name in names]
    if not all(seed.strip().isdecimal() for seed in seeds.split(",")):
        raise typer.BadParameter(f"{seeds!r}: expected whole numbers with commas between them", param_hint="--seeds")
    photos, judged_on = read_photos(data, "train"), read_photos(data, split)
    place = workplace(work)
    parts = [garments_of(photos, photos.photos.image_ids), *read_sources(source)]
    wanted = deduplicate or (deduplicate is None and bool(source))
    with bars() as report:
        found = compare(
            chosen,
            scale,
            parts,
            judged_on,
            place,
            [int(seed) for seed in seeds.split(",")],
            num_steps=steps,
            deepfashion2_only=deepfashion2_only,
            without_copies=without_copies(data, place.root, leave_out, report) if wanted else None,
            num_workers=workers,
            force=force,
            report=report,
        )
    if as_json:
        emit(
            {"rendered": judged_on.rendered, "split": split, "scale": scale, "recipes": [asdict(one) for one in found]}
        )
        return
    what = f"{'RENDERED ' if judged_on.rendered else ''}{split}"
    show(f"{what}, ground-truth boxes, {scale} scale, seeds {seeds}; 95 % intervals are over seeds", "")
    show(_table(found), "")
    if len(found) > 1:
        show(f"p: whether the difference to {found[0].name} may come from the choice of queries (paired sign flips)")


def _table(found: Any) -> Any:
    table = plain_table(["recipe", "crops", "Acc@1", "Acc@10", "interval", f"to {found[0].name}", "interval", "p"])
    for one in found:
        mean = one.mean[10]
        within = _interval(mean, limits=(0.0, 1.0))
        cells = [one.name, f"{one.num_crops:,}", f"{one.mean[1].mean:.3f}", f"{mean.mean:.3f}", within]
        if one.against_first:
            told = one.against_first[10]
            cells += [f"{told.difference.mean:+.3f}", _interval(told.difference, "+"), f"{told.p_queries:.2g}"]
        table.add_row(*cells)
    return table


def _interval(told: Any, sign: str = "", limits: tuple[float, float] = (-1.0, 1.0)) -> str:
    if told.low is None:
        return ""
    low, high = max(limits[0], told.low), min(limits[1], told.high)
    return f"{low:{sign}.3f} to {high:{sign}.3f}"
