"""Exact nearest-neighbour search by inner product, over any number of models.

The similarity of the concatenation of several models' features is the weighted sum of the
models' own similarities. The concatenation exists only in blocks: faiss proposes candidates
from float32 blocks, the candidates are scored again in float64, and a bound on float32's
rounding error proves that no row outside the candidates belongs among the best; where it
cannot, the list of candidates is widened until it can.

Legend: Q queries, G gallery rows, D dimensions (of all models together), K results, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.ranking.rows import ChosenRows, FeatureRows
from harness.types import Floats, InputError, Ints, Progress

_BLOCK_BYTES = 256 << 20  # of float32 concatenation or float64 candidates held at once
_SPARE_CANDIDATES = 12  # beyond top_k: enough on clustered features that the proof seldom needs a second round


@dataclass(frozen=True)
class SearchOptions:
    """How a search is computed; what it finds is the same whatever it is.

    Attributes:
        engine: what makes the products.
        precision: of the products.
        devices: torch's names of them; None for every GPU, or the CPU where there is none.
        memory_bytes: working memory beside inputs and outputs; None for a modest default.
        num_threads: of the CPU; None for all that torch would take.
    """

    engine: Literal["auto", "torch", "faiss"] = "auto"
    precision: Literal["auto", "32", "16", "bf16"] = "auto"
    devices: tuple[str, ...] | None = None
    memory_bytes: int | None = None
    num_threads: int | None = None


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The most similar gallery rows of every query, and how dissimilar the gallery gets.

    Attributes:
        ids: (Q, K) int64, rows of the gallery, by descending similarity, equal ones by ascending row.
        similarities: (Q, K) float64.
        lowest: (Q,) float64, the smallest similarity of the query to any gallery row; NaN without a gallery.
    """

    ids: Ints
    similarities: Floats
    lowest: Floats


def nearest(
    queries: Sequence[FeatureRows],
    gallery: Sequence[FeatureRows],
    top_k: int,
    weights: Sequence[float] | None = None,
    *,
    groups: tuple[Ints, Ints] | None = None,
    options: SearchOptions = SearchOptions(),
    progress: Progress | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The gallery rows most similar to each query, by the weighted sum of the models' inner products.

    Args:
        queries: one (Q, D) array per model; any floating dtype, memory maps welcome. D may differ per model.
        gallery: one (G, D) array per model, in the order of ``queries``.
        top_k: rows wanted a query, at least 1; with fewer gallery rows, all of them come back.
        weights: one positive weight per model; None for 1 each.

    Returns:
        ids (Q, min(top_k, G)) int64, rows of the gallery, and similarities (Q, min(top_k, G)) float32;
        both in descending order of the float64 similarity, equal ones in ascending order of row.

    Raises:
        ValueError: shapes disagree, there is no model, a weight is not positive, or a row is not finite.
    """
    if groups is not None:
        return _grouped(queries, gallery, top_k, weights, groups)
    found = _search(queries, gallery, top_k, weights)
    return found[0], found[1].astype(np.float32)


def neighbours(
    queries: Sequence[FeatureRows],
    gallery: Sequence[FeatureRows],
    top_k: int,
    weights: Sequence[float] | None = None,
    *,
    options: SearchOptions = SearchOptions(),
    progress: Progress | None = None,
) -> Neighbours:
    """As `nearest`, with similarities in float64 and the smallest similarity of each query to any gallery row."""
    ids, similarities = _search(queries, gallery, top_k, weights)
    scale = _validated(queries, gallery, top_k, weights)
    lowest = np.full(len(queries[0]), np.nan)
    for start in range(0, len(lowest), 256):
        rows = np.arange(start, min(start + 256, len(lowest)))
        for first in range(0, len(gallery[0]), 4096):
            others = np.arange(first, min(first + 4096, len(gallery[0])))
            total = np.zeros((len(rows), len(others)))
            for query, answers, weight in zip(queries, gallery, scale, strict=True):
                total += weight * (np.asarray(query[rows], np.float64) @ np.asarray(answers[others], np.float64).T)
            near = total.argmin(axis=1)
            exact = similarities_of(queries, gallery, rows, others[near], weights)
            lowest[rows] = np.fmin(lowest[rows], exact)
    return Neighbours(ids, similarities, lowest)


def similarities_of(
    queries: Sequence[FeatureRows],
    gallery: Sequence[FeatureRows],
    query_rows: Ints,
    gallery_rows: Ints,
    weights: Sequence[float] | None = None,
) -> Floats:
    """The float64 similarity of each pair of rows (P,); equal rows give equal values wherever they stand."""
    scale = _validated(queries, gallery, 1, weights)
    total = np.zeros(len(query_rows))
    for start in range(0, len(total), 4096):
        rows = slice(start, start + 4096)
        for query, answers, weight in zip(queries, gallery, scale, strict=True):
            left = np.asarray(query[query_rows[rows]], np.float64)
            right = np.asarray(answers[gallery_rows[rows]], np.float64)[:, None]
            total[rows] += weight * np.einsum("qd,qcd->qc", left, right)[:, 0]
    return total


def _grouped(
    queries: Sequence[FeatureRows],
    gallery: Sequence[FeatureRows],
    top_k: int,
    weights: Sequence[float] | None,
    groups: tuple[Ints, Ints],
) -> tuple[Ints, NDArray[np.float32]]:
    query_groups, gallery_groups = (np.asarray(each) for each in groups)
    if query_groups.shape != (len(queries[0]),) or gallery_groups.shape != (len(gallery[0]),):
        raise InputError("groups: expected one a query and one a gallery row")
    k = min(top_k, len(gallery[0]))
    ids, similarities = np.zeros((len(query_groups), k), np.int64), np.zeros((len(query_groups), k), np.float32)
    for group in np.unique(query_groups):
        asking = np.flatnonzero(query_groups == group)
        chosen = [_chosen(part, asking) for part in queries]
        first = np.flatnonzero(gallery_groups == group)
        rest = np.flatnonzero(gallery_groups != group)
        filled = 0
        for rows in (first, rest):
            if filled < k and len(rows):
                found, sims = _search(chosen, [_chosen(part, rows) for part in gallery], k - filled, weights)
                ids[asking, filled : filled + found.shape[1]] = rows[found]
                similarities[asking, filled : filled + found.shape[1]] = sims
                filled += found.shape[1]
    return ids, similarities


def _chosen(part: FeatureRows, rows: Ints) -> ChosenRows:
    return ChosenRows(part.array, part.rows[rows]) if isinstance(part, ChosenRows) else ChosenRows(part, rows)  # type: ignore[arg-type]


def _search(
    queries: Sequence[Any], gallery: Sequence[Any], top_k: int, weights: Sequence[float] | None
) -> tuple[Ints, Floats]:
    scale = _validated(queries, gallery, top_k, weights)
    num_queries, num_gallery = len(queries[0]), len(gallery[0])
    k = min(top_k, num_gallery)
    ids = np.zeros((num_queries, k), np.int64)
    similarities = np.zeros((num_queries, k), np.float64)
    pending = np.arange(num_queries)
    num_candidates = min(num_gallery, k + _SPARE_CANDIDATES)
    while k > 0 and len(pending):
        found_QC, floor_Q = _candidates(queries, gallery, scale, pending, num_candidates)
        exact_QC = _rescore(queries, gallery, scale, pending, found_QC)
        order = np.lexsort((found_QC, -exact_QC), axis=1)[:, :k]
        exact_QK = np.take_along_axis(exact_QC, order, axis=1)
        ids[pending] = np.take_along_axis(found_QC, order, axis=1)
        similarities[pending] = exact_QK
        if num_candidates == num_gallery:
            break
        # A row that faiss left out scored at most floor_Q in float32.
        proven = exact_QK[:, -1] > floor_Q + _rounding_bound(queries, gallery, scale, pending)
        pending = pending[~proven]
        num_candidates = min(num_gallery, num_candidates * 4)
    return ids, similarities


def _validated(
    queries: Sequence[FeatureRows], gallery: Sequence[FeatureRows], top_k: int, weights: Sequence[float] | None
) -> NDArray[np.float64]:
    if not queries or len(queries) != len(gallery):
        raise ValueError(f"expected one query and one gallery array per model, got {len(queries)} and {len(gallery)}")
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    scale = np.ones(len(queries)) if weights is None else np.asarray(weights, np.float64)
    if scale.shape != (len(queries),) or not (np.isfinite(scale) & (scale > 0)).all():
        raise ValueError(f"expected {len(queries)} positive weights, got {weights}")
    for model, (query, rows) in enumerate(zip(queries, gallery, strict=True)):
        if len(query.shape) != 2 or len(rows.shape) != 2 or query.shape[1] != rows.shape[1] or query.shape[1] == 0:
            raise ValueError(f"model {model}: shapes (Q, D) and (G, D) expected, got {query.shape} and {rows.shape}")
        if len(query) != len(queries[0]) or len(rows) != len(gallery[0]):
            raise ValueError(f"model {model}: its rows do not match those of model 0: {len(query)} and {len(rows)}")
    return scale


def _concatenated(
    parts: Sequence[FeatureRows], scale: NDArray[np.float64] | None, rows: Any, name: str
) -> NDArray[np.float32]:
    """A float32 block of the concatenation; queries carry the weights."""
    block = [np.asarray(part[rows], np.float32) for part in parts]
    if scale is not None:
        block = [part * np.float32(weight) for part, weight in zip(block, scale, strict=True)]
    joined = np.ascontiguousarray(np.concatenate(block, axis=1))
    finite = np.isfinite(joined).all(axis=1)
    if not finite.all():
        wrong = int(np.flatnonzero(~finite)[0])
        row = wrong + rows.start if isinstance(rows, slice) else int(rows[wrong])
        raise ValueError(f"{name}: row {row} is not finite")
    return joined


def _candidates(
    queries: Sequence[FeatureRows],
    gallery: Sequence[FeatureRows],
    scale: NDArray[np.float64],
    pending: NDArray[np.int64],
    num_candidates: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Candidate rows (Q, C) by float32 similarity, and per query the lowest similarity among them (Q,)."""
    import faiss

    dimensions = sum(part.shape[1] for part in queries)
    block = max(num_candidates, _BLOCK_BYTES // (4 * dimensions))
    num_gallery = len(gallery[0])
    ids = np.empty((len(pending), num_candidates), np.int64)
    floor = np.empty(len(pending), np.float32)
    for query_start in range(0, len(pending), block):
        query_stop = min(query_start + block, len(pending))
        query_QD = _concatenated(queries, scale, pending[query_start:query_stop], "queries")
        best_ids: list[NDArray[np.int64]] = []
        best_sims: list[NDArray[np.float32]] = []
        for start in range(0, num_gallery, block):
            stop = min(start + block, num_gallery)
            rows_GD = _concatenated(gallery, None, slice(start, stop), "gallery")
            sims, found = faiss.knn(
                query_QD, rows_GD, min(num_candidates, stop - start), metric=faiss.METRIC_INNER_PRODUCT
            )
            best_ids.append(found + start)
            best_sims.append(sims)
        joined_ids, joined_sims = np.concatenate(best_ids, axis=1), np.concatenate(best_sims, axis=1)
        keep = np.argsort(-joined_sims, axis=1, kind="stable")[:, :num_candidates]
        ids[query_start:query_stop] = np.take_along_axis(joined_ids, keep, axis=1)
        floor[query_start:query_stop] = np.take_along_axis(joined_sims, keep[:, -1:], axis=1)[:, 0]
    return ids, floor


def _rescore(
    queries: Sequence[FeatureRows],
    gallery: Sequence[FeatureRows],
    scale: NDArray[np.float64],
    pending: NDArray[np.int64],
    found_QC: NDArray[np.int64],
) -> NDArray[np.float64]:
    """The float64 similarity of every candidate (Q, C).

    einsum without BLAS adds the products of every pair in the same order, so that equal rows get
    equal similarities wherever they stand.
    """
    exact_QC = np.zeros(found_QC.shape)
    widest = max(part.shape[1] for part in queries)
    block = max(1, _BLOCK_BYTES // (8 * widest * found_QC.shape[1]))
    for start in range(0, len(pending), block):
        rows = slice(start, start + block)
        for query, answers, weight in zip(queries, gallery, scale, strict=True):
            query_QD = np.asarray(query[pending[rows]], np.float64)
            answers_QCD = np.asarray(answers[found_QC[rows]], np.float64)
            exact_QC[rows] += weight * np.einsum("qd,qcd->qc", query_QD, answers_QCD)
    return exact_QC


def _rounding_bound(
    queries: Sequence[FeatureRows],
    gallery: Sequence[FeatureRows],
    scale: NDArray[np.float64],
    pending: NDArray[np.int64],
) -> NDArray[np.float64]:
    """An upper bound of |float32 similarity - exact similarity| per query (Q,).

    n products summed in any order differ from the exact sum by at most n·u/(1 - n·u) times the sum of
    the absolute products (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), and that
    sum is at most the product of the lengths; four more roundings for the weight and the conversions to float32.
    """
    num_terms = sum(part.shape[1] for part in queries) + 4
    unit = 2.0**-24
    gamma = num_terms * unit / (1 - num_terms * unit)
    total = np.zeros(len(pending))
    for query, rows, weight in zip(queries, gallery, scale, strict=True):
        longest = max(
            float(np.linalg.norm(np.asarray(rows[start : start + 65536], np.float32), axis=1).max())
            for start in range(0, len(rows), 65536)
        )
        total += weight * np.linalg.norm(np.asarray(query[pending], np.float64), axis=1) * longest
    return np.asarray(gamma * total)


def working_bytes(
    num_queries: int, num_gallery: int, dimensions: Sequence[int], top_k: int, options: SearchOptions
) -> int:
    """Bytes of working memory that a search takes beside its inputs and outputs."""
    return 4 * _BLOCK_BYTES
