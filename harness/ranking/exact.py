"""Similarities of pairs of rows in float64, and the candidates of a block of queries that they decide between.

Legend: Q queries, G gallery rows, D dimensions, P pairs, C candidates of a query at most, K results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.ranking import candidates, rounding
from harness.ranking.rows import ChosenRows, FeatureRows, JoinedRows
from harness.ranking.search_plan import PAIRS_AT_ONCE
from harness.types import Floats, Ints


@dataclass(frozen=True)
class Workers:
    """Threads that kernels run in; they hold no lock of the interpreter.

    Attributes:
        num_threads: how many.
        pool: where they come from.
    """

    num_threads: int
    pool: ThreadPoolExecutor

    def spread(self, length: int, work: Callable[[int, int], Any]) -> None:
        """Call ``work(start, end)`` for consecutive parts of a range, one a thread; an exception comes through."""
        parts = min(self.num_threads, length)
        if parts <= 1:
            if length:
                work(0, length)
            return
        bounds = [length * part // parts for part in range(parts + 1)]
        for _ in self.pool.map(work, bounds[:-1], bounds[1:]):
            pass

    def each(self, work: Callable[[int], Any]) -> None:
        """Call ``work(number)`` once a thread, all at the same time; an exception comes through."""
        if self.num_threads == 1:
            work(0)
            return
        for _ in self.pool.map(work, range(self.num_threads)):
            pass


def lying(part: FeatureRows, rows: Ints) -> tuple[NDArray[Any], Ints]:
    """An array that holds the wanted rows as they are stored, and where: no copy, but for types that are rare."""
    array: Any = part
    while isinstance(array, ChosenRows):
        array, rows = array.array, array.rows[rows]
    if isinstance(array, JoinedRows):
        array, rows = array[rows], np.arange(len(rows))
    if array.dtype not in (np.float16, np.float32, np.float64) or not array.dtype.isnative:
        return np.asarray(array[rows], np.float64), np.arange(len(rows))
    return np.asarray(array), rows


def as_floats(part: FeatureRows, rows: Ints, workers: Workers, space: NDArray[np.uint8] | None = None) -> NDArray[Any]:
    """Rows of features as float32, or as float64 where float32 would change them; in ``space`` if it is given."""
    array, places = lying(part, rows)
    dtype = np.float32 if array.dtype == np.float16 else array.dtype
    shape = len(places), array.shape[1]
    size = shape[0] * shape[1] * np.dtype(dtype).itemsize
    out = np.empty(shape, dtype) if space is None else space[:size].view(dtype).reshape(shape)
    if array.dtype != np.float16:
        np.take(array, places, axis=0, out=out, mode="clip")  # the other modes copy once more
        return out
    squares, is_wrong = np.empty(len(places)), np.empty(len(places), bool)
    bits = array.view(np.uint16)

    def convert(start: int, end: int) -> None:
        rounding.halves_to_single(bits, places[start:end], out[start:end], 0, squares[start:end], is_wrong[start:end])

    workers.spread(len(places), convert)
    return out


class PairScorer:
    """The float64 similarities of pairs of rows.

    Args:
        queries: one (Q, D) a model.
        gallery: one (G, D) a model.
        scale: (M,) float64, the weights.
        workers: threads.
        query_rows: queries that are converted at once.
        gallery_rows: gallery rows that are converted at once.
    """

    def __init__(
        self,
        queries: Sequence[FeatureRows],
        gallery: Sequence[FeatureRows],
        scale: Floats,
        workers: Workers,
        query_rows: int,
        gallery_rows: int,
    ) -> None:
        self.queries, self.gallery, self.scale, self.workers = queries, gallery, scale, workers
        self.query_rows, self.gallery_rows = query_rows, gallery_rows
        # New memory for every block costs more than what is done with it: each page is zeroed when it is first touched.
        self.query_space = np.empty(query_rows * _widest(queries), np.uint8)
        self.gallery_space = np.empty(gallery_rows * _widest(gallery), np.uint8)

    def __call__(self, query_rows: Ints, gallery_rows: Ints) -> Floats:
        """The similarity of each pair (P,), read in the order in which the gallery lies."""
        order = np.argsort(gallery_rows, kind="stable")
        totals = np.zeros(len(order))
        for first in range(0, len(order), PAIRS_AT_ONCE):
            pairs = order[first : first + PAIRS_AT_ONCE]
            totals[pairs] = self._score(query_rows[pairs], gallery_rows[pairs])
        return totals

    def _score(self, query_rows: Ints, gallery_rows: Ints) -> Floats:
        asked, query_places = np.unique(query_rows, return_inverse=True)
        found, gallery_places = np.unique(gallery_rows, return_inverse=True)
        totals = np.zeros(len(query_rows))
        for query_start in range(0, len(asked), self.query_rows):
            asking_rows = asked[query_start : query_start + self.query_rows]
            near = np.flatnonzero((query_places >= query_start) & (query_places < query_start + self.query_rows))
            left, right = query_places[near] - query_start, gallery_places[near]
            starts = range(0, len(found), self.gallery_rows)
            bounds = np.searchsorted(right, [*starts, len(found)])
            part = np.zeros(len(near))
            for query, answers, weight in zip(self.queries, self.gallery, self.scale, strict=True):
                asking = as_floats(query, asking_rows, self.workers, self.query_space)
                for start, low, high in zip(starts, bounds[:-1], bounds[1:], strict=True):
                    rows = as_floats(
                        answers, found[start : start + self.gallery_rows], self.workers, self.gallery_space
                    )
                    places = slice(low, high)
                    self._add(asking, rows, left[places], right[places] - start, weight, part[places])
            totals[near] = part
        return totals

    def _add(
        self, asking: NDArray[Any], rows: NDArray[Any], left: Ints, right: Ints, weight: float, totals: Floats
    ) -> None:
        def add(begin: int, end: int) -> None:
            rounding.pair_products(asking, rows, left[begin:end], right[begin:end], weight, totals[begin:end])

        self.workers.spread(len(left), add)


def _widest(parts: Sequence[FeatureRows]) -> int:
    """Bytes of the widest row of any model once it is converted."""
    return max(part.shape[1] * (4 if part.dtype in (np.float16, np.float32) else 8) for part in parts)


class Pool:
    """The candidates of a block of queries.

    Args:
        num_queries: of the block.
        keep: how many are wanted of each.
        capacity: candidates of a query at most; more than ``keep``.
        sign: 1 for the most similar rows, -1 for the least similar ones.
        exact: the float64 similarities of pairs (query of the block, gallery row).
        workers: threads.
        floors: shared by the pools of several devices; None for one of its own.
    """

    def __init__(
        self,
        num_queries: int,
        keep: int,
        capacity: int,
        sign: float,
        exact: Callable[[Ints, Ints], Floats],
        workers: Workers,
        floors: Floats | None = None,
    ) -> None:
        self.keep, self.sign, self.exact, self.workers = keep, sign, exact, workers
        self.floors = np.full(num_queries, -np.inf) if floors is None else floors
        self.lower = np.empty((num_queries, capacity))
        self.upper = np.empty((num_queries, capacity))
        self.ids = np.empty((num_queries, capacity), np.int64)
        self.counts = np.zeros(num_queries, np.int64)

    def scan(self, products: NDArray[Any], is_bf16: bool, shifts: Floats, errors: Floats, first_id: int) -> None:
        """Keep what passes of a whole block of products (Q, G): bits of bfloat16, or float32."""
        starts = np.zeros(len(self.counts), np.int64)
        bits = products if is_bf16 else np.empty((0, 0), np.uint16)
        singles = np.empty((0, 0), np.float32) if is_bf16 else products

        def run(first: int, end: int) -> None:
            candidates.scan(
                first, end, is_bf16, bits, singles, shifts, errors, self.sign, first_id, self.keep,
                self.floors, self.lower, self.upper, self.ids, self.counts, starts,
            )  # fmt: skip

        self.workers.spread(len(starts), run)
        while (full := np.flatnonzero(starts < products.shape[1])).size:
            self.relieve(full)
            self.workers.spread(len(starts), run)

    def take(self, bounds: Ints, columns: Ints, values: NDArray[Any], errors: Floats, first_id: int) -> None:
        """Keep what passes of chosen products: those of query q are ``bounds[q]`` to ``bounds[q + 1]``."""
        starts = np.zeros(len(self.counts), np.int64)
        while True:
            candidates.take(
                bounds, columns, values, errors, self.sign, first_id, self.keep,
                self.floors, self.lower, self.upper, self.ids, self.counts, starts,
            )  # fmt: skip
            full = np.flatnonzero(starts < np.diff(bounds))
            if not full.size:
                return
            self.relieve(full)

    def relieve(self, queries: Ints) -> None:
        """Make room for more candidates of some queries."""
        self._score(*self._open(self.keep, queries))
        self.shrink()
        capacity = self.lower.shape[1]
        self.settle(queries[self.counts[queries] > capacity // 2])

    def settle(self, queries: Ints) -> None:
        """Score all candidates of some queries exactly and keep the best alone: bounded memory whatever ties."""
        for start in range(0, len(queries), 64):
            some = queries[start : start + 64]
            columns = np.arange(self.lower.shape[1])
            is_open = (columns < self.counts[some, None]) & (self.lower[some] != self.upper[some])
            at, places = np.nonzero(is_open)
            self._score(some[at], places)
            values = np.where(columns < self.counts[some, None], self.lower[some], -np.inf)
            ids = np.where(columns < self.counts[some, None], self.ids[some], np.iinfo(np.int64).max)
            order = np.lexsort((ids, -values), axis=1)[:, : self.keep]
            left = np.minimum(self.counts[some], self.keep)
            self.ids[some, : self.keep] = np.take_along_axis(ids, order, axis=1)
            best = np.take_along_axis(values, order, axis=1)
            self.lower[some, : self.keep] = self.upper[some, : self.keep] = best
            self.counts[some] = left
            enough = left == self.keep
            self.floors[some] = np.where(enough, np.maximum(self.floors[some], best[:, -1]), self.floors[some])

    def finish(self) -> tuple[Ints, Floats]:
        """The best of each query by float64 similarity: ids and similarities (Q, keep); none may be missing.

        Those that are likely the best are scored first: that brings the floor to where the last of them is.
        """
        everyone = np.arange(len(self.counts))
        for most in (self.keep, self.lower.shape[1]):
            self.shrink()
            self._score(*self._open(most, everyone))
        self.shrink()
        most = int(self.counts.max(initial=0))
        is_there = np.arange(most) < self.counts[:, None]
        values = np.where(is_there, self.sign * self.lower[:, :most], -self.sign * np.inf)
        ids = np.where(is_there, self.ids[:, :most], np.iinfo(np.int64).max)
        order = np.lexsort((ids, -self.sign * values), axis=1)[:, : self.keep]
        return np.take_along_axis(ids, order, axis=1), np.take_along_axis(values, order, axis=1)

    def join(self, other: Pool) -> None:
        """Take over the candidates of another pool of the same queries."""
        other.shrink()
        bounds = np.concatenate([[0], np.cumsum(other.counts)])
        is_there = np.arange(other.lower.shape[1]) < other.counts[:, None]
        low, high = other.lower[is_there], other.upper[is_there]
        queries = np.repeat(np.arange(len(other.counts)), other.counts)
        unknown = np.flatnonzero(low != high)
        ids = other.ids[is_there]
        low[unknown] = self.sign * self.exact(queries[unknown], ids[unknown])
        self.take(bounds, ids, self.sign * low, np.zeros(len(self.counts)), 0)

    def shrink(self) -> None:
        """Drop what cannot be among the best any more."""

        def run(start: int, end: int) -> None:
            rows = slice(start, end)
            candidates.shrink_all(
                self.keep, self.floors[rows], self.lower[rows], self.upper[rows], self.ids[rows], self.counts[rows]
            )

        self.workers.spread(len(self.counts), run)

    def _open(self, most: int, queries: Ints) -> tuple[Ints, Ints]:
        total = int(self.counts[queries].sum())
        found_queries, places = np.empty(total, np.int64), np.empty(total, np.int64)
        found = candidates.open_places(most, queries, self.lower, self.upper, self.counts, found_queries, places)
        return found_queries[:found], places[:found]

    def _score(self, queries: Ints, places: Ints) -> None:
        exact = self.sign * self.exact(queries, self.ids[queries, places])
        self.lower[queries, places] = self.upper[queries, places] = exact
