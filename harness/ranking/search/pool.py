"""The candidates of a block of queries, and the exact similarities that decide between them.

Legend: Q queries, G gallery rows of a block, C candidates of a query at most, K results.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.ranking.search import candidates, picking
from harness.ranking.search.exact import Workers
from harness.types import Floats, Ints

_HITS = 1 << 15  # products that pass before they are handed over


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
        self.lock = Lock()

    def scan(self, products: NDArray[np.float32], errors: Floats, first_id: int) -> None:
        """Keep what passes of a whole block of products (Q, G)."""
        starts = np.zeros(len(self.counts), np.int64)

        def run(first: int, end: int) -> None:
            candidates.scan(
                first, end, products, errors, self.sign, first_id, self.keep,
                self.floors, self.lower, self.upper, self.ids, self.counts, starts,
            )  # fmt: skip

        self.workers.spread(len(starts), run)
        while (full := np.flatnonzero(starts < products.shape[1])).size:
            self.relieve(full)
            self.workers.spread(len(starts), run)

    def pick(self, bits_GQ: NDArray[np.uint16], shifts: Floats, errors: Floats, first_id: int) -> None:
        """Keep what passes of a block of products that lies the other way; may be called by several threads at once.

        Args:
            bits_GQ: (G, Q) bits of bfloat16.
            shifts: (Q,) float64, what was taken from each product.
            errors: (Q,) float64, how far each product may be from the exact one.
            first_id: gallery row of the first row.
        """
        num_rows, num_queries = bits_GQ.shape
        size = num_queries + min(_HITS, num_rows * num_queries)
        rows, queries, values = np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size, np.float32)
        row = 0
        while row < num_rows:
            lowest = picking.thresholds(self.floors, self.sign * shifts, errors)
            row, found = picking.pick(bits_GQ, row, lowest, self.sign, rows, queries, values)
            done = 0
            with self.lock:
                while done < found:
                    done = picking.add(
                        done, found, rows, queries, values, shifts, errors, self.sign, first_id, self.keep,
                        self.floors, self.lower, self.upper, self.ids, self.counts,
                    )  # fmt: skip
                    if done < found:
                        self.shrink()
                        self.relieve(np.flatnonzero(self.counts > self.lower.shape[1] * 3 // 4))

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
