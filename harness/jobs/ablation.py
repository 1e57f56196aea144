"""Recipes of retrieval models against one another: each trained with several seeds, scored on the same queries.

One training says little: at tiny scale another seed moves Acc@10 by some hundredths, about as much as Table 3's
differences. Here every recipe is trained with the same seeds, and the first named is what the others are compared with.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.garments import Garments
from harness.progress import Reporter
from harness.scoring.repeats import OverSeeds, PairedOverSeeds, compare_over_seeds, over_seeds
from harness.types import Bools, InputError, Ints, Split
from harness.workplace import Workplace

if TYPE_CHECKING:
    from filelock import FileLock

    from harness.retrieval.recipes import RetrieverRecipe, Scale

ASKED = (1, 10)
"""Acc@k that is compared; the challenge ranks by 10."""


@dataclass(frozen=True)
class Contestant:
    """A recipe's figures over its seeds.

    Attributes:
        name: of the recipe.
        description: in the recipe's words.
        sources: what it was trained on.
        num_identities: that it learned to tell apart.
        num_crops: of them.
        acc: k -> Acc@k of every seed.
        mean: k -> mean of Acc@k with its interval.
        against_first: k -> difference to the first recipe; empty for itself.
    """

    name: str
    description: str
    sources: tuple[str, ...]
    num_identities: int
    num_crops: int
    acc: Mapping[int, tuple[float, ...]]
    mean: Mapping[int, OverSeeds]
    against_first: Mapping[int, PairedOverSeeds] = field(default_factory=dict)


def ablate(
    recipes: Sequence[RetrieverRecipe],
    scale: Scale,
    parts: Sequence[Garments],
    judged_on: Split,
    work: Workplace,
    seeds: Sequence[int],
    *,
    num_steps: int | None = None,
    deepfashion2_only: bool = False,
    without_copies: Callable[[list[Garments]], tuple[list[Garments], Mapping[str, Any]]] | None = None,
    num_workers: int = 1,
    force: bool = False,
    report: Reporter,
) -> list[Contestant]:
    """Train every recipe with every seed, and score each by the official protocol on ground-truth boxes.

    Trainings lie in ``WORK/ablations/NAME/seed-N``; what is done is not done again.

    Args:
        recipes: the first is what the others are compared with.
        scale: ``full`` or ``tiny``.
        parts: sources to train on; a recipe takes those that it names.
        judged_on: an annotated split; the protocol of the paper's Table 3.
        work: the working folder.
        seeds: different ones, at least one.
        num_steps: optimiser steps instead of the recipes'.
        deepfashion2_only: train without the sources that recipes name and that are not given.
        without_copies: takes copies out of the sources of a recipe; beside the rest it gives arguments of
            `harness.retrieval.training.train` that tell of it. None keeps all.
        num_workers: trainings side by side, on a GPU each where there are any, else one thread each.
        force: replace trainings of other settings.
        report: where progress is shown.

    Raises:
        InputError: a name or a seed comes twice, a recipe lacks a source, or a training or the split is not usable.
    """
    from harness.retrieval.training import check_sources
    from harness.workers import Job, side_by_side

    for what, values in (("recipe", [recipe.name for recipe in recipes]), ("seed", list(seeds))):
        if len(set(values)) < len(values) or not values:
            raise InputError(f"{what}s: expected at least one, each once, got {', '.join(map(str, values)) or 'none'}")
    for recipe in recipes:
        check_sources(recipe.name, recipe, _of(recipe, parts), deepfashion2_only)
    own: dict[str, tuple[list[Garments], Mapping[str, Any]]] = {}
    for recipe in recipes:
        named = [part for part in parts if part.source in recipe.trained_on]
        own[recipe.name] = without_copies(named) if without_copies and len(named) > 1 else (named, {})
    jobs = []
    for seed in seeds:
        for recipe in recipes:
            garments, left = own[recipe.name]
            folder = work.root / "ablations" / recipe.name / f"seed-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            arguments = {"recipe": recipe, "scale": scale, "parts": garments, "judged_on": judged_on, "out_dir": folder}
            how: dict[str, Any] = {"seed": seed, "num_steps": num_steps, "deepfashion2_only": deepfashion2_only}
            how |= {"force": force, **left}
            jobs.append(Job(f"{recipe.name}, seed {seed}", train_and_score, arguments | how, folder))
    found = side_by_side(jobs, num_workers, report)
    first: Mapping[int, Bools] | None = None
    contestants = []
    for recipe in recipes:
        runs = [found[f"{recipe.name}, seed {seed}"] for seed in seeds]
        hits = {k: np.stack([(run.hit_ranks > 0) & (run.hit_ranks <= k) for run in runs]) for k in ASKED}
        acc = {k: tuple(hits[k].mean(axis=1).tolist()) for k in ASKED}
        contestants.append(
            Contestant(
                name=recipe.name,
                description=recipe.description,
                sources=runs[0].sources,
                num_identities=runs[0].num_identities,
                num_crops=runs[0].num_crops,
                acc=acc,
                mean={k: over_seeds(acc[k]) for k in ASKED},
                against_first={} if first is None else {k: compare_over_seeds(first[k], hits[k]) for k in ASKED},
            )
        )
        first = first or hits
    return contestants


def _of(recipe: RetrieverRecipe, parts: Sequence[Garments]) -> list[str]:
    return [part.source for part in parts if part.source in recipe.trained_on]


@dataclass(frozen=True, eq=False)
class Run:
    """One training and what it is worth.

    Attributes:
        sources: that it was trained on.
        num_identities: that it learned to tell apart.
        num_crops: of them.
        hit_ranks: (Q,) int64, as in `harness.types.Score`.
    """

    sources: tuple[str, ...]
    num_identities: int
    num_crops: int
    hit_ranks: Ints


def train_and_score(
    recipe: RetrieverRecipe, scale: Scale, parts: Sequence[Garments], judged_on: Split, out_dir: Path, **how: Any
) -> Run:
    """One training in a worker, and its score on ground-truth boxes."""
    from harness.jobs.retrievers import GroundTruthAccuracy
    from harness.retrieval.embedding import Retriever
    from harness.retrieval.training import train

    _take_gpu(out_dir.parents[1])
    card = train(recipe.name, recipe, scale, parts, out_dir, **how)
    score = GroundTruthAccuracy(judged_on, judged_on.photos.image_ids).score(Retriever.load(out_dir))
    return Run(tuple(part.source for part in parts), card.num_identities, card.num_crops, score.hit_ranks)


_HELD: list[FileLock] = []
"""The lock of this worker's GPU, for as long as the worker lives: CUDA cannot change devices once it has begun."""


def _take_gpu(folder: Path) -> None:
    """Wait for a GPU that no other worker has, and let this process see that one alone; nothing without GPUs."""
    import torch
    from filelock import FileLock, Timeout

    while not _HELD and (count := torch.cuda.device_count()):
        for index in range(count):
            lock = FileLock(folder / f".gpu-{index}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            _HELD.append(lock)
            seen = os.environ.get("CUDA_VISIBLE_DEVICES")
            os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[index] if seen else str(index)
            return
        time.sleep(1.0)
