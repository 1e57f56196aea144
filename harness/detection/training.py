"""Training a detector: from a recipe and a split to a folder with ``weights.pt`` and ``card.json``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.artifacts import file_sha256
from harness.cards import finish, prepare
from harness.detection.card import DetectorCard, DetectorPlan
from harness.detection.recipes import DetectorRecipe
from harness.fitting import LAST_CHECKPOINT, FitSettings, StepSampler, fit, shuffled_batches
from harness.types import Ints, Split

if TYPE_CHECKING:
    from harness.detection.bridge import Network


BACKBONES_FOLDER = "backbones"
"""Beside the detectors' folders: backbones that were trained on crops, one folder each."""


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
    devices: int = 0,
    num_nodes: int = 1,
    accumulate: int = 1,
    checkpoint_every: int = 200,
) -> DetectorCard:
    """Train a detector, or go on with a training that was interrupted, or find it done.

    Photos without a garment are left out.

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
        devices: GPUs a node, 0 for all; a step's photos are shared out among them.
        num_nodes: machines.
        accumulate: batches whose gradients are summed into one step.
        checkpoint_every: steps between checkpoints.

    Returns:
        The card, which is also in the folder.

    Raises:
        InputError: the folder holds another training, or photos, annotations or initial weights are
            missing or damaged.
    """
    import torch

    from harness.detection.config_recipes import self_contained
    from harness.detection.dataset import DetectionDataset, num_without_area, photos_with_items
    from harness.detection.initial_weights import find
    from harness.detection.module import DetectorModule, unfreeze

    began = time.perf_counter()
    shown = photos_with_items(split, image_ids)
    settings = self_contained(recipe.at(scale))
    if init_from == "none":
        settings = settings.model_copy(update={"pretraining": None})
    begin_with = None if init_from in (None, "none") else find(str(init_from), settings)
    settings = settings.model_copy(update={"coco_weights": None})  # the plan names what was taken by its hash
    plan = DetectorPlan.of(recipe.changed(scale, settings), scale, split, shown, seed, num_steps)
    if begin_with is not None:
        plan = plan.model_copy(update={"init_from_sha256": file_sha256(begin_with)})
    done = prepare(out_dir, plan, DetectorCard, force=force)
    if done is not None:
        return done
    settings = plan.recipe
    given = begin_with
    goes_on = (out_dir / LAST_CHECKPOINT).is_file()  # then every weight comes from there
    if given is None and settings.pretraining is not None and not goes_on:
        from harness.detection.pretraining import pretrained_backbone

        begin_with = pretrained_backbone(settings, split, shown, out_dir.parent / BACKBONES_FOLDER, seed)
    network = fresh_network(plan, begin_with)
    if given is None:
        unfreeze(network)
    dataset = DetectionDataset(split, shown, settings, seed, network.padding_rgb, network.learns_masks)
    module = DetectorModule(network, settings, seed, plan.num_steps)
    first_steps: list[int] = []

    def make_loader(first_step: int) -> Any:
        first_steps.append(first_step)
        draw = shuffled_batches(len(dataset), settings.batch_size, seed)

        def draw_for_rank(batch: int) -> Sequence[int]:
            rows = draw(batch)
            if torch.distributed.is_initialized():  # each process takes its share of the step's photos
                rows = rows[torch.distributed.get_rank() :: torch.distributed.get_world_size()]
            return rows

        sampler = StepSampler(draw_for_rank, plan.num_steps * accumulate, first_step * accumulate)
        return torch.utils.data.DataLoader(
            dataset,
            batch_sampler=sampler,  # type: ignore[arg-type]
            collate_fn=dataset.collate,
            num_workers=settings.num_workers,
            persistent_workers=settings.num_workers > 0,
        )

    on_gpu = torch.cuda.is_available()
    fit(
        module,
        make_loader,
        FitSettings(
            num_steps=plan.num_steps,
            seed=seed,
            checkpoint_every=checkpoint_every,
            precision=precision or (settings.precision if on_gpu else "32-true"),
            devices=devices,
            num_nodes=num_nodes,
            gradient_clip=settings.gradient_clip,
            accumulate=accumulate,
        ),
        out_dir,
    )
    from harness.detection.bridge import provide_operators

    return finish(
        out_dir,
        plan,
        DetectorCard,
        network.model.state_dict(),
        time.perf_counter() - began,
        resumed_at=first_steps[0],
        initial_weights=None if given is None else given.name,
        left_as_drawn=() if given is None else network.left_as_drawn,
        items_without_area=num_without_area(split, shown),
        versions={"mmdet operators": provide_operators()},
    )


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
