"""Lists of candidates: the gallery rows that may matter to any ensemble, with every model's similarity to them.

An ensemble ranks a query's candidates as it ranks the whole gallery, as long as no row outside of them comes before
its best right one. The candidates of a query are its right rows, the best C rows of every model, and the best C of all
models together.

Legend: Q queries, G gallery rows, M models, D dimensions, C candidates of one list, n of all queries together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.ranking.rows import FeatureRows
from harness.ranking.search import SearchOptions, nearest
from harness.types import Bools, Floats, Ints, Progress
from harness.workers import available_threads

NUM_CANDIDATES = 60
"""Rows of each model's list: enough that nearly every answer is that of the search (see `Outcomes.proven`)."""

_BLOCK_BYTES = 64 << 20
"""Of gallery rows in float32 at once."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Candidates of queries that have a right row, ragged: those of query q are ``starts[q] … starts[q + 1]``.

    Attributes:
        starts: (Q + 1,) int64.
        num_right: (Q,) int64, how many of a query's candidates, the first ones, are right: all that the gallery has.
        rows: (n,) int64, gallery rows; ascending among the right ones, and among the others.
        similarities_Mn: (M, n) float32, rounded from float64.
        floors_QM: (Q, M) float32, no row that is not a candidate has a larger similarity; -inf where all rows are.
        joint_floors: (Q,) float32, the same of the sum over all models.
    """

    starts: Ints
    num_right: Ints
    rows: Ints
    similarities_Mn: NDArray[np.float32]
    floors_QM: NDArray[np.float32]
    joint_floors: NDArray[np.float32]

    def __post_init__(self) -> None:
        num_queries, num_models, size = len(self.num_right), len(self.similarities_Mn), len(self.rows)
        shapes = {
            "starts": (num_queries + 1,),
            "num_right": (num_queries,),
            "rows": (size,),
            "similarities_Mn": (num_models, size),
            "floors_QM": (num_queries, num_models),
            "joint_floors": (num_queries,),
        }
        for name, shape in shapes.items():
            column = np.ascontiguousarray(getattr(self, name))
            if column.shape != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {column.shape}")
            column = column.view()
            column.setflags(write=False)  # so that one compiled function serves arrays and memory maps
            object.__setattr__(self, name, column)
        lengths = np.diff(self.starts)
        if self.starts[0] != 0 or self.starts[-1] != size or (lengths < self.num_right).any():
            raise ValueError(f"starts: expected to part {size} rows and hold the right ones of each query")

    @property
    def num_queries(self) -> int:
        """Q."""
        return len(self.num_right)

    @property
    def num_models(self) -> int:
        """M."""
        return len(self.similarities_Mn)


def gather(
    queries: Sequence[FeatureRows],
    gallery: Sequence[FeatureRows],
    right_starts: Ints,
    right_rows: Ints,
    num_candidates: int = NUM_CANDIDATES,
    progress: Progress | None = None,
    options: SearchOptions | None = None,
) -> Candidates:
    """The candidates of every query.

    Args:
        queries: one (Q, D) float16 or float32 array per model.
        gallery: one (G, D) array per model, in the order of ``queries``.
        right_starts: (Q + 1,) int64.
        right_rows: gallery rows; those of query q are ``right_starts[q] … right_starts[q + 1]``, each once.
        num_candidates: C, at least 1.
        progress: told of models done, twice each.
        options: how the searches are computed.

    Raises:
        ValueError: as `nearest`; or another dtype, or right rows that are none of the gallery.
    """
    num_queries, num_gallery, num_models = len(queries[0]), len(gallery[0]), len(queries)
    for part in (*queries, *gallery):
        if part.dtype not in (np.float16, np.float32):
            raise ValueError(f"expected features in float16 or float32, got {part.dtype}")
    if len(right_starts) != num_queries + 1 or right_starts[-1] != len(right_rows):
        raise ValueError(f"right_starts: expected to part {len(right_rows)} rows into {num_queries} queries")
    if len(right_rows) and not (right_rows.min() >= 0 and right_rows.max() < num_gallery):
        raise ValueError(f"right_rows: expected rows below {num_gallery}, got {right_rows.min()} to {right_rows.max()}")
    advance = progress or (lambda _done, _total: None)
    lists = [np.repeat(np.arange(num_queries), np.diff(right_starts)) * num_gallery + right_rows]
    floors_QM = np.full((num_queries, num_models), -np.inf, np.float32)
    joint_floors = np.full(num_queries, -np.inf, np.float32)
    for number in range(num_models + 1):
        models = slice(number, number + 1) if number < num_models else slice(None)
        if number == num_models == 1:
            joint_floors[:] = floors_QM[:, 0]
            break
        ids, sims = nearest(queries[models], gallery[models], num_candidates, options=options or SearchOptions())
        if num_candidates < num_gallery:
            floors = floors_QM[:, number] if number < num_models else joint_floors
            floors[:] = sims[:, -1]
        lists.append((np.arange(num_queries)[:, None] * num_gallery + ids).ravel())
        advance(min(number + 1, num_models), 2 * num_models)
    codes, is_right = _united(lists)
    asking, rows = codes // max(num_gallery, 1), codes % max(num_gallery, 1)
    order = np.lexsort((rows, ~is_right, asking))
    asking, rows = asking[order], rows[order]
    starts = np.searchsorted(asking, np.arange(num_queries + 1))
    sims_Mn = np.empty((num_models, len(rows)), np.float32)
    for number, (query, answers) in enumerate(zip(queries, gallery, strict=True)):
        sims_Mn[number] = _products(query, answers, asking, rows)
        advance(num_models + number + 1, 2 * num_models)
    return Candidates(starts, np.diff(right_starts), rows, sims_Mn, floors_QM, joint_floors)


def _united(lists: Sequence[Ints]) -> tuple[Ints, Bools]:
    """All codes once, ascending, and whether they are in the first list."""
    codes = np.unique(np.concatenate(lists))
    return codes, np.isin(codes, lists[0])


def _products(queries: FeatureRows, gallery: FeatureRows, asking: Ints, rows: Ints) -> Floats:
    """The float64 inner product of every pair; the gallery is read once, front to back."""
    from harness.ranking.selection.counting import pair_products

    query_QD = np.ascontiguousarray(queries[:], np.float32)
    order = np.argsort(rows, kind="stable")
    found, threads = np.empty(len(rows)), available_threads()
    with ThreadPoolExecutor(threads) as pool:  # compiled code does not hold the lock
        for start, end, places in _blocks(rows, order, _BLOCK_BYTES // (4 * queries.shape[1])):
            rows_GD = np.ascontiguousarray(gallery[start:end], np.float32)
            products = np.empty(len(places))
            parts = np.linspace(0, len(places), threads + 1).astype(int)

            def multiply(
                first: int, last: int, rows_GD: object = rows_GD, places: Ints = places, products: Floats = products
            ) -> None:
                some = places[first:last]
                pair_products(query_QD, rows_GD, asking[some], rows[some] - start, products[first:last])  # noqa: B023

            list(pool.map(multiply, parts[:-1].tolist(), parts[1:].tolist()))
            found[places] = products
    return found


def _blocks(rows: Ints, order: Ints, size: int) -> Iterator[tuple[int, int, Ints]]:
    """Ranges of gallery rows, and the pairs whose rows are in them."""
    if len(rows) == 0:
        return
    ordered, size = rows[order], max(1, size)
    for start in range(0, int(ordered[-1]) + 1, size):
        low, high = np.searchsorted(ordered, [start, start + size])
        if high > low:
            yield start, min(start + size, int(ordered[-1]) + 1), order[low:high]


def exact_hits(
    queries: Sequence[FeatureRows],
    gallery: Sequence[FeatureRows],
    right_starts: Ints,
    right_rows: Ints,
    weights: Sequence[float],
    k: int,
    options: SearchOptions | None = None,
) -> Bools:
    """Which queries an ensemble gets right by the exact search of all of the gallery.

    Args:
        queries: as for `gather`.
        gallery: as for `gather`.
        right_starts: as for `gather`.
        right_rows: as for `gather`.
        weights: one a model; those of weight 0 are left out.
        k: rows of the ranking among which a right one has to be.
        options: how the search is computed.

    Returns:
        (Q,) bool.
    """
    members = [model for model, weight in enumerate(weights) if weight > 0]
    ids, _ = nearest(
        [queries[model] for model in members],
        [gallery[model] for model in members],
        k,
        [weights[model] for model in members],
        options=options or SearchOptions(),
    )
    num_gallery, asking = len(gallery[0]), np.arange(len(ids))
    rights = np.repeat(asking, np.diff(right_starts)) * num_gallery + right_rows
    return np.asarray(np.isin(asking[:, None] * num_gallery + ids, rights).any(axis=1))
