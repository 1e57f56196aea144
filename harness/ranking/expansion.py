"""Query expansion and database-side augmentation: rows replaced by a weighted sum of themselves and their neighbours.

Query expansion replaces a query by the sum of itself and its best gallery rows; augmentation does the same to every
gallery row within the gallery. All models of a stack are summed with the same weights, and the sum is brought to the
length that a row of the stack has, so that similarities keep their range.

Legend: Q rows to be replaced, G rows among which the neighbours are, K neighbours, D_m dimensions of model m.

Sources: O. Chum et al. 2007, "Total recall" (the mean, ``plain``); A. Gordo et al. 2017, "End-to-end learning of deep
visual representations for image retrieval" (``rank``); F. Radenović et al. 2018, "Fine-tuning CNN image retrieval with
no human annotation" (``alpha``, 3 there); P. Turcot, D. Lowe 2009, "Better matching with fewer features", and
R. Arandjelović, A. Zisserman 2012, "Three things everyone should know to improve object retrieval" (augmentation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from harness.ranking.rows import FeatureRows
from harness.ranking.stacks import block_rows, refuse_row, same_models, stack_weights
from harness.types import Floats, InputError, Ints, Progress

Weighting = Literal["plain", "rank", "alpha"]

Search = Callable[..., tuple[Ints, NDArray[np.float32]]]
"""Called as `harness.ranking.search.nearest` is: (queries, gallery, top_k, weights) to ids and similarities (Q, K)."""


def expansion_weights(similarities: NDArray[Any], weighting: Weighting, alpha: float = 3.0) -> Floats:
    """What each row and its neighbours count in their sum.

    Args:
        similarities: (Q, K) cosines, best first: of an ensemble, the similarity divided by the sum of its weights.
        weighting: ``plain``: 1 each. ``rank``: (K + 1 - i) / (K + 1) for the i-th neighbour; that is the (k - i) / k
            of Gordo et al. with the row itself among the k, so that the last neighbour counts too. ``alpha``: the
            cosine to the power of alpha, and nothing where it is negative.
        alpha: at least 0.

    Returns:
        (Q, K + 1) float64; the row itself comes first and counts 1.

    Raises:
        InputError: the weighting is not known, or alpha is negative.
    """
    if weighting not in get_args(Weighting):
        raise InputError(f"weighting: expected one of {', '.join(get_args(Weighting))}, got {weighting!r}")
    if not (np.isfinite(alpha) and alpha >= 0):
        raise InputError(f"alpha: expected a number from 0 up, got {alpha}")
    num_rows, k = similarities.shape
    counts = np.ones((num_rows, k + 1))
    if weighting == "rank":
        counts[:] = 1 - np.arange(k + 1) / (k + 1)
    elif weighting == "alpha":
        cosines = np.asarray(similarities, np.float64)
        counts[:, 1:] = np.where(cosines > 0, np.maximum(cosines, 0) ** alpha, 0)
    return counts


def combine(
    parts: Sequence[FeatureRows],
    others: Sequence[FeatureRows],
    ids: Ints,
    counts: Floats,
    weights: Sequence[float] | None = None,
    *,
    memory_bytes: int | None = None,
    progress: Progress | None = None,
) -> Iterator[list[NDArray[np.float16]]]:
    """Sums of rows and their neighbours, block by block.

    Args:
        parts: one (Q, D_m) per model: the rows themselves.
        others: one (G, D_m) per model: where the neighbours are.
        ids: (Q, K) int64, rows of ``others``.
        counts: (Q, K + 1), of `expansion_weights`.
        weights: one positive weight per model; None for 1 each.
        memory_bytes: for a block; None for 32 MiB.
        progress: told of rows done.

    Yields:
        One (n, D_m) float16 per model, Q rows together, of the length that rows of a stack of unit rows have:
        the weighted sum of the models' squared lengths is the sum of the weights.

    Raises:
        InputError: shapes do not fit, an id is no row, a row is not finite, or a sum has no length; the row is named.
    """
    scale = stack_weights(parts, weights, "rows")
    stack_weights(others, weights, "neighbours")
    same_models(parts, others, "rows", "neighbours")
    num_rows, num_others = len(parts[0]), len(others[0])
    if ids.ndim != 2 or len(ids) != num_rows or counts.shape != (num_rows, ids.shape[1] + 1):
        raise InputError(
            f"ids and counts: expected shapes ({num_rows}, K) and ({num_rows}, K + 1), got {ids.shape}, {counts.shape}"
        )
    if ids.size and not (ids.min() >= 0 and ids.max() < num_others):
        row = int(np.flatnonzero(((ids < 0) | (ids >= num_others)).any(axis=1))[0])
        raise InputError(f"ids: row {row}: expected rows of {num_others} neighbours, got {ids[row].tolist()}")
    return _combined(parts, others, ids, counts, scale, memory_bytes, progress)


def _combined(
    parts: Sequence[FeatureRows],
    others: Sequence[FeatureRows],
    ids: Ints,
    counts: Floats,
    scale: Floats,
    memory_bytes: int | None,
    progress: Progress | None,
) -> Iterator[list[NDArray[np.float16]]]:
    num_rows, k = ids.shape
    widths = [part.shape[1] for part in parts]
    # Of one model the neighbours, as they lie and in single precision; of every model the sum, and half of it again.
    size = block_rows(6 * (k + 1) * max(widths) + 6 * sum(widths), memory_bytes)
    for start in range(0, num_rows, size):
        rows = slice(start, min(start + size, num_rows))
        own, theirs = counts[rows, :1].astype(np.float32), counts[rows, None, 1:].astype(np.float32)
        sums = []
        squares = np.zeros(rows.stop - start)
        for part, other, weight in zip(parts, others, scale, strict=True):
            total = own * np.asarray(part[rows], np.float32)
            if k:
                total += (theirs @ np.asarray(other[ids[rows]], np.float32))[:, 0]
            squares += weight * np.einsum("nd,nd->n", total, total, dtype=np.float64)
            sums.append(total)
        wrong = np.flatnonzero(~(np.isfinite(squares) & (squares > 0)))
        if len(wrong):
            row = start + int(wrong[0])
            raise refuse_row(
                [("rows", parts, row), ("neighbours", others, ids[row])],
                f"rows: row {row} and its neighbours add up to nothing, so their sum has no direction; "
                "leave them out, or use fewer neighbours",
            )
        shares = np.sqrt(scale.sum() / squares).astype(np.float32)[:, None]
        yield [(total * shares).astype(np.float16) for total in sums]
        if progress is not None:
            progress(rows.stop, num_rows)


def expansion_blocks(
    queries: Sequence[FeatureRows],
    gallery: Sequence[FeatureRows],
    k: int,
    weights: Sequence[float] | None = None,
    *,
    weighting: Weighting = "plain",
    alpha: float = 3.0,
    search: Search | None = None,
    memory_bytes: int | None = None,
    progress: Progress | None = None,
) -> Iterator[list[NDArray[np.float16]]]:
    """Queries expanded by their k best gallery rows, block by block.

    Args:
        queries: one (Q, D_m) per model, unit rows.
        gallery: one (G, D_m) per model, unit rows.
        k: gallery rows that a query is expanded by, at least 1; all of them where there are fewer.
        weights: one positive weight per model; None for 1 each.
        weighting: what they count, see `expansion_weights`.
        alpha: of the weighting ``alpha``.
        search: finds them; None for `harness.ranking.search.nearest`.
        memory_bytes: for a block of sums; None for 32 MiB. The search has its own.
        progress: told of queries done, after the search.

    Yields:
        As `combine` does, Q rows together.

    Raises:
        InputError: k is less than 1, or as for `combine` and `expansion_weights`.
    """
    scale = _checked(queries, gallery, k, weights)
    ids, similarities = _search(search)(queries, gallery, k, scale.tolist())
    counts = expansion_weights(similarities / scale.sum(), weighting, alpha)
    return combine(queries, gallery, ids, counts, weights, memory_bytes=memory_bytes, progress=progress)


def augmentation_blocks(
    gallery: Sequence[FeatureRows],
    k: int,
    weights: Sequence[float] | None = None,
    *,
    weighting: Weighting = "rank",
    alpha: float = 3.0,
    search: Search | None = None,
    memory_bytes: int | None = None,
    progress: Progress | None = None,
) -> Iterator[list[NDArray[np.float16]]]:
    """Gallery rows augmented by their k nearest other gallery rows, block by block.

    The arguments, and what comes back, are those of `expansion_blocks`. A row is never its own neighbour; an equal
    row of another box is one.
    """
    scale = _checked(gallery, gallery, k, weights)
    num_rows = len(gallery[0])
    ids, similarities = _search(search)(gallery, gallery, k + 1, scale.tolist())
    # Among rows that tie with it a row may stand anywhere, even beyond the last: then that one goes instead.
    is_other = ids != np.arange(num_rows)[:, None]
    is_other[is_other.all(axis=1), -1:] = False
    shape = (num_rows, ids.shape[1] - 1 if num_rows else 0)
    ids, similarities = ids[is_other].reshape(shape), similarities[is_other].reshape(shape)
    counts = expansion_weights(similarities / scale.sum(), weighting, alpha)
    return combine(gallery, gallery, ids, counts, weights, memory_bytes=memory_bytes, progress=progress)


def expand_queries(
    queries: Sequence[FeatureRows],
    gallery: Sequence[FeatureRows],
    k: int,
    weights: Sequence[float] | None = None,
    **options: Any,
) -> list[NDArray[np.float16]]:
    """`expansion_blocks` as one (Q, D_m) float16 array per model; it takes the same options."""
    return collect(expansion_blocks(queries, gallery, k, weights, **options), queries)


def augment_gallery(
    gallery: Sequence[FeatureRows], k: int, weights: Sequence[float] | None = None, **options: Any
) -> list[NDArray[np.float16]]:
    """`augmentation_blocks` as one (G, D_m) float16 array per model; it takes the same options."""
    return collect(augmentation_blocks(gallery, k, weights, **options), gallery)


def collect(blocks: Iterator[list[NDArray[np.float16]]], parts: Sequence[FeatureRows]) -> list[NDArray[np.float16]]:
    """Blocks as whole arrays, one per model, of the shapes of ``parts``."""
    arrays = [np.empty(part.shape, np.float16) for part in parts]
    start = 0
    for block in blocks:
        for array, rows in zip(arrays, block, strict=True):
            array[start : start + len(rows)] = rows
        start += len(block[0])
    return arrays


def _checked(
    queries: Sequence[FeatureRows], gallery: Sequence[FeatureRows], k: int, weights: Sequence[float] | None
) -> Floats:
    if k < 1:
        raise InputError(f"k: expected at least 1 neighbour, got {k}")
    stack_weights(gallery, weights, "gallery")
    same_models(queries, gallery, "queries", "gallery")
    return stack_weights(queries, weights, "queries")


def _search(search: Search | None) -> Search:
    if search is not None:
        return search
    from harness.ranking.search import nearest

    return nearest
