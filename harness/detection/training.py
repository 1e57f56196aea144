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
from harness.types import InputError, Ints, Split

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
    init_from: Path | None = None,
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
        init_from: weights to begin with: an mmdet checkpoint, or a torchvision backbone's state
            dict. None begins with a backbone that is trained on crops first, where the recipe says
            so (shared by the detectors beside ``out_dir``), else with random weights; nothing is frozen then.
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

    from harness.detection.dataset import DetectionDataset, photos_with_items
    from harness.detection.module import DetectorModule, unfreeze

    began = time.perf_counter()
    shown = photos_with_items(split, image_ids)
    plan = DetectorPlan.of(recipe, scale, split, shown, seed, num_steps)
    if init_from is not None:
        if not init_from.is_file():
            raise InputError(
                f"{init_from}: there are no initial weights; give an mmdet checkpoint (.pth) or a torchvision "
                "backbone's state dict, or leave them out to begin with random weights"
            )
        plan = plan.model_copy(update={"init_from_sha256": file_sha256(init_from)})
    done = prepare(out_dir, plan, DetectorCard, force=force)
    if done is not None:
        return done
    settings = plan.recipe
    begin_with = init_from
    goes_on = (out_dir / LAST_CHECKPOINT).is_file()  # then every weight comes from there
    if init_from is None and settings.pretraining is not None and not goes_on:
        from harness.detection.pretraining import pretrained_backbone

        begin_with = pretrained_backbone(settings, split, shown, out_dir.parent / BACKBONES_FOLDER, seed)
    network = fresh_network(plan, begin_with)
    if init_from is None:
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
        versions={"mmdet operators": provide_operators()},
    )


def fresh_network(plan: DetectorPlan, init_from: Path | None) -> Network:
    """The network at the start of a training: random weights of the plan's seed, then the given ones over them.

    Raises:
        InputError: the file of weights is damaged, or fits the network nowhere.
    """
    import torch

    from harness.detection.bridge import Network

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        network = Network(plan.recipe.config, plan.recipe.model)
        network.initialise()
    if init_from is not None:
        _take_over(network, init_from)
    return network


def _take_over(network: Network, init_from: Path) -> None:
    import pickle

    import torch

    try:
        loaded = torch.load(init_from, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        why = str(error).splitlines()[0]  # torch goes on for a page
        raise InputError(f"{init_from}: cannot be read as a state dict of tensors: {why}") from error
    given = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    own = network.model.state_dict()
    if not any(name.startswith("backbone.") for name in given):
        given = {f"backbone.{name}": value for name, value in given.items()}
    # The class layers of other data sets have other shapes; they stay as they were drawn.
    fitting = {name: v for name, v in given.items() if name in own and own[name].shape == v.shape}
    num_backbone = sum(name.startswith("backbone.") and not name.endswith("num_batches_tracked") for name in own)
    taken = sum(name.startswith("backbone.") and not name.endswith("num_batches_tracked") for name in fitting)
    if taken < num_backbone:
        raise InputError(
            f"{init_from}: fits {taken} of the backbone's {num_backbone} tensors; these weights are of another "
            "architecture than the recipe's"
        )
    network.model.load_state_dict({**own, **fitting})
