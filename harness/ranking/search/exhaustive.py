"""Exact nearest-neighbour search by inner product, over any number of models.

The similarity of the concatenation of several models' features is the weighted sum of the models' own similarities.
The concatenation exists only in blocks, in the precision that the hardware multiplies fastest. What the rounding may
have moved is bounded with the lengths of what was rounded away, so a block of products only has to be compared with a
number: what may be among the best is kept, and scored in float64 in the end. The result is that of a search in
float64, whatever made the products.

Legend: Q queries, G gallery rows, D dimensions of a model, M models, K results, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.ranking.rows import ChosenRows, FeatureRows, refuse_short_file
from harness.ranking.search.planning import SearchOptions, SearchPlan, plan_search
from harness.types import Floats, InputError, Ints, Progress

__all__ = ["Neighbours", "SearchOptions", "nearest", "neighbours", "similarities_of", "working_bytes"]

_DEFAULTS = SearchOptions()
_LIBRARIES_BYTES = 64 << 20  # what torch keeps for itself while it multiplies


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
    options: SearchOptions = _DEFAULTS,
    progress: Progress | None = None,
) -> tuple[Ints, NDArray[np.float32]]:
    """The gallery rows most similar to each query, by the weighted sum of the models' inner products.

    Args:
        queries: one (Q, D) array per model; any floating dtype, memory maps welcome. D may differ per model.
        gallery: one (G, D) array per model, in the order of ``queries``.
        top_k: rows wanted a query, at least 1; with fewer gallery rows, all of them come back.
        weights: one positive weight per model; None for 1 each.
        groups: the group of each query (Q,) and of each gallery row (G,), int64. Rows of the query's own group come
            first; if they are fewer than ``top_k``, the best of the others follow, and the similarity need not
            descend from the one to the other. None for no groups.
        options: how it is computed; the result does not depend on it.
        progress: called with (done, total) as blocks are searched, once or more from the start for groups.

    Returns:
        ids (Q, min(top_k, G)) int64, rows of the gallery, and similarities (Q, min(top_k, G)) float32;
        both in descending order of the float64 similarity, equal ones in ascending order of row.

    Raises:
        InputError: shapes disagree, there is no model, a weight is not positive, an option is not possible here, a
            file is shorter than its shape, or a row is not finite or, in more than one dimension, all zeros.
    """
    scale = _validated(queries, gallery, top_k, weights)
    if groups is not None:
        return _nearest_in_groups(queries, gallery, top_k, scale, groups, options, progress)
    ids, similarities, _ = _search(queries, gallery, top_k, scale, options, progress)
    return ids, similarities.astype(np.float32)


def neighbours(
    queries: Sequence[FeatureRows],
    gallery: Sequence[FeatureRows],
    top_k: int,
    weights: Sequence[float] | None = None,
    *,
    options: SearchOptions = _DEFAULTS,
    progress: Progress | None = None,
) -> Neighbours:
    """`nearest` with similarities in float64, and the smallest similarity of each query to any gallery row.

    Args:
        queries: as for `nearest`, and so are those that follow.
        gallery: may be the very arrays of ``queries``.
        top_k: at least 1.
        weights: one positive weight per model; None for 1 each.
        options: how it is computed.
        progress: called with (done, total).

    Returns:
        The neighbours; their similarities, and the lowest, are those that `similarities_of` gives.

    Raises:
        InputError: as for `nearest`.
    """
    scale = _validated(queries, gallery, top_k, weights)
    return Neighbours(*_search(queries, gallery, top_k, scale, options, progress, is_lowest_wanted=True))


def similarities_of(
    queries: Sequence[FeatureRows],
    gallery: Sequence[FeatureRows],
    query_rows: Ints,
    gallery_rows: Ints,
    weights: Sequence[float] | None = None,
) -> Floats:
    """The float64 similarity of pairs of rows; equal rows give equal values wherever they stand.

    Args:
        queries: one (Q, D) array per model.
        gallery: one (G, D) array per model.
        query_rows: (P,) int64.
        gallery_rows: (P,) int64.
        weights: one positive weight per model; None for 1 each.

    Returns:
        (P,) float64.

    Raises:
        InputError: shapes disagree, or a row is not there.
    """
    scale = _validated(queries, gallery, 1, weights)
    left, right = np.asarray(query_rows, np.int64), np.asarray(gallery_rows, np.int64)
    if left.shape != right.shape or left.ndim != 1:
        raise InputError(f"pairs: expected as many query rows as gallery rows, got {left.shape} and {right.shape}")
    for name, wanted, length in (("query", left, len(queries[0])), ("gallery", right, len(gallery[0]))):
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= length):
            raise InputError(f"pairs: {name} rows are from 0 to {length - 1}, got {wanted.min()} to {wanted.max()}")
    if not len(left):
        return np.zeros(0)
    from harness.ranking.search.exact import PairScorer, Workers

    plan = _plan(queries, gallery, 1, _DEFAULTS)
    unit = 2.0 ** np.floor(np.log2(scale.max()))
    with ThreadPoolExecutor(plan.num_threads) as pool:
        workers = Workers(plan.num_threads, pool)
        score = PairScorer(queries, gallery, scale / unit, workers, plan.query_rows, plan.exact_rows)
        return np.asarray(score(left, right) * unit)


def working_bytes(
    num_queries: int, num_gallery: int, dimensions: Sequence[int], top_k: int, options: SearchOptions = _DEFAULTS
) -> int:
    """Bytes of the host's memory that a search takes beside its inputs and outputs, as it is planned.

    Args:
        num_queries: Q.
        num_gallery: G.
        dimensions: D of each model.
        top_k: K.
        options: how it is to be computed.

    Returns:
        Bytes; of the libraries themselves only what they take while they multiply.

    Raises:
        InputError: an option is not possible here.
    """
    plan = plan_search(max(1, num_queries), max(1, num_gallery), dimensions, top_k, options, is_half=True)
    return plan.host_bytes + _LIBRARIES_BYTES


def _plan(
    queries: Sequence[FeatureRows], gallery: Sequence[FeatureRows], top_k: int, options: SearchOptions
) -> SearchPlan:
    is_half = all(part.dtype == np.float16 for part in (*queries, *gallery))
    dimensions = [part.shape[1] for part in queries]
    return plan_search(len(queries[0]), len(gallery[0]), dimensions, top_k, options, is_half)


def _search(
    queries: Sequence[FeatureRows],
    gallery: Sequence[FeatureRows],
    top_k: int,
    scale: Floats,
    options: SearchOptions,
    progress: Progress | None,
    is_lowest_wanted: bool = False,
) -> tuple[Ints, Floats, Floats]:
    num_queries, k = len(queries[0]), min(top_k, len(gallery[0]))
    if num_queries == 0 or k == 0:
        return np.zeros((num_queries, k), np.int64), np.zeros((num_queries, k)), np.full(num_queries, np.nan)
    from harness.ranking.search.passes import search_pass

    plan = _plan(queries, gallery, k, options)
    return search_pass(queries, gallery, scale, k, plan, is_lowest_wanted=is_lowest_wanted, progress=progress)


def _nearest_in_groups(
    queries: Sequence[FeatureRows],
    gallery: Sequence[FeatureRows],
    top_k: int,
    scale: Floats,
    groups: tuple[Ints, Ints],
    options: SearchOptions,
    progress: Progress | None,
) -> tuple[Ints, NDArray[np.float32]]:
    num_queries, num_gallery = len(queries[0]), len(gallery[0])
    query_groups, gallery_groups = (np.asarray(each) for each in groups)
    if query_groups.shape != (num_queries,) or gallery_groups.shape != (num_gallery,):
        raise InputError(
            f"groups: expected one a query and one a gallery row, ({num_queries},) and ({num_gallery},), got "
            f"{query_groups.shape} and {gallery_groups.shape}"
        )
    k = min(top_k, num_gallery)
    ids, similarities = np.zeros((num_queries, k), np.int64), np.zeros((num_queries, k))
    order = np.argsort(gallery_groups, kind="stable")
    in_order = gallery_groups[order]
    num_own = np.zeros(num_queries, np.int64)
    for group in np.unique(query_groups):
        own = order[np.searchsorted(in_order, group, "left") : np.searchsorted(in_order, group, "right")]
        asking = np.flatnonzero(query_groups == group)
        num_own[asking] = len(own)
        if len(own):
            found, sims, _ = _search(_some(queries, asking), _some(gallery, own), k, scale, options, progress)
            ids[asking, : found.shape[1]], similarities[asking, : found.shape[1]] = own[found], sims
    short = np.flatnonzero(num_own < k)
    if len(short):
        # The best k of all hold the best k - n of the others, where only n are of the query's own group.
        found, sims, _ = _search(_some(queries, short), gallery, k, scale, options, progress)
        is_other = gallery_groups[found] != query_groups[short, None]
        rank = np.cumsum(is_other, axis=1) - 1
        places = num_own[short, None] + rank
        at, column = np.nonzero(is_other & (places < k))
        ids[short[at], places[at, column]] = found[at, column]
        similarities[short[at], places[at, column]] = sims[at, column]
    return ids, similarities.astype(np.float32)


def _some(parts: Sequence[FeatureRows], rows: Ints) -> list[FeatureRows]:
    if len(rows) == len(parts[0]) and (np.diff(rows) == 1).all():
        return list(parts)
    return [
        ChosenRows(part.array, part.rows[rows]) if isinstance(part, ChosenRows) else ChosenRows(part, rows)  # type: ignore[arg-type]
        for part in parts
    ]


def _validated(
    queries: Sequence[FeatureRows], gallery: Sequence[FeatureRows], top_k: int, weights: Sequence[float] | None
) -> Floats:
    for name, parts in (("queries", queries), ("gallery", gallery)):
        if hasattr(parts, "shape") or not all(hasattr(part, "shape") for part in parts):
            raise InputError(f"{name}: expected a list of arrays, one (rows, dimensions) array a model")
    if not queries or len(queries) != len(gallery):
        raise InputError(f"expected one query and one gallery array per model, got {len(queries)} and {len(gallery)}")
    if top_k < 1:
        raise InputError(f"top_k must be at least 1, got {top_k}")
    scale = np.ones(len(queries)) if weights is None else np.asarray(weights, np.float64)
    if scale.shape != (len(queries),) or not (np.isfinite(scale) & (scale > 0)).all():
        raise InputError(f"expected {len(queries)} positive weights, got {weights}")
    for model, (query, rows) in enumerate(zip(queries, gallery, strict=True)):
        if len(query.shape) != 2 or len(rows.shape) != 2 or query.shape[1] != rows.shape[1] or query.shape[1] == 0:
            raise InputError(f"model {model}: shapes (Q, D) and (G, D) expected, got {query.shape} and {rows.shape}")
        if len(query) != len(queries[0]) or len(rows) != len(gallery[0]):
            raise InputError(
                f"model {model}: its rows do not match those of model 0: {len(query)} queries and {len(rows)} gallery "
                f"rows instead of {len(queries[0])} and {len(gallery[0])}; give every model the same rows"
            )
        for part in (query, rows):
            if part.dtype.kind != "f":
                raise InputError(f"model {model}: features are floating numbers, got {part.dtype}")
            refuse_short_file(part)
    return scale
