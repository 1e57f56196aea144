"""`models`, `train`, `tune`: the recipes, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.commands.options import (
    WORK,
    Data,
    Json,
    Name,
    Seed,
    SplitOption,
    Work,
    emit,
    one_of,
    plain,
    read_photos,
    show,
    split_name,
    workplace,
)

app = typer.Typer()
train_app = typer.Typer(help="Train a detector or a retrieval model.", no_args_is_help=True)
tune_app = typer.Typer(help="Fit settings on training photos.", no_args_is_help=True)
app.add_typer(train_app, name="train")
app.add_typer(tune_app, name="tune")


@app.command()
def models(as_json: Json = False) -> None:
    """Every detector and retrieval recipe, resolved, with its published figure."""
    from harness import catalogue

    emit(catalogue.as_json()) if as_json else show(*catalogue.tables())


Scale = Annotated[
    Literal["full", "tiny"], typer.Option("--scale", help="full (the paper's) or tiny (rendered data on a CPU).")
]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Optimiser steps instead of the recipe's.")]
Devices = Annotated[
    int, typer.Option("--devices", min=0, help="GPUs a machine, or processes of a CPU; 0 takes every GPU.")
]
Nodes = Annotated[int, typer.Option("--nodes", min=1, help="Machines; torchrun or srun starts the command on each.")]
Precision = Annotated[
    Literal["32-true", "16-mixed", "bf16-mixed"] | None,
    typer.Option("--precision", help="Arithmetic instead of the recipe's."),
]
Accumulate = Annotated[
    int, typer.Option("--accumulate", min=1, help="Parts of a step, one after the other: the same step in less memory.")
]
EvaluateOn = Annotated[
    Literal["validation"] | None,
    typer.Option("--evaluate-on", help="Judge on this split meanwhile, instead of on what --hold-out leaves out."),
]
EvalEvery = Annotated[
    int | None,
    typer.Option("--eval-every", min=0, help="Steps between box APs; default: an epoch at full scale, 0 is never."),
]
Patience = Annotated[
    int,
    typer.Option("--patience", min=0, help="Box APs without a better one that end it; then the best weights count."),
]
SyncBatchnorm = Annotated[
    bool, typer.Option("--sync-batchnorm", help="Batch statistics over all GPUs instead of over each one's photos.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace a model of other settings.")]
HoldOut = Annotated[
    bool, typer.Option("--hold-out", help="Leave out the tenth of the pairs on which `tune fusion` fits.")
]
Init = Annotated[Path | None, typer.Option("--init-from", help="Weights to start from.")]


@train_app.command("detector")
def train_detector(
    name: Name,
    data: Data,
    work: Work = WORK,
    scale: Scale = "full",
    split: SplitOption = "train",
    seed: Seed = 0,
    steps: Steps = None,
    devices: Devices = 0,
    nodes: Nodes = 1,
    init_from: Init = None,
    hold_out: HoldOut = False,
    force: Force = False,
    precision: Precision = None,
    accumulate: Accumulate = 1,
    evaluate_on: EvaluateOn = None,
    eval_every: EvalEvery = None,
    patience: Patience = 0,
    sync_batchnorm: SyncBatchnorm = False,
) -> None:
    """Train one of the five detectors; an interrupted training goes on."""
    from harness import processes
    from harness.detection.recipes import load_recipes
    from harness.detector_training import train_detector as train

    recipe = one_of(load_recipes(), name, "detector")
    num_processes = processes.num_processes_wanted(devices, nodes)
    processes.share_of_step(recipe.at(scale).batch_size, num_processes, accumulate)
    place = workplace(work)
    _in_processes(num_processes)
    with processes.ending_together():
        card = train(
            recipe,
            scale,
            read_photos(data, split),
            place.model_folder("detector", name),
            hold_out=hold_out,
            evaluate_on=None if evaluate_on is None else read_photos(data, evaluate_on),
            eval_every=eval_every,
            patience=patience,
            seed=seed,
            num_steps=steps,
            init_from=init_from,
            force=force,
            precision=precision,
            accumulate=accumulate,
            sync_batchnorm=sync_batchnorm,
        )
        best = f", best at step {card.best_step} with an AP of {card.best_ap:.3f}" if card.best_step else ""
        _tell(f"trained {name} in {card.seconds:.0f} s{best}: {place.model_folder('detector', name)}")


def _tell(what: str) -> None:
    """Said once, however many processes did it."""
    from harness.processes import place

    if place().rank == 0:
        show(what)


def _in_processes(num_processes: int) -> None:
    """Start the command once a device and end as they end; go on where this process is one of them, or alone."""
    from harness.processes import launch

    status = launch(num_processes)
    if status is not None:
        raise typer.Exit(status)


@train_app.command("retriever")
def train_retriever(
    name: Name,
    data: Data,
    work: Work = WORK,
    scale: Scale = "full",
    split: Annotated[list[str] | None, typer.Option("--split", help="May be given twice, as m7 wants.")] = None,
    seed: Seed = 0,
    steps: Steps = None,
    devices: Devices = 0,
    nodes: Nodes = 1,
    init_from: Init = None,
    deepfashion2_only: Annotated[
        bool, typer.Option("--deepfashion2-only", help="Train without the recipe's other sources.")
    ] = False,
    hold_out: HoldOut = False,
    force: Force = False,
) -> None:
    """Train a retrieval model, m0 to m17; an interrupted training goes on."""
    from harness import processes
    from harness.jobs import training_ids
    from harness.retrieval.recipes import load_recipes
    from harness.retrieval.training import train

    recipe, place = one_of(load_recipes(), name, "retrieval model"), workplace(work)
    _in_processes(processes.num_processes_wanted(devices, nodes))
    with processes.ending_together():
        parts = [read_photos(data, split_name(one)) for one in split or ["train"]]
        card = train(
            name,
            recipe,
            scale,
            parts[0],
            training_ids(parts[0], hold_out),
            place.model_folder("retriever", name),
            seed=seed,
            also=[(part, part.photos.image_ids) for part in parts[1:]],
            num_steps=steps,
            backbone_weights=init_from,
            deepfashion2_only=deepfashion2_only,
            force=force,
        )
        _tell(f"trained {name} in {card.seconds:.0f} s: {place.model_folder('retriever', name)}")


@tune_app.command("fusion")
def tune_fusion(
    data: Data,
    work: Work = WORK,
    split: SplitOption = "train",
    trials: Annotated[int, typer.Option(min=1, help="Settings to try for each WBF_n.")] = 30,
    max_per_image: Annotated[int | None, typer.Option(min=1, help="Most fused boxes a photo.")] = None,
    seed: Seed = 0,
) -> None:
    """Fit the settings of every WBF_n on the pairs of a training split that the detectors were not trained on."""
    from harness.jobs import fit_fusion, held_out_pairs
    from harness.pipeline import Pipeline
    from harness.progress import bars

    photos = read_photos(data, split)
    with bars() as report:
        held = Pipeline(workplace(work), photos, image_ids=held_out_pairs(photos)[1], report=report)
        fitted = fit_fusion(held, num_trials=trials, seed=seed, max_per_image=max_per_image)
    what = f"{'RENDERED, ' if photos.rendered else ''}{fitted['WBF_1']['num_photos']} held-out photos of {split}"
    show(f"fitted on {what}; kept in {workplace(work).fusion}")
    show(*(f"{name}: AP50 {entry['ap50']:.3f} with {plain(entry['settings'])}" for name, entry in fitted.items()))
