"""One training of a search for the multi-similarity loss, judged on held-out pairs.

The objective is the mean of Acc@1, 5, 10, 15 and 20: half of a tenth of the pairs has few queries, of which Acc@10
alone would tell apart only a handful of values, and it is near its end where the gallery is small. All trainings of a
search have one seed, so that they differ by their hyper-parameters alone; what chance does is seen by the repeats.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from harness.retrieval.recipes import RetrieverRecipe, Scale
from harness.retrieval.settings import MultiSimilaritySettings
from harness.training.cards import image_ids_sha256
from harness.training.fitting import LAST_CHECKPOINT
from harness.training.pairs import halves, held_out_pairs
from harness.types import RANKS, InputError, Score, Split
from harness.workplace import Workplace

if TYPE_CHECKING:
    from harness.retrieval.embedding import Embedder
    from harness.retrieval.tuning.searching import Attempt

STUDIES_FILE = "ms-loss.sqlite"
"""Below the working folder's ``studies``: the studies, unless a server has them."""

OBJECTIVE = "mean of Acc@1, 5, 10, 15, 20"


@dataclass(frozen=True)
class Request:
    """What is to be searched, for whichever process takes part.

    Attributes:
        work: the working folder; its ``studies`` has the trainings.
        data: a DeepFashion2 folder.
        recipe: of the model to train.
        scale: to train at.
        study: name of the study.
        storage: URL of the database, or an SQLite file; None for `STUDIES_FILE`.
        num_trials: finished ones that the study is to have in all.
        num_steps: of a training; None for the recipe's.
        num_looks: at a model in training, which may prune it.
        space: a name of `harness.retrieval.tuning.values.SPACES`.
        pruner: see `harness.retrieval.tuning.tune`.
        seed: of the search and of its trainings; repeats have the seeds after it.
        num_best: of the trials, so many are repeated.
        num_repeats: of each of them and of the defaults; 0 searches only.
    """

    work: Workplace
    data: Path
    recipe: RetrieverRecipe
    scale: Scale
    study: str
    storage: str | None = None
    num_trials: int = 40
    num_steps: int | None = None
    num_looks: int = 8
    space: str = "wide"
    pruner: Any = "median"
    seed: int = 0
    num_best: int = 3
    num_repeats: int = 3

    @property
    def folder(self) -> Path:
        """Of the study: trainings, plots and lists."""
        return study_folder(self.work, self.study)


class Conditions(BaseModel):
    """What all trials of a study have in common."""

    model: str
    scale: str
    rendered: bool
    data: str
    trained_on: str
    searched_on: str
    reported_on: str
    recipe: dict[str, Any]
    num_steps: int
    looks: int
    space: dict[str, Any]
    objective: str
    seed: int


def check_name(study: str) -> str:
    """The name of a study, which is that of its folder too.

    Raises:
        InputError: it cannot be.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}", study):
        raise InputError(f"study {study!r}: expected letters, digits and _ . + -, at most 100")
    return study


def study_folder(work: Workplace, study: str) -> Path:
    """Where the trainings, plots and lists of a study are."""
    return work.root / "studies" / study


def database_of(work: Workplace, storage: str | None) -> Any:
    """Where studies are kept."""
    from harness.retrieval.tuning.database import Database

    return Database.at(storage or work.root / "studies" / STUDIES_FILE)


class Bench:
    """Trains with the hyper-parameters of an attempt and judges the model; one a process.

    Args:
        request: what is searched.

    Raises:
        InputError: the split has too few pairs, or too few shop garments to search among.
    """

    def __init__(self, request: Request) -> None:
        from harness.data.deepfashion2 import read_split
        from harness.data.garments import garments_of
        from harness.jobs.retrievers import GroundTruthAccuracy
        from harness.retrieval.tuning.values import SPACES

        self.request = request
        split: Split = read_split(request.data, "train")
        training_ids, held_ids = held_out_pairs(split)
        search_ids, report_ids = halves(split, held_ids)
        self.parts = [garments_of(split, training_ids)]
        self.searched = GroundTruthAccuracy(split, search_ids)
        self.reported = GroundTruthAccuracy(split, report_ids)
        recipe = request.recipe.at(request.scale).model_dump(mode="json")
        del recipe["losses"]["multi_similarity"]
        self.num_steps = _steps_of(request)
        self.conditions = Conditions(
            model=request.recipe.name,
            scale=request.scale,
            rendered=split.rendered,
            data=split.fingerprint,
            trained_on=image_ids_sha256(training_ids),
            searched_on=image_ids_sha256(search_ids),
            reported_on=image_ids_sha256(report_ids),
            recipe=recipe,
            num_steps=self.num_steps,
            looks=request.num_looks,
            space=SPACES[request.space].model_dump(mode="json"),
            objective=OBJECTIVE,
            seed=request.seed,
        )

    def attempt(self, attempt: Attempt) -> float:
        """Train with the search's seed, judged on the way; the objective on the half that is searched on."""
        from harness.retrieval.evaluation import Judge

        folder = self.request.folder / f"trial_{attempt.number:04d}"
        every = max(1, self.num_steps // self.request.num_looks)
        steps = _looks(_step_reached(folder), every, self.num_steps)
        seen: dict[str, float] = {}

        def look(embedder: Embedder) -> Mapping[str, float]:
            try:
                score = self.searched.score(_Watched(embedder))
            except _DivergedError as error:
                attempt.give_up(str(error))
            seen.update(_figures(score))
            attempt.look(next(steps), seen["mean"])
            return seen

        self._train(attempt.settings, self.request.seed, folder, judge=Judge(every, look, figure="mean"))
        figures = seen or _figures(self.searched.score(_loaded(folder)))  # it was trained, but not told
        attempt.tell({name: value for name, value in figures.items() if name != "mean"})
        return figures["mean"]

    def repeat(self, attempt: Attempt) -> tuple[float, Mapping[str, Sequence[int]]]:
        """Train with another seed; the rank of each query's first right answer on both halves."""
        assert attempt.seed is not None
        name = f"{attempt.settings.model_dump_json()} {attempt.seed}"
        folder = self.request.folder / "repeats" / hashlib.sha256(name.encode()).hexdigest()[:12]
        self._train(attempt.settings, attempt.seed, folder)
        model = _Watched(_loaded(folder))
        scores = {"search": self.searched.score(model), "report": self.reported.score(model)}
        keep_logs_alone(folder)
        return _figures(scores["search"])["mean"], {half: one.hit_ranks.tolist() for half, one in scores.items()}

    def _train(self, loss: MultiSimilaritySettings, seed: int, folder: Path, **how: Any) -> None:
        from harness.retrieval.training import train

        request = self.request
        train(
            request.recipe.name,
            request.recipe.with_multi_similarity(request.scale, loss),
            request.scale,
            self.parts,
            folder,
            seed=seed,
            num_steps=self.num_steps,
            deepfashion2_only=True,
            **how,
        )


def _steps_of(request: Request) -> int:
    steps = request.num_steps or request.recipe.at(request.scale).num_steps
    if steps is None:
        raise InputError(
            f"tune ms-loss at scale {request.scale}: {request.recipe.name} trains for "
            f"{request.recipe.at(request.scale).epochs} epochs, which is too long for each of {request.num_trials} "
            "trials; say after how many optimiser steps they are compared: --steps N"
        )
    return steps


class _DivergedError(Exception):
    """A model's embeddings are no unit vectors."""


class _Watched:
    """An embedder whose diverging is an error of its own, not one of the user's."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.name, self.dimensions = embedder.name, embedder.dimensions
        self.input_wh, self.margin = embedder.input_wh, embedder.margin

    def embed(self, crops_BHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As the embedder does."""
        vectors = self._embedder.embed(crops_BHW3)
        if not (np.abs(np.linalg.norm(vectors, axis=1) - 1) < 1e-3).all():  # NaN is wrong too
            raise _DivergedError("its embeddings are no longer of length 1: it diverged")
        return vectors


def _figures(score: Score) -> dict[str, float]:
    return {f"acc@{k}": score.acc[k] for k in RANKS} | {"mean": fmean(score.acc[k] for k in RANKS)}


def _loaded(folder: Path) -> Embedder:
    from harness.retrieval.embedding import Retriever

    return Retriever.load(folder)


def _looks(first_step: int, every: int, num_steps: int) -> Iterator[int]:
    """The steps after the first at which a training is looked at."""
    return (step for step in range(first_step + 1, num_steps + 1) if step % every == 0 or step == num_steps)


def _step_reached(folder: Path) -> int:
    """Where a training of this folder will go on."""
    import torch

    path = folder / LAST_CHECKPOINT
    if not path.is_file():
        return 0
    return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"])


def keep_logs_alone(folder: Path) -> None:
    """Remove weights, checkpoint and card of a training whose result is known."""
    for path in folder.glob("*"):
        if path.is_file():
            path.unlink(missing_ok=True)
