"""Tuning the multi-similarity loss: searched on one half of the held-out pairs, reported on the other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from harness.jobs.ms_loss_bench import Bench, Request, database_of, keep_logs_alone
from harness.progress import Reporter, silent
from harness.retrieval.settings import MultiSimilaritySettings
from harness.retrieval.tuning.values import DEFAULTS, SPACES, WANG, StudyState, Tried
from harness.training.fitting import write_progress
from harness.types import InputError, Progress
from harness.workers import Job, side_by_side

if TYPE_CHECKING:
    from harness.retrieval.tuning.searching import Repeat


def tidy(folder: Path, state: StudyState) -> None:
    """Of all finished trials only the best keeps its model; the others keep their logs."""
    best = {_number(one) for one in state.ranked[:1]}
    for one in state.tried:
        if one.state in ("complete", "pruned") and _number(one) not in best:
            keep_logs_alone(folder / f"trial_{_number(one):04d}")


def _number(one: Tried) -> int:
    return one.number if one.retry_of is None else one.retry_of


def search(request: Request, report: Reporter = silent, gpu: int | None = None) -> None:
    """Take part in a search until it has its trials, then in the repeats of its best.

    Args:
        request: what is searched.
        report: where progress is shown.
        gpu: the one to use; None for the first.

    Raises:
        InputError: the data, the database or an earlier study does not allow it.
    """
    if gpu is not None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[gpu] if visible else str(gpu)
    from harness.retrieval.tuning import searching

    bench = Bench(request)
    database = database_of(request.work, request.storage)
    request.folder.mkdir(parents=True, exist_ok=True)
    state = searching.tune(
        database,
        request.study,
        bench.conditions,
        bench.attempt,
        num_trials=request.num_trials,
        seed=request.seed,
        space=SPACES[request.space],
        first=first_trials(request.recipe.at(request.scale).losses.multi_similarity),
        pruner=request.pruner,
        num_steps=bench.num_steps,
        num_looks=request.num_looks,
        progress=report("trials"),
        after_trial=lambda state: tidy(request.folder, state),
    )
    if request.num_repeats:
        wanted = [one for some in wanted_repeats(request, state).values() for one in some]
        name = request.study + searching.REPEATS
        searching.repeat(database, name, bench.conditions, bench.repeat, wanted, report("repeats"))


def first_trials(of_recipe: MultiSimilaritySettings) -> dict[str, MultiSimilaritySettings]:
    """What is tried first: published values, and the recipe's where they are others."""
    known = {"defaults": DEFAULTS, "Wang et al.": WANG}
    return known if of_recipe in known.values() else known | {"recipe": of_recipe}


def wanted_repeats(request: Request, state: StudyState) -> dict[MultiSimilaritySettings, list[Repeat]]:
    """The trainings that tell what the best trials and the defaults are worth; the defaults come last.

    Raises:
        InputError: no trial but that of the defaults ran to its end.
    """
    from harness.retrieval.tuning.searching import Repeat

    tuned = list(dict.fromkeys(one.settings for one in state.ranked if one.settings not in (None, DEFAULTS)))
    if not tuned:
        raise InputError(f"study '{state.name}': only the defaults ran to their end; give it more --trials")
    seeds = [request.seed + 1 + number for number in range(request.num_repeats)]
    chosen = [*(one for one in tuned[: request.num_best] if one is not None), DEFAULTS]
    return {one: [Repeat(one, seed) for seed in seeds] for one in chosen}


def search_side_by_side(request: Request, num_workers: int, report: Reporter) -> None:
    """`search` in several processes of one thread each, a GPU each where there are some.

    Raises:
        InputError: as `search`, or a process was ended from outside.
    """
    import torch

    num_gpus = torch.cuda.device_count()
    jobs = [
        Job(
            f"worker {number + 1}" if number else "trials, then repeats",
            _work,
            {"request": request, "number": number, "gpu": number % num_gpus if num_gpus else None},
            None if number else _progress_folder(request),
        )
        for number in range(num_workers)
    ]
    side_by_side(jobs, num_workers, report)


def _progress_folder(request: Request) -> Path:
    return request.folder / "progress"


def _work(request: Request, number: int, gpu: int | None) -> None:
    def told(_: str) -> Progress:
        def advance(done: int, total: int) -> None:
            if number == 0:
                _progress_folder(request).mkdir(parents=True, exist_ok=True)
                write_progress(_progress_folder(request), done, total, 0.0)

        return advance

    search(request, told, gpu)
