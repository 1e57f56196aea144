"""From features to answers: the post-processing steps of an ensemble and the search, each a stage of the store.

Legend: Q queries, G gallery rows, D dimensions, K answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.artifacts import Artifact, Draft, Recipe, Store, write_array, write_half_rows
from harness.progress import Reporter
from harness.ranking import stepping
from harness.ranking.rows import FeatureRows
from harness.ranking.search import SearchOptions, nearest
from harness.steps import GALLERY, OF_FEATURES, RERANK, SAME_CATEGORY, Step
from harness.timing import Stopwatch
from harness.types import GALLERY_LENGTH, Ints

SEARCH_VERSION = 2
RERANK_VERSION = 1
FIT_VERSION = 1
PROJECT_VERSION = 1
MIX_VERSION = 1

Fitting = Callable[[str], tuple[Sequence[FeatureRows], str]]
"""The same models' features of all boxes of the ``split``, or of garments of ``train``, one (N, D) each, and what they
are addressed by."""


@dataclass(frozen=True, eq=False)
class Features:
    """What is searched, between two steps.

    Attributes:
        weights: one a model.
        queries: (Q, D) a model.
        gallery: (G, D) a model.
        query_address: of all that decides ``queries``.
        gallery_address: of all that decides ``gallery``.
        fitting: what steps can be fitted on beside the gallery; called only where one is.
    """

    weights: Sequence[float]
    queries: Sequence[FeatureRows]
    gallery: Sequence[FeatureRows]
    query_address: str
    gallery_address: str
    fitting: Fitting


@dataclass(frozen=True, eq=False)
class Asking:
    """Who asks, and who may answer.

    Attributes:
        num_boxes: Q, of all queries that take part.
        answered: (A,) int64, the queries whose answers are wanted; None for all.
        groups: categories of the queries (Q,) and of the gallery (G,).
    """

    num_boxes: int
    answered: Ints | None
    groups: tuple[Ints, Ints]

    @cached_property
    def address(self) -> str:
        """Of the queries that are answered."""
        return "all" if self.answered is None else hashlib.sha256(self.answered.tobytes()).hexdigest()

    @property
    def count(self) -> int:
        """A."""
        return self.num_boxes if self.answered is None else len(self.answered)


@dataclass(frozen=True)
class RankingStages:
    """The stages between features and answers.

    Attributes:
        store: of results.
        stopwatch: collects the stages' times.
        report: where progress is shown.
        options: what searches may use.
    """

    store: Store
    stopwatch: Stopwatch
    report: Reporter
    options: SearchOptions

    def find(self, features: Features, steps: Sequence[Step], asking: Asking) -> tuple[Artifact, dict[str, str]]:
        """The answers of an ensemble: the steps in their order, then the search, or the re-ranking instead.

        Args:
            features: of the ensemble's models.
            steps: in the order in which they act.
            asking: who asks.

        Returns:
            An artifact of ``gallery_rows.npy``, (A, K) int64 rows of the gallery, best first, and
            ``similarities.npy``, (A, K) float32, descending; and the addresses of what led there.
        """
        addresses: dict[str, str] = {}
        same_category = bool(steps) and steps[-1].name == SAME_CATEGORY
        rest = steps[: len(steps) - same_category]
        reranked = rest[-1] if rest and rest[-1].name == RERANK else None
        for number, step in enumerate(rest[: len(rest) - (reranked is not None)], start=1):
            features = self._project(features, step) if step.name in OF_FEATURES else self._mix(features, step)
            addresses[f"step {number}, {step}"] = hashlib.sha256(
                f"{features.query_address}\n{features.gallery_address}".encode()
            ).hexdigest()
        groups = asking.groups if same_category else None
        if reranked is None:
            found = self._search(features, asking, groups)
        else:
            found = self._rerank(features, reranked, asking, groups)
        return found, addresses | {"search": found.address}

    # --- answers -------------------------------------------------------------------------------

    def _search(self, features: Features, asking: Asking, groups: tuple[Ints, Ints] | None) -> Artifact:
        recipe = Recipe(
            "search",
            SEARCH_VERSION,
            {"weights": list(features.weights), "top_k": GALLERY_LENGTH, "same_category": groups is not None},
            {"queries": features.query_address, "gallery": features.gallery_address}
            | ({} if groups is None else {"categories": _digest(*groups)}),
        )

        def make(draft: Draft) -> dict[str, Any]:
            ids, similarities = nearest(
                features.queries,
                features.gallery,
                GALLERY_LENGTH,
                features.weights,
                groups=groups,
                options=self.options,
                progress=self.report("search"),
            )
            others = 2 * sum(features.weights)
            return _write(draft, ids, _descending(ids, similarities, groups, others), len(features.gallery[0]))

        return self._stage("search", recipe, make, "queries", asking.count)

    def _rerank(self, features: Features, step: Step, asking: Asking, groups: tuple[Ints, Ints] | None) -> Artifact:
        recipe = Recipe(
            RERANK,
            RERANK_VERSION,
            {
                "weights": list(features.weights),
                "top_k": GALLERY_LENGTH,
                "same_category": groups is not None,
                **dict(step.arguments),
            },
            {"queries": features.query_address, "gallery": features.gallery_address, "answered": asking.address}
            | ({} if groups is None else {"categories": _digest(*groups)}),
        )

        def make(draft: Draft) -> dict[str, Any]:
            ids, distances = stepping.reranked(
                step,
                features.queries,
                features.gallery,
                features.weights,
                self.options,
                groups=groups,
                answered=asking.answered,
                progress=self.report(str(step)),
            )
            asked = groups
            if groups is not None and asking.answered is not None:
                asked = (groups[0][asking.answered], groups[1])
            similarities = _descending(ids, (1 - distances).astype(np.float32), asked, 1.0)
            return _write(draft, ids, similarities, len(features.gallery[0]))

        return self._stage(RERANK, recipe, make, "queries", asking.count)

    # --- steps ---------------------------------------------------------------------------------

    def _project(self, features: Features, step: Step) -> Features:
        """PCA or whitening: one model of fewer dimensions comes out."""
        fit_on = str(step["fit"])
        parts, address = features.gallery, features.gallery_address
        if fit_on != GALLERY:
            parts, address = features.fitting(fit_on)
        recipe = Recipe(
            "fit-projection",
            FIT_VERSION,
            {
                "dimensions": step.get("dimensions"),
                "weights": list(features.weights),
                **stepping.projection_settings(step),
            },
            {"features": address},
        )

        def fit(draft: Draft) -> dict[str, Any]:
            projection = stepping.fit(
                step,
                parts,
                features.weights,
                memory_bytes=self.options.memory_bytes,
                progress=self.report(f"fit {step}"),
            )
            draft.write("projection.npz", projection.save)
            return {"dimensions": projection.dimensions, "explained": projection.explained, "rows": len(parts[0])}

        fitted = self._stage(f"fit {step}", recipe, fit, "rows", len(parts[0]))
        apply = partial(self._projected, step, fitted)
        queries, query_address = apply(features.queries, features.query_address)
        gallery, gallery_address = apply(features.gallery, features.gallery_address)

        def fitting(fit_on: str) -> tuple[Sequence[FeatureRows], str]:
            return apply(*features.fitting(fit_on))

        return Features((1.0,), queries, gallery, query_address, gallery_address, fitting)

    def _projected(
        self, step: Step, fitted: Artifact, parts: Sequence[FeatureRows], address: str
    ) -> tuple[Sequence[FeatureRows], str]:
        def make(draft: Draft) -> dict[str, Any]:
            from harness.ranking.whitening import Projection

            projection = Projection.load(fitted.path("projection.npz"))
            shape = (len(parts[0]), projection.dimensions)
            progress = self.report(str(step))
            blocks = projection.blocks(parts, memory_bytes=self.options.memory_bytes, progress=progress)
            draft.write("vectors.npy", partial(write_half_rows, shape=shape, chunks=blocks))
            return {"rows": shape[0], "dimensions": shape[1]}

        inputs = {"features": address, "projection": fitted.address}
        recipe = Recipe("project", PROJECT_VERSION, {}, inputs)
        artifact = self._stage(str(step), recipe, make, "rows", len(parts[0]))
        return (artifact.array("vectors.npy"),), artifact.address

    def _mix(self, features: Features, step: Step) -> Features:
        """Query expansion or database-side augmentation: rows are mixed with their nearest gallery rows."""
        augments = step.name == "dba"
        own = features.gallery if augments else features.queries
        settings = dict(step.arguments) | {"weights of models": list(features.weights)}
        inputs = {"gallery": features.gallery_address}
        if not augments:
            inputs["queries"] = features.query_address

        def make(draft: Draft) -> dict[str, Any]:
            blocks = stepping.mixed(
                step, features.queries, features.gallery, features.weights, self.options, self.report
            )
            draft.write_rows([f"model-{place}.npy" for place in range(len(own))], _shapes(own), blocks)
            return {"rows": len(own[0]), "dimensions": [part.shape[1] for part in own]}

        artifact = self._stage(str(step), Recipe(step.name, MIX_VERSION, settings, inputs), make, "rows", len(own[0]))
        mixed = [artifact.array(f"model-{place}.npy") for place in range(len(own))]
        if augments:
            return replace(features, gallery=mixed, gallery_address=artifact.address)
        return replace(features, queries=mixed, query_address=artifact.address)

    def _stage(
        self, name: str, recipe: Recipe, make: Callable[[Draft], Mapping[str, Any]], unit: str, count: int
    ) -> Artifact:
        with self.stopwatch.stage(name, unit) as clock:
            artifact, made = self.store.get(recipe, make)
            clock.note([artifact], made, count)
        return artifact


def _shapes(parts: Sequence[FeatureRows]) -> list[tuple[int, int]]:
    return [(len(part), part.shape[1]) for part in parts]


def _digest(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()


def _descending(
    ids: Ints, similarities: NDArray[np.float32], groups: tuple[Ints, Ints] | None, offset: float
) -> NDArray[np.float32]:
    """Similarities that descend: those of answers of another category, which come last, less ``offset``."""
    if groups is None:
        return similarities
    other = groups[1][ids] != groups[0][:, None]
    lowered: NDArray[np.float32] = similarities - np.float32(offset) * other.astype(np.float32)
    return lowered


def _write(draft: Draft, ids: Ints, similarities: NDArray[np.float32], num_gallery: int) -> dict[str, Any]:
    draft.write("gallery_rows.npy", partial(write_array, rows=ids))
    draft.write("similarities.npy", partial(write_array, rows=similarities))
    return {"queries": len(ids), "gallery": num_gallery}
