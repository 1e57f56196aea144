"""k-reciprocal encoding on a CPU: compiled steps, rows shared out among threads.

Legend: N rows (queries, then gallery), Q queries, G gallery rows, K neighbours of a row, E entries of sparse rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from harness.ranking.reranking.encoding import (
    Ints32,
    add_minima,
    average,
    count_columns,
    expand_sets,
    file_by_column,
    find_reciprocal,
    weigh,
)
from harness.ranking.reranking.sparse_rows import SparseRows, stack
from harness.ranking.search.exact import Workers
from harness.types import Floats, Ints

_ROWS = 8192  # a thread's share at most: its scratch memory is one number for each of the N rows


def shared_out(workers: Workers, num_rows: int, step: Callable[[int, int], Any]) -> Iterator[Any]:
    """Results of a step over ranges of rows in their order, called as ``step(start, stop)`` in threads."""
    size = max(1, min(_ROWS, -(-num_rows // workers.num_threads)))
    edges = [*range(0, num_rows, size), num_rows]
    if workers.num_threads == 1:
        return (step(start, stop) for start, stop in pairwise(edges))
    return workers.pool.map(lambda edge: step(*edge), pairwise(edges))


class CpuSteps:
    """The steps of the encoding.

    Args:
        num_threads: at least 1.
    """

    def __init__(self, num_threads: int) -> None:
        self.num_threads = num_threads
        self._workers = Workers(num_threads, ThreadPoolExecutor(num_threads))

    def close(self) -> None:
        """End the threads."""
        self._workers.pool.shutdown()

    def sets(self, ids: Ints32, distances: Floats, k1: int, half: int) -> SparseRows:
        """The sets R*: see `harness.ranking.reranking.encoding.expand_sets`.

        Args:
            ids: (N, K) int32, the row itself first.
            distances: (N, K) float64.
            k1: neighbours beside the row itself, at most K - 1.
            half: the same for the rows that join.

        Returns:
            N rows of distances, NaN where not known.
        """
        near, joining = (np.empty((len(ids), k + 1), np.int32) for k in (k1, half))
        num_near, num_joining = (np.empty(len(ids), np.int32) for _ in range(2))

        def find(start: int, stop: int) -> None:
            find_reciprocal(ids, start, stop, near, num_near)
            find_reciprocal(ids, start, stop, joining, num_joining)

        list(shared_out(self._workers, len(ids), find))
        blocks = shared_out(
            self._workers,
            len(ids),
            lambda start, stop: expand_sets(ids, distances, near, num_near, joining, num_joining, start, stop),
        )
        return stack(blocks)

    def weigh(self, sets: SparseRows, largest: Floats) -> None:
        """Turn the distances of the sets into weights, in place; ``largest`` is (N,) float64, above 0."""
        list(
            shared_out(
                self._workers, len(sets), lambda start, stop: weigh(sets.starts, sets.values, largest, start, stop)
            )
        )

    def averaged(self, encoded: SparseRows, ids: Ints32, k2: int, rows: Ints) -> SparseRows:
        """The mean rows of the first k2 neighbours of some rows; those themselves where k2 is 1."""
        return stack(self._averaged(encoded, ids, k2, rows))

    def file(self, encoded: SparseRows, ids: Ints32, k2: int, rows: Ints) -> None:
        """Keep what `averaged` gives for the gallery's rows by column, for `overlaps`."""
        blocks = list(self._averaged(encoded, ids, k2, rows))
        starts = np.zeros(len(encoded) + 1, np.int64)
        for _, columns, _ in blocks:
            count_columns(columns, starts[1:])
        np.cumsum(starts, out=starts)
        self._filed = SparseRows(starts, np.empty(starts[-1], np.int32), np.empty(starts[-1]))
        self._num_gallery = len(rows)
        ends, first = starts[:-1].copy(), 0
        blocks.reverse()
        while blocks:  # each is freed as soon as it is filed
            lengths, columns, values = blocks.pop()
            file_by_column(lengths, columns, values, first, ends, self._filed.columns, self._filed.values)
            first += len(lengths)

    def overlaps(self, encoded: SparseRows, start: int, stop: int) -> SparseRows:
        """The sums of minima of a range of queries with the gallery: see `encoding.add_minima`."""
        filed = self._filed
        blocks = shared_out(
            self._workers,
            stop - start,
            lambda low, high: add_minima(
                encoded.starts,
                encoded.columns,
                encoded.values,
                start + low,
                start + high,
                filed.starts,
                filed.columns,
                filed.values,
                self._num_gallery,
            ),
        )
        return stack(blocks)

    def _averaged(self, encoded: SparseRows, ids: Ints32, k2: int, rows: Ints) -> Iterator[tuple[Ints, Ints32, Floats]]:
        starts, columns, values = encoded.starts, encoded.columns, encoded.values
        return shared_out(
            self._workers,
            len(rows),
            lambda start, stop: average(starts, columns, values, ids, k2, rows, start, stop),
        )
