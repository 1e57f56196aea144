"""The post-processing steps of the ensemble language as functions of features.

Legend: Q queries, G gallery rows, A queries that are answered, D dimensions, K answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.ranking.rows import FeatureRows
from harness.ranking.search import SearchOptions, nearest
from harness.steps import Step
from harness.types import GALLERY_LENGTH, Floats, Ints, Progress

if TYPE_CHECKING:
    from harness.ranking.whitening import Projection

Reporter = Callable[[str], Progress]


def _silent(_stage: str) -> Progress:
    return lambda _done, _total: None


def projection_settings(step: Step) -> dict[str, Any]:
    """What decides a projection beside the features, their weights and its dimensions."""
    return {"whiten": step.name == "whiten", "shrinkage": float(step.get("shrinkage") or 0)}


def fit(
    step: Step,
    parts: Sequence[FeatureRows],
    weights: Sequence[float],
    *,
    memory_bytes: int | None = None,
    progress: Progress | None = None,
) -> Projection:
    """What ``pca`` or ``whiten`` projects with.

    Args:
        step: one of these.
        parts: what to fit on, one (N, D) a model.
        weights: one a model.
        memory_bytes: to compute in; None for half of what is free.
        progress: told of rows read.
    """
    from harness.ranking.whitening import fit_projection

    dimensions = step.get("dimensions")
    return fit_projection(
        parts,
        None if dimensions is None else int(dimensions),
        weights=weights,
        **projection_settings(step),
        memory_bytes=memory_bytes,
        progress=progress,
    )


def mixed(
    step: Step,
    queries: Sequence[FeatureRows],
    gallery: Sequence[FeatureRows],
    weights: Sequence[float],
    options: SearchOptions,
    report: Reporter = _silent,
) -> Iterator[list[NDArray[np.float16]]]:
    """The rows that ``qe`` makes of the queries, or ``dba`` of the gallery, block by block.

    Args:
        step: one of these.
        queries: one (Q, D) a model; ``dba`` needs none.
        gallery: one (G, D) a model.
        weights: one a model.
        options: what the search may use.
        report: where progress is shown.
    """
    from harness.ranking.expansion import augmentation_blocks, expansion_blocks

    common: dict[str, Any] = {
        "search": partial(nearest, options=options, progress=report(f"search for {step}")),
        "progress": report(str(step)),
    }
    if step.get("alpha") is None:
        common["weighting"] = step["weights"]
    else:
        common |= {"weighting": "alpha", "alpha": step["alpha"]}
    k = int(step["k"])
    if step.name == "dba":
        return augmentation_blocks(gallery, k, weights, **common)
    return expansion_blocks(queries, gallery, k, weights, **common)


def reranked(
    step: Step,
    queries: Sequence[FeatureRows],
    gallery: Sequence[FeatureRows],
    weights: Sequence[float],
    options: SearchOptions,
    *,
    groups: tuple[Ints, Ints] | None = None,
    answered: Ints | None = None,
    progress: Progress | None = None,
) -> tuple[Ints, Floats]:
    """The answers of ``rerank``.

    Args:
        step: the step.
        queries: one (Q, D) a model.
        gallery: one (G, D) a model.
        weights: one a model.
        options: what searches may use.
        groups: of the queries and the gallery, for ``same_category``.
        answered: (A,) rows of queries; None for all.
        progress: told of what is done.

    Returns:
        gallery rows (A, K) int64 and distances (A, K) float64.
    """
    from harness.ranking.reranking import k_reciprocal

    return k_reciprocal(
        queries,
        gallery,
        int(step["k1"]),
        int(step["k2"]),
        float(step["lambda"]),
        GALLERY_LENGTH,
        weights=weights,
        groups=groups,
        query_rows=answered,
        options=options,
        progress=progress,
    )
