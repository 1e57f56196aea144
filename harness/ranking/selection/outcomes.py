"""Which queries an ensemble gets right, for thousands of ensembles, from lists of candidates.

Legend: Q queries, M models, E ensembles, S subsets, H groups of queries.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from harness.ranking.selection.candidates import Candidates
from harness.ranking.selection.counting import hits_of, hits_of_subsets, mark_contenders, proven_of
from harness.types import Bools, Floats, Ints, Progress
from harness.workers import available_threads

MOST_MODELS = 20
"""Of which all subsets can be judged: a million of them."""

_BLOCK_BYTES = 64 << 20
"""Of hits of subsets at once."""


class Outcomes:
    """Hits of ensembles within the first k.

    A query is a hit if fewer than k candidates rank before its best right one: by descending sum of the models'
    weighted similarities, equal ones by ascending gallery row, as `harness.ranking.search.nearest` ranks.

    Args:
        candidates: of the queries.
        k: at least 1.
        num_threads: None for all cores that this process may use.
    """

    def __init__(self, candidates: Candidates, k: int, num_threads: int | None = None) -> None:
        if k < 1:
            raise ValueError(f"k: expected at least 1, got {k}")
        self.candidates = candidates
        self.k = k
        self._num_threads = num_threads or available_threads()
        self._known: dict[int, Bools] = {}
        # No others can rank before a right one, whatever the weights: few are left where features tell garments apart.
        marks = np.zeros(len(candidates.rows), np.bool_)

        def mark(first: int, end: int) -> None:
            mark_contenders(candidates.starts, candidates.num_right, candidates.similarities_Mn, first, end, marks)

        self._in_parts(mark, 0, candidates.num_queries)
        self._contenders = (
            np.concatenate([[0], np.cumsum(marks)])[candidates.starts],
            candidates.num_right,
            candidates.rows[marks],
            candidates.similarities_Mn[:, marks],
        )

    @property
    def num_models(self) -> int:
        """M."""
        return self.candidates.num_models

    def hits(self, weights_EM: Floats) -> Bools:
        """Which queries every ensemble gets right.

        Args:
            weights_EM: (E, M) float64, at least 0; a model of weight 0 takes no part.

        Returns:
            (E, Q) bool.

        Raises:
            ValueError: another shape; a weight is negative or not finite; an ensemble has no model.
        """
        weights_EM = self._validated(weights_EM)
        hits_EQ = np.zeros((len(weights_EM), self.candidates.num_queries), np.bool_)

        def count(first: int, end: int) -> None:
            hits_of(*self._contenders, weights_EM, self.k, first, end, hits_EQ)

        self._in_parts(count, 0, self.candidates.num_queries)
        return hits_EQ

    def subset_hits(self, subsets: Ints) -> Bools:
        """`hits` of models with equal weights, each subset counted once however often it is asked for.

        Args:
            subsets: (S,) int64, bit m stands for model m.

        Returns:
            (S, Q) bool.
        """
        wanted = [int(subset) for subset in subsets]
        missing = list(dict.fromkeys(subset for subset in wanted if subset not in self._known))
        if missing:
            found = self.hits(members_of(np.array(missing), self.num_models).astype(np.float64))
            self._known.update(zip(missing, found, strict=True))
        return np.stack([self._known[subset] for subset in wanted])

    def every_subset(self, groups_HQ: Bools, most: int, progress: Progress | None = None) -> Ints:
        """Hits of every subset of the models, with equal weights, within groups of queries.

        Args:
            groups_HQ: (H, Q) bool.
            most: models of a subset at most, at least 1.
            progress: told of queries done and in all.

        Returns:
            (2 ** M, H) int64, by the number of the subset, whose bit m stands for model m; 0 for larger ones than
            ``most`` and for the empty one.

        Raises:
            ValueError: there are more models than `MOST_MODELS`.
        """
        listed, most = self.candidates, min(most, self.num_models)
        if self.num_models > MOST_MODELS:
            raise ValueError(f"expected at most {MOST_MODELS} models to judge all subsets of, got {self.num_models}")
        num_subsets = 1 << self.num_models
        counts_SH = np.zeros((num_subsets, len(groups_HQ)), np.int64)
        block = max(2 * self._num_threads, _BLOCK_BYTES // (4 * num_subsets))
        for start in range(0, listed.num_queries, block):
            stop = min(start + block, listed.num_queries)
            # Sums of ones and zeros: whole numbers, which float32 holds exactly.
            hits_QS = np.zeros((stop - start, num_subsets), np.float32)

            def count(first: int, end: int, start: int = start, hits_QS: NDArray[np.float32] = hits_QS) -> None:
                hits_of_subsets(*self._contenders, most, self.k, first, end, hits_QS[first - start : end - start])

            self._in_parts(count, start, stop)
            counts_SH += (hits_QS.T @ groups_HQ[:, start:stop].T.astype(np.float32)).astype(np.int64)
            if progress is not None:
                progress(stop, listed.num_queries)
        return counts_SH

    def proven(self, weights_EM: Floats) -> Bools:
        """For which queries the answer is proven to be that of the exact search of the whole gallery.

        All right rows are candidates, so that only rows that are none could rank before the best right one. Such a
        row is in no model's list: its similarity is at most the sum of the weighted last similarities of the lists.
        What rounding to float32 might change counts as not proven.

        Args:
            weights_EM: as for `hits`.

        Returns:
            (E, Q) bool.
        """
        weights_EM = self._validated(weights_EM)
        listed = self.candidates
        proven_EQ = np.zeros((len(weights_EM), listed.num_queries), np.bool_)
        largest = np.abs(listed.similarities_Mn).max(axis=1, initial=0.0).astype(np.float64)
        columns = (listed.starts, listed.num_right, listed.rows, listed.similarities_Mn)
        floors = (listed.floors_QM, listed.joint_floors)
        proven_of(*columns, *floors, largest, weights_EM, self.k, proven_EQ)
        return proven_EQ

    def _validated(self, weights_EM: Floats) -> Floats:
        weights_EM = np.ascontiguousarray(weights_EM, np.float64)
        if weights_EM.ndim != 2 or weights_EM.shape[1] != self.num_models:
            raise ValueError(f"weights: expected shape (E, {self.num_models}), got {weights_EM.shape}")
        wrong = ~(np.isfinite(weights_EM) & (weights_EM >= 0)).all(axis=1) | ~(weights_EM > 0).any(axis=1)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise ValueError(f"weights: row {row}: expected some above 0, none below, got {weights_EM[row].tolist()}")
        return weights_EM

    def _in_parts(self, count: object, start: int, stop: int) -> None:
        bounds = np.linspace(start, stop, min(stop - start, 8 * self._num_threads) + 1).astype(int)
        with ThreadPoolExecutor(self._num_threads) as pool:  # compiled code does not hold the lock
            list(pool.map(count, bounds[:-1].tolist(), bounds[1:].tolist()))  # type: ignore[arg-type]


def members_of(subsets: Ints, num_models: int) -> Bools:
    """(S, M) bool: bit m of a subset's number stands for model m."""
    return np.asarray((np.asarray(subsets, np.int64)[:, None] >> np.arange(num_models)) & 1, np.bool_)
