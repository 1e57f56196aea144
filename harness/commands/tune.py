"""`tune`: settings that are fitted on training photos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from harness.commands.options import (
    WORK,
    Data,
    Json,
    Seed,
    SplitOption,
    Work,
    emit,
    read_photos,
    show,
    workplace,
)
from harness.commands.tables import fusion_lines, fusion_table, fusion_words, ms_loss_lines, ms_loss_table

tune_app = typer.Typer(help="Fit settings on training photos.", no_args_is_help=True)


@tune_app.command("fusion")
def tune_fusion(
    data: Data,
    work: Work = WORK,
    split: SplitOption = "train",
    boxes: Annotated[
        list[str] | None,
        typer.Option("--boxes", help="WBF_3, WBF(ATSS,Mine) …; may be given again. Default: every WBF_n."),
    ] = None,
    models: Annotated[
        str | None, typer.Option("--models", help="Fit for Acc@10 of these retrieval models ('m4') instead of AP50.")
    ] = None,
    trials: Annotated[
        int, typer.Option(min=1, help="Settings to try for each fusion; more of them later go on.")
    ] = 100,
    space: Annotated[
        Literal["wide", "plain"],
        typer.Option(help="wide: also calibration, label policy and free weights. plain: thresholds, type, trust."),
    ] = "wide",
    max_per_image: Annotated[int | None, typer.Option(min=1, help="Most fused boxes a photo.")] = None,
    report_on_half: Annotated[
        bool, typer.Option("--report/--no-report", help="Keep half of the pairs for the report, or fit on all of them.")
    ] = True,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fit fusion on one half of pairs that no detector has seen, report on the other half.

    Of the train split these are the pairs that `train detector --hold-out` leaves out.
    """
    from harness.detection.fusion_study import WIDE, SearchSpace
    from harness.jobs.fusion_lab import fit_fusion
    from harness.pipeline import Pipeline
    from harness.progress import bars
    from harness.training.pairs import held_out_pairs

    photos = read_photos(data, split)
    place = workplace(work)
    with bars() as report:
        image_ids = held_out_pairs(photos)[1] if split == "train" else None
        pipeline = Pipeline(place, photos, image_ids=image_ids, report=report)
        before = place.every_fitted_fusion()
        fits = fit_fusion(
            pipeline,
            [pipeline.parse_boxes(one) for one in boxes] if boxes else None,
            num_trials=trials,
            seed=seed,
            models=models,
            space=WIDE if space == "wide" else SearchSpace(),
            report_on_half=report_on_half,
            max_per_image=max_per_image,
        )
    if as_json:
        emit(
            {"rendered": photos.rendered, "split": split, "fusions": {name: asdict(one) for name, one in fits.items()}}
        )
        return
    where = f"{'RENDERED, ' if photos.rendered else ''}{'held-out pairs of ' if split == 'train' else ''}{split}"
    first = next(iter(fits.values()))
    others = f"; the columns after that are of {first.report['num_photos']} others" if first.report else ""
    show(f"{first.objective} on {where}: searched on {first.num_photos} photos{others}", "", fusion_table(fits), "")
    show(*fusion_lines(fits), f"kept in {place.fusion}")
    for name in fits.keys() & before.keys():
        old = before[name]
        if "fitted_on" not in old:
            show(f"{name}: replaces settings that were given by hand: {fusion_words(old['settings'])}")
        elif (old["objective"], old["fitted_on"]) != (fits[name].objective, fits[name].fitted_on):
            where = f"{old['num_photos']} photos of {old['fitted_on']['split']}"
            show(f"{name}: replaces settings for {old['objective']} on {where}")


@tune_app.command("ms-loss")
def tune_ms_loss(
    model: Annotated[str, typer.Argument(help="Which recipe to search with; its other settings stay.")] = "m8",
    data: Annotated[Path | None, typer.Option("--data", help="A DeepFashion2 folder, real or rendered.")] = None,
    work: Work = WORK,
    scale: Annotated[
        Literal["full", "tiny"], typer.Option("--scale", help="full (the paper's) or tiny (rendered data on a CPU).")
    ] = "full",
    trials: Annotated[
        int, typer.Option(min=1, help="Finished trials that the study is to have; more of them later go on.")
    ] = 40,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Optimiser steps of a training instead of the recipe's.")
    ] = None,
    looks: Annotated[int, typer.Option(min=1, help="At a model in training; each may end a poor one.")] = 8,
    space: Annotated[
        Literal["wide", "narrow"], typer.Option(help="wide: fifty trials and more. narrow: around published values.")
    ] = "wide",
    pruner: Annotated[
        Literal["median", "halving", "none"], typer.Option(help="What ends poor trainings early.")
    ] = "median",
    workers: Annotated[int, typer.Option(min=1, help="Trainings side by side here, a GPU each where there are.")] = 1,
    best: Annotated[int, typer.Option(min=1, help="So many of the best are trained again, beside the defaults.")] = 3,
    repeats: Annotated[int, typer.Option(min=0, help="Times, with other seeds; 0 only searches.")] = 3,
    study: Annotated[str | None, typer.Option(metavar="NAME", help="Default: MODEL-SCALE.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Of a database, such as postgresql+psycopg://…; default: a file in --work."),
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="Tell what the study holds, without searching.")] = False,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Forget what was kept for MODEL at this scale; the study stays.")
    ] = False,
    recipes: Annotated[
        Path | None, typer.Option("--recipes", help="A TOML file of further models, of the form of models.toml.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Search for the multi-similarity loss's hyper-parameters on pairs that are left out of training.

    Half of the held-out pairs is searched on, the other half only reports. The same command started again goes on;
    started several times, on machines that reach one database, all work on one study. What is found is kept for
    `train retriever` of the models whose recipes want it.
    """
    from harness.jobs.ms_loss_bench import Request, check_name
    from harness.jobs.ms_loss_lab import search, search_side_by_side
    from harness.jobs.ms_loss_report import keep_winner, summary_of
    from harness.jobs.tuned_losses import entry_name
    from harness.progress import bars
    from harness.retrieval.choice import chosen_recipe

    recipe, place = chosen_recipe(model, scale, recipes=recipes)[0], workplace(work)
    name = check_name(study or f"{model}-{scale}")
    if repeats == 1:
        raise typer.BadParameter("an interval needs two trainings or more; or 0 for none", param_hint="--repeats")
    if defaults:
        was_there = place.keep_ms_loss(entry_name(model, scale), None)
        there = "forgot what was kept" if was_there else "nothing was kept"
        emit({"forgot": was_there}) if as_json else show(f"{there} for {model} at scale {scale}: {place.ms_loss}")
        return
    if not report:
        if data is None:
            raise typer.BadParameter("is needed to search; or --report", param_hint="--data")
        place.every_ms_loss()  # before hours of search: the find can be laid over it
        request = Request(
            place, data, recipe, scale, name, storage, trials, steps, looks, space, pruner, seed, best, repeats
        )
        with bars() as progress:
            search(request, progress) if workers == 1 else search_side_by_side(request, workers, progress)
    told = summary_of(place, name, storage)
    kept = keep_winner(place, told) if told["repeats"] is not None and repeats and not report else None
    if as_json:
        emit(told | {"kept_as": kept})
        return
    _show_ms_loss(told)
    if kept is not None:
        show(
            f"kept as {kept} in {place.ms_loss}: train retriever takes it for recipes with ms_loss = 'automl' (m8, m9, "
            f"m14, m16); to forget it: run.py tune ms-loss {model} --scale {scale} --work {work} --defaults"
        )


def _show_ms_loss(told: Mapping[str, Any]) -> None:
    show(*ms_loss_lines(told))
    if told["repeats"] is not None:
        show("", *ms_loss_table(told["repeats"]), "")
    show(*told["files"])
