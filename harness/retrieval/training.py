"""Train a retriever into a folder: resumable, and never twice the same."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.retrieval.card import RetrieverCard, RetrieverPlan
from harness.retrieval.evaluation import Judge, inference_weights
from harness.retrieval.recipes import RetrieverRecipe, Scale
from harness.retrieval.settings import RetrieverSettings
from harness.training.cards import finish, prepare
from harness.training.fitting import FitSettings, StepSampler, check_precision, fit, ignore_interruptions
from harness.training.processes import first_does, join, place
from harness.types import InputError

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from harness.data.garments import Garments
    from harness.retrieval.sampler import IdentityBatches
    from harness.retrieval.training_crops import CropDataset, TrainingCrops


def train(
    name: str,
    recipe: RetrieverRecipe,
    scale: Scale,
    parts: Sequence[Garments],
    out_dir: Path,
    *,
    seed: int,
    num_steps: int | None = None,
    deepfashion2_only: bool = False,
    pretrained: bool | None = None,
    backbone_weights: Path | None = None,
    num_workers: int | None = None,
    checkpoint_every: int = 100,
    precision: str | None = None,
    judge: Judge | None = None,
    force: bool = False,
) -> RetrieverCard:
    """Train a retriever; go on where an interrupted training of the same plan stopped.

    Weights, data order and augmentation depend on (seed, name): two models of one recipe differ. Every process of
    `harness.training.processes` calls this, and takes batches of its own.

    Args:
        name: of the model; it says in the card and in messages who it is.
        recipe: what to train.
        scale: ``full`` or ``tiny``.
        parts: what to train on, a source each (m7 wants DeepFashion2's validation split as well).
        out_dir: ``weights.pt`` and ``card.json`` go here, with ``last.ckpt``, ``logs/`` and ``progress.json``.
        seed: at least 0.
        num_steps: optimiser steps instead of the recipe's.
        deepfashion2_only: train on the given sources although the recipe names further sources.
        pretrained: start from timm's weights instead of what the recipe says.
        backbone_weights: start from the backbone's state dict in this file; goes before ``pretrained``.
        num_workers: processes that decode photos where the crops do not fit in memory; None for one a core, at most 8.
        checkpoint_every: steps between checkpoints.
        precision: Lightning's precision string; None takes the recipe's on a GPU and 32 bits on a CPU.
        judge: how the model is judged meanwhile; None without. What its look raises ends the training as it is: the
            same call goes on from the last checkpoint.
        force: throw away what another training left in the folder.

    Returns:
        The card; at once, without training, where the folder holds the same training done.

    Raises:
        InputError: the recipe wants other data than is given, the data hold fewer than two identities, the folder
            holds another training, or weights to start from cannot be had.
        Interrupted: by a signal; the same call goes on.
    """
    _check_sources(name, recipe, parts, deepfashion2_only)
    settings = recipe.at(scale)
    if pretrained is not None or backbone_weights is not None:
        settings = settings.model_copy(update={"pretrained": bool(pretrained) and backbone_weights is None})

    from harness.retrieval.training_crops import collect

    crops = collect(parts)
    num_processes = place().num_processes
    batches = _batches(crops, settings, _run_seed(seed, name))
    plan = RetrieverPlan(
        name=name,
        scale=scale,
        recipe=settings,
        wanted=recipe.trained_on,
        trained_on=tuple(part.record for part in parts),
        seed=seed,
        num_steps=num_steps or settings.num_steps or _steps_of_epochs(crops, settings, num_processes),
        num_processes=num_processes,
    )
    batch_size = batches.num_identities * batches.num_crops * num_processes
    every = 0 if judge is None else judge.steps(len(crops.labels), batch_size)
    if judge is not None and judge.patience:
        assert judge.chosen_on is not None
        chosen = {"chosen_on": (judge.chosen_on,), "chosen_by": judge.figure}
        plan = plan.model_copy(update={**chosen, "evaluate_every": every, "patience": judge.patience})
    precision = precision or _precision(settings)
    check_precision(precision)
    join()
    done = first_does(lambda: prepare(out_dir, plan, RetrieverCard, force=force))
    if done is not None:
        return done
    fit_settings = FitSettings(
        num_steps=plan.num_steps,
        seed=seed,
        checkpoint_every=checkpoint_every,
        precision=precision,
        gradient_clip=settings.gradient_clip,
        photos_per_step=batch_size,
    )
    return _run(plan, crops, batches, fit_settings, out_dir, backbone_weights, num_workers, judge, every)


def _run(
    plan: RetrieverPlan,
    crops: TrainingCrops,
    batches: IdentityBatches,
    fit_settings: FitSettings,
    out_dir: Path,
    backbone_weights: Path | None,
    num_workers: int | None,
    judge: Judge | None,
    every: int,
) -> RetrieverCard:
    import torch

    from harness.retrieval.cgd import CGD
    from harness.retrieval.initial_weights import initialise
    from harness.retrieval.module import RetrieverModule
    from harness.retrieval.training_crops import CropDataset, fits_in_memory

    began = time.perf_counter()
    settings, run_seed = plan.recipe, _run_seed(plan.seed, plan.name)
    with torch.random.fork_rng():
        torch.manual_seed(run_seed)
        network = CGD.of(settings, crops.num_identities)
        initialise(network, str(backbone_weights or ("imagenet" if settings.pretrained else "none")))
    # Channels last suits tensor cores, and takes a fifth off a small ResNet's step on a CPU.
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    module = RetrieverModule(settings, crops.num_identities, plan.num_steps, run_seed, network)
    in_memory = fits_in_memory(crops, settings)
    dataset = CropDataset(crops, settings, in_memory=in_memory)
    workers = 0 if in_memory else min(8, os.cpu_count() or 1) if num_workers is None else num_workers
    watch = None if judge is None else judge.watch(plan, network, every)
    fitted = fit(module, _loaders(dataset, batches, plan.num_steps, workers), fit_settings, out_dir, watch)

    from harness.training.keeping import clear_best, read_best

    best = fitted.best if plan.patience else None
    card = first_does(
        lambda: finish(
            out_dir,
            plan,
            RetrieverCard,
            inference_weights(network) if best is None else read_best(best.weights),
            time.perf_counter() - began,
            num_identities=crops.num_identities,
            num_crops=len(crops.labels),
            num_parameters=sum(p.numel() for key, p in network.named_parameters() if not key.startswith("classifier.")),
            best_step=None if best is None else best.step,
            best_acc10=None if best is None else best.figures.get("acc@10"),
            last_step=fitted.num_steps,
            resumed_at=fitted.first_step,
            precision=fit_settings.precision,
        )
    )
    if place().rank == 0:
        clear_best(out_dir)
    return card


def _loaders(
    dataset: CropDataset, batches: IdentityBatches, num_steps: int, num_workers: int
) -> Callable[[int], DataLoader[Any]]:
    from torch.utils.data import DataLoader

    def make(first_step: int) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_sampler=StepSampler(lambda step: batches.draw(_batch_of_process(step)), num_steps, first_step),
            collate_fn=_as_it_is,
            num_workers=num_workers,
            pin_memory=num_workers > 0,
            persistent_workers=num_workers > 0,
            worker_init_fn=ignore_interruptions,
        )

    return make


def _as_it_is(batch: Any) -> Any:
    return batch


def _batch_of_process(step: int) -> int:
    """Which batch of the stream a process takes at a step: every process another one."""
    here = place()
    return step * here.num_processes + here.rank


def _batches(crops: TrainingCrops, settings: RetrieverSettings, run_seed: int) -> IdentityBatches:
    from harness.retrieval.sampler import IdentityBatches

    return IdentityBatches(
        crops.labels, crops.is_consumer, settings.identities_per_batch, settings.crops_per_identity, run_seed
    )


def _steps_of_epochs(crops: TrainingCrops, settings: RetrieverSettings, num_processes: int) -> int:
    """Steps in which as many crops are seen as the recipe's epochs have."""
    batch = settings.identities_per_batch * settings.crops_per_identity * num_processes
    return math.ceil(settings.epochs * len(crops.labels) / batch)


def _run_seed(seed: int, name: str) -> int:
    """A seed below 2^63 that depends on the user's seed and on the model's name."""
    words = np.random.SeedSequence(seed, spawn_key=tuple(name.encode())).generate_state(2, np.uint32)
    return (int(words[0]) << 31) | (int(words[1]) >> 1)


def _precision(settings: RetrieverSettings) -> str:
    import torch

    return settings.precision if torch.cuda.is_available() else "32-true"


def _check_sources(name: str, recipe: RetrieverRecipe, parts: Sequence[Garments], deepfashion2_only: bool) -> None:
    given = [part.source for part in parts]
    unwanted = [source for source in given if source not in recipe.trained_on]
    if unwanted:
        raise InputError(
            f"retriever {name}: {', '.join(unwanted)} is not among what recipe {recipe.name} trains on "
            f"({', '.join(recipe.trained_on)}); leave it out, or take a recipe that names it"
        )
    missing = [source for source in recipe.trained_on if source not in given]
    if missing and not deepfashion2_only:
        raise InputError(
            f"retriever {name}: recipe {recipe.name} also trains on {', '.join(missing)}, which was not given; "
            "say --deepfashion2-only to train on what is there (the card will say so)"
        )
