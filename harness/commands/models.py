"""`train`: what is made of the recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.commands.options import (
    WORK,
    Data,
    Deduplicate,
    LeaveOut,
    Name,
    Seed,
    Sources,
    SplitOption,
    Work,
    read_photos,
    read_sources,
    refuse_leave_out,
    show,
    split_name,
    without_copies,
    workplace,
)

app = typer.Typer()
train_app = typer.Typer(help="Train a detector or a retrieval model.", no_args_is_help=True)
app.add_typer(train_app, name="train")


Recipes = Annotated[
    Path | None, typer.Option("--recipes", help="A TOML file of further detectors, of the form of detectors.toml.")
]


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
    typer.Option("--eval-every", min=0, help="Steps between looks; default: an epoch at full scale, 0 is never."),
]
Patience = Annotated[
    int,
    typer.Option(
        "--patience",
        min=0,
        help="Looks (box AP, or Acc@10) without a better one that end it; then the best weights count.",
    ),
]
SyncBatchnorm = Annotated[
    bool, typer.Option("--sync-batchnorm", help="Batch statistics over all GPUs instead of over each one's photos.")
]
MsLoss = Annotated[
    Literal["tuned", "recipe"],
    typer.Option("--ms-loss", help="For m8, m9, m14, m16: what `tune ms-loss` found, or the recipe's values."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace a model of other settings.")]
HoldOut = Annotated[
    bool, typer.Option("--hold-out", help="Leave out the tenth of the pairs on which `tune` fits and looks judge.")
]
MUCH_WAITING = 0.15
"""Share of a training's time in waiting for photos that is worth a word."""

RetrieverInit = Annotated[
    str | None,
    typer.Option(
        "--init-from",
        metavar="imagenet|none|PATH",
        help="Weights to start from: timm's, random ones, a file of timm's, or the folder of a model trained here.",
    ),
]
RetrieverRecipes = Annotated[
    Path | None, typer.Option("--recipes", help="A TOML file of further retrieval models, of the form of models.toml.")
]
Batch = Annotated[
    str | None,
    typer.Option(
        "--batch",
        metavar="PxK",
        help="Identities and crops of each of a step over all devices; the learning rate goes with their product.",
    ),
]
LoadWorkers = Annotated[
    int | None,
    typer.Option("--workers", min=0, help="Processes that decode photos; default: as crops, memory and cores ask."),
]
Compile = Annotated[bool, typer.Option("--compile", help="Let torch compile the backbone; needs a GPU.")]
DetectorInit = Annotated[
    str | None,
    typer.Option(
        "--init-from",
        metavar="coco|imagenet|none|PATH",
        help="Weights to start from: the model zoo's, the backbone of the config, random ones, or a file.",
    ),
]
Config = Annotated[
    str | None,
    typer.Option("--config", help="An mmdet config, a file or a path inside its wheel, to be trained as NAME."),
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, help="Photos a step over all devices; the learning rate goes with it."),
]
InputPx = Annotated[
    str | None,
    typer.Option("--input", metavar="LONGxSHORT", help="Size that photos are resized to fit, in pixels."),
]


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
    init_from: DetectorInit = None,
    config: Config = None,
    recipes: Recipes = None,
    batch_size: BatchSize = None,
    input_px: InputPx = None,
    hold_out: HoldOut = False,
    force: Force = False,
    precision: Precision = None,
    accumulate: Accumulate = 1,
    evaluate_on: EvaluateOn = None,
    eval_every: EvalEvery = None,
    patience: Patience = 0,
    sync_batchnorm: SyncBatchnorm = False,
) -> None:
    """Train one of the five detectors, or any other mmdet config; an interrupted training goes on."""
    from harness.detection.choice import chosen_recipe
    from harness.jobs.detectors import train_detector as train
    from harness.training import launching
    from harness.training.processes import share_of_step

    recipe, notes = chosen_recipe(name, scale, config=config, recipes=recipes, batch_size=batch_size, input_px=input_px)
    if scale == "full" and init_from is None:
        notes.append("begins with random weights; --init-from coco or imagenet begins with published ones")
    num_processes = launching.num_processes_wanted(devices, nodes)
    share_of_step(recipe.at(scale).batch_size, num_processes, accumulate)
    place = workplace(work)
    folder = place.model_folder("detector", name)
    place.refuse_near_name("detector", name)
    was_there = (folder / "card.json").is_file() and not force
    _in_processes(num_processes)
    with launching.ending_together():
        for note in notes:
            _tell(note, err=True)
        card = train(
            recipe,
            scale,
            read_photos(data, split),
            folder,
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
        if card.initial_weights is not None:
            left = f"; left as drawn: {', '.join(card.left_as_drawn)}" if card.left_as_drawn else ""
            _tell(f"began with {card.initial_weights}{left}")
        if card.items_without_area:
            _tell(f"{card.items_without_area} items were never shown: their boxes have no area")
        best = f", best at step {card.best_step} with an AP of {card.best_ap:.3f}" if card.best_step else ""
        done = f"{name} was trained already," if was_there else f"trained {name}"
        _tell(f"{done} in {card.seconds:.0f} s{best}: {folder}")


def _tell(what: str, *, err: bool = False) -> None:
    """Said once, however many processes did it."""
    from harness.training.processes import place

    if place().rank == 0:
        typer.echo(what, err=True) if err else show(what)


def _in_processes(num_processes: int) -> None:
    """Start the command once a device and end as they end; go on where this process is one of them, or alone."""
    from harness.training.launching import launch

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
    init_from: RetrieverInit = None,
    recipes: RetrieverRecipes = None,
    source: Sources = None,
    deepfashion2_only: Annotated[
        bool,
        typer.Option(
            "--without-missing", "--deepfashion2-only", help="Train without the recipe's sources that are not given."
        ),
    ] = False,
    deduplicate: Deduplicate = None,
    leave_out: LeaveOut = False,
    batch: Batch = None,
    hold_out: HoldOut = False,
    force: Force = False,
    precision: Precision = None,
    accumulate: Accumulate = 1,
    evaluate_on: EvaluateOn = None,
    eval_every: EvalEvery = None,
    patience: Patience = 0,
    sync_batchnorm: SyncBatchnorm = False,
    compiled: Compile = False,
    workers: LoadWorkers = None,
    ms_loss: MsLoss = "tuned",
) -> None:
    """Train a retrieval model, m0 to m17; an interrupted training goes on."""
    from harness.data.garments import garments_of
    from harness.jobs.retrievers import check_batch
    from harness.jobs.retrievers import train_retriever as train
    from harness.jobs.tuned_losses import tuned_recipe
    from harness.progress import bars
    from harness.retrieval.choice import chosen_recipe
    from harness.retrieval.training import check_device, check_sources
    from harness.training import launching
    from harness.training.pairs import training_ids
    from harness.training.processes import share_of_step

    refuse_leave_out(leave_out, deduplicate, source)
    recipe, notes = chosen_recipe(name, scale, recipes=recipes, batch=batch)
    num_processes = launching.num_processes_wanted(devices, nodes)
    share_of_step(recipe.at(scale).identities_per_batch, num_processes, accumulate, what="identities")
    place = workplace(work)
    folder = place.model_folder("retriever", name)
    place.refuse_near_name("retriever", name)
    was_there = (folder / "card.json").is_file() and not force
    _in_processes(num_processes)
    with launching.ending_together():
        photos = [read_photos(data, split_name(one)) for one in split or ["train"]]
        tuned = tuned_recipe(recipe, scale, place, rendered=photos[0].rendered, as_in_file=ms_loss == "recipe")
        for note in (*notes, *tuned.notes):
            _tell(note, err=True)
        splits = [garments_of(photos[0], training_ids(photos[0], hold_out))]
        splits += [garments_of(part, part.photos.image_ids) for part in photos[1:]]
        parts, told = [*splits, *read_sources(source)], {}
        check_sources(name, recipe, [part.source for part in parts], deepfashion2_only)
        check_device(sync_batchnorm, compiled)
        if batch is not None:
            check_batch(recipe.at(scale), parts)
        if deduplicate or (deduplicate is None and source):
            with bars() as report:
                parts, told = without_copies(data, place.root, leave_out, report)(parts)
        card = train(
            name,
            tuned.recipe,
            scale,
            parts,
            folder,
            **told,
            split=photos[0],
            hold_out=hold_out,
            evaluate_on=None if evaluate_on is None else read_photos(data, evaluate_on),
            eval_every=eval_every,
            patience=patience,
            seed=seed,
            num_steps=steps,
            init_from=init_from,
            deepfashion2_only=deepfashion2_only,
            force=force,
            precision=precision,
            accumulate=accumulate,
            sync_batchnorm=sync_batchnorm,
            compiled=compiled,
            num_workers=workers,
            ms_loss_from=tuned.origin,
        )
        if card.initial_weights is not None:
            left = f"; left as drawn: {', '.join(card.left_as_drawn)}" if card.left_as_drawn else ""
            _tell(f"began with {card.initial_weights}{left}")
        best = f", best at step {card.best_step} with an Acc@10 of {card.best_acc10:.3f}" if card.best_step else ""
        done = f"{name} was trained already," if was_there else f"trained {name}"
        _tell(f"{done} in {card.seconds:.0f} s{best}: {folder}")
        if card.data_wait_share is not None and card.data_wait_share >= MUCH_WAITING:
            _tell(
                f"waited {card.data_wait_share:.0%} of the time for photos: more --workers, or faster disks", err=True
            )
