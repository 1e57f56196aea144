"""Similarities of pairs of rows in float64, and the threads that they are computed in.

Legend: Q queries, G gallery rows, D dimensions, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.ranking.rows import ChosenRows, FeatureRows, JoinedRows
from harness.ranking.search import rounding
from harness.ranking.search.planning import PAIRS_AT_ONCE
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
            part = np.zeros(len(near))
            for model, (query, weight) in enumerate(zip(self.queries, self.scale, strict=True)):
                asking = as_floats(query, asking_rows, self.workers, self.query_space)
                self._add(model, asking, found, left, right, weight, part)
            totals[near] = part
        return totals

    def _add(
        self, model: int, asking: NDArray[Any], found: Ints, left: Ints, right: Ints, weight: float, totals: Floats
    ) -> None:
        """Add a model's similarities; every thread converts the gallery rows of its own pairs, and waits for none."""
        num_threads = min(self.workers.num_threads, self.gallery_rows)
        rows_at_once = self.gallery_rows // num_threads
        bytes_at_once = rows_at_once * _widest(self.gallery)
        alone = Workers(1, self.workers.pool)

        def add(begin: int, end: int) -> None:
            for thread in range(begin, end):
                space = self.gallery_space[thread * bytes_at_once :]
                place, last = (len(left) * each // num_threads for each in (thread, thread + 1))
                while place < last:
                    start = right[place]
                    stop = place + int(np.searchsorted(right[place:last], start + rows_at_once))
                    rows = as_floats(self.gallery[model], found[start : right[stop - 1] + 1], alone, space)
                    some = slice(place, stop)
                    rounding.pair_products(asking, rows, left[some], right[some] - start, weight, totals[some])
                    place = stop

        self.workers.spread(num_threads, add)


def _widest(parts: Sequence[FeatureRows]) -> int:
    """Bytes of the widest row of any model once it is converted, up to where a float64 may begin."""
    return max(-(-part.shape[1] * (4 if part.dtype in (np.float16, np.float32) else 8) // 8) * 8 for part in parts)
