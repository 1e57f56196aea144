"""Training a detector: from a recipe and a split to a folder with ``weights.pt`` and ``card.json``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.artifacts import file_sha256
from harness.detection.card import DetectorCard, DetectorPlan
from harness.detection.evaluation import DECIDES, Evaluation
from harness.detection.recipes import BACKBONES_FOLDER, DetectorRecipe
from harness.training.cards import finish, prepare, seen_by
from harness.training.fitting import (
    LAST_CHECKPOINT,
    FitSettings,
    StepSampler,
    check_precision,
    fit,
    ignore_interruptions,
    shuffled_batches,
)
from harness.training.processes import first_does, join, place, share_of_step
from harness.types import InputError, Ints, Split
from harness.workers import available_cores

if TYPE_CHECKING:
    from harness.detection.bridge import Network


def train(
    recipe: DetectorRecipe,
    scale: str,
    split: Split,
    image_ids: Ints,
    out_dir: Path,
    *,
    seed: int,
    num_steps: int | None = None,
    init_from: Path | str | None = None,
    force: bool = False,
    precision: str | None = None,
    accumulate: int = 1,
    sync_batchnorm: bool = False,
    evaluation: Evaluation | None = None,
    checkpoint_every: int = 200,
) -> DetectorCard:
    """Train a detector, or go on with a training that was interrupted, or find it done.

    Photos without a garment are left out. Every process of `harness.training.processes` calls this; a step has the
    recipe's photos however many processes share them, and in however many parts. Losses are divided by the number
    of boxes in a part, over all processes: with ``accumulate`` a box of a crowded part weighs less than one of an
    empty part.

    Args:
        recipe: which detector.
        scale: ``full`` or ``tiny``.
        split: with annotations.
        image_ids: (P,) photos of the split to train on.
        out_dir: the model's folder.
        seed: of weights, data order and augmentation.
        num_steps: optimiser steps; None takes the recipe's.
        init_from: weights to begin with: ``coco`` (the model zoo's checkpoint of the recipe's config), ``imagenet``
            (the backbone that the config names), or a path: an mmdet checkpoint, or a torchvision backbone's state
            dict. ``none`` begins with random weights. None does so too, unless the recipe trains a backbone on
            crops first (shared by the detectors beside ``out_dir``). Random weights are all free to learn; from a
            checkpoint, what the config freezes stays frozen.
        force: throw away what is in the folder.
        precision: Lightning's precision string; None takes the recipe's on a GPU and 32 bits on a CPU.
        accumulate: parts of a process's share of a step that follow one another: less memory, the same step.
        sync_batchnorm: batch statistics over all GPUs; on a CPU there are none.
        evaluation: how it is judged meanwhile; None without.
        checkpoint_every: steps between checkpoints.

    Returns:
        The card, which is also in the folder.

    Raises:
        InputError: the folder holds another training, photos, annotations or initial weights are
            missing or damaged, a step cannot be shared out evenly, or a file cannot be written.
        Interrupted: by a signal; the same call goes on.
    """
    import torch

    from harness.detection.config_recipes import self_contained
    from harness.detection.dataset import DetectionDataset, num_without_area, photos_with_items
    from harness.detection.initial_weights import find
    from harness.detection.module import DetectorModule, unfreeze

    began = time.perf_counter()
    on_gpu = torch.cuda.is_available()
    here = place()
    share_of_step(recipe.at(scale).batch_size, here.num_processes, accumulate)
    precision = precision or (recipe.at(scale).precision if on_gpu else "32-true")
    check_precision(precision)
    if sync_batchnorm and not on_gpu:
        raise InputError("batch statistics over all devices need GPUs; on a CPU train without --sync-batchnorm")
    shown = photos_with_items(split, image_ids)
    settings = self_contained(recipe.at(scale))
    if init_from == "none":
        settings = settings.model_copy(update={"pretraining": None})
    begin_with = None if init_from in (None, "none") else find(str(init_from), settings)
    settings = settings.model_copy(update={"coco_weights": None})  # the plan names what was taken by its hash
    plan = DetectorPlan.of(recipe.changed(scale, settings), scale, split, shown, seed, num_steps)
    every = 0 if evaluation is None else evaluation.steps(len(shown), plan.recipe.batch_size)
    if evaluation is not None and evaluation.patience:
        chosen = {"chosen_on": (evaluation.chosen_on(),), "evaluate_every": every, "patience": evaluation.patience}
        plan = plan.model_copy(update=chosen)
    if begin_with is not None:
        seen, chose = seen_by(begin_with)
        told = {"init_from_sha256": file_sha256(begin_with), "init_trained_on": seen, "init_chosen_on": chose}
        plan = plan.model_copy(update=told)
    join()
    done = first_does(lambda: prepare(out_dir, plan, DetectorCard, force=force))
    if done is not None:
        return done
    settings = plan.recipe
    given = begin_with
    goes_on = (out_dir / LAST_CHECKPOINT).is_file()  # then every weight comes from there
    if given is None and settings.pretraining is not None and not goes_on:
        from harness.detection.pretraining import pretrained_backbone

        home = out_dir.parent / BACKBONES_FOLDER
        begin_with = first_does(lambda: pretrained_backbone(settings, split, shown, home, seed))
    network = fresh_network(plan, begin_with)
    if given is None:
        unfreeze(network)
    dataset = DetectionDataset(split, shown, settings, seed, network.padding_rgb, network.learns_masks)
    module = DetectorModule(network, settings, seed, plan.num_steps, accumulate)
    draw = shuffled_batches(len(dataset), settings.batch_size, seed)
    num_workers = min(settings.num_workers, max(1, available_cores() // here.num_local))

    def make_loader(first_step: int) -> Any:
        sampler = StepSampler(
            lambda step: draw(step)[here.rank :: here.num_processes], plan.num_steps, first_step, accumulate
        )
        return torch.utils.data.DataLoader(
            dataset,
            batch_sampler=sampler,  # type: ignore[arg-type]
            collate_fn=dataset.collate,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=ignore_interruptions,
        )

    fitted = fit(
        module,
        make_loader,
        FitSettings(
            num_steps=plan.num_steps,
            seed=seed,
            checkpoint_every=checkpoint_every,
            precision=precision,
            gradient_clip=settings.gradient_clip,
            accumulate=accumulate,
            photos_per_step=settings.batch_size,
            sync_batchnorm=sync_batchnorm,
        ),
        out_dir,
        None if evaluation is None else evaluation.watch(plan, network, every),
    )
    from harness.detection.bridge import provide_operators
    from harness.training.keeping import clear_best, read_best

    best = fitted.best if plan.patience else None
    card = first_does(
        lambda: finish(
            out_dir,
            plan,
            DetectorCard,
            network.model.state_dict() if best is None else read_best(best.weights),
            time.perf_counter() - began,
            resumed_at=fitted.first_step,
            versions={"mmdet operators": provide_operators()},
            initial_weights=None if given is None else given.name,
            left_as_drawn=() if given is None else network.left_as_drawn,
            items_without_area=num_without_area(split, shown),
            best_step=None if best is None else best.step,
            best_ap=None if best is None else best.figures[DECIDES],
            last_step=fitted.num_steps,
            precision=precision,
            num_processes=here.num_processes,
            accumulate=accumulate,
        )
    )
    if here.rank == 0:
        clear_best(out_dir)
    return card


def fresh_network(plan: DetectorPlan, init_from: Path | None) -> Network:
    """The network at the start of a training: random weights of the plan's seed, then the given ones over them.

    Raises:
        InputError: the file of weights is damaged, or fits the network nowhere.
    """
    import torch

    from harness.detection.bridge import Network
    from harness.detection.initial_weights import take_over

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        network = Network(plan.recipe.config, plan.recipe.model)
        network.initialise()
    if init_from is not None:
        network.left_as_drawn = take_over(network, init_from)
    return network
