"""Blocks of products by faiss, which hands out only the best of each query: more are asked for until they suffice.

Legend: Q queries of a block, G gallery rows of a block, W columns, C results asked of faiss for a query.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from harness.ranking.rows import FeatureRows
from harness.ranking.search.blocks import CPU_UNIT, error_bound, rounded_block
from harness.ranking.search.exact import Workers
from harness.ranking.search.planning import SearchPlan
from harness.ranking.search.pool import Pool
from harness.types import Floats, Ints

_SPARE = 12  # beyond what is wanted: enough on clustered features that a second round is seldom needed
_ASKED_AT_ONCE = 1 << 22  # results of a call
_TF32 = 2.0**-10  # what a GPU may take from each number: faiss leaves it to cuBLAS
_MOST_ON_GPU = 2048  # results of a query


class FaissProducts:
    """Products by faiss in float32.

    Args:
        parts: queries and gallery, one array a model each.
        scale: (M,) float64, what each model's queries are multiplied by.
        plan: of the search.
        workers: threads.
        device: torch's name of it.
    """

    def __init__(
        self,
        parts: tuple[Sequence[FeatureRows], Sequence[FeatureRows]],
        scale: Floats,
        plan: SearchPlan,
        workers: Workers,
        device: str,
    ) -> None:
        self.parts, self.scale, self.plan, self.workers = parts, scale, plan, workers
        self.gpu = None if device == "cpu" else int(device.removeprefix("cuda:"))
        self.resources: Any = None if self.gpu is None else faiss.StandardGpuResources()
        self.query_QW = np.zeros((plan.query_rows, plan.width), np.float32)
        self.rows_GW = np.zeros((plan.gallery_rows, plan.width), np.float32)

    def ask(self, rows: Ints) -> None:
        """Make the products of these queries from now on."""
        self.num_queries = len(rows)
        self.query_lengths = rounded_block(
            self.parts[0], rows, self.scale, self.query_QW[: len(rows)], "queries", self.workers
        )

    def offer(self, start: int, end: int, pools: Sequence[Pool]) -> None:
        """Let pools take what they need of the products with the gallery rows ``start`` to ``end``."""
        rows_GW = self.rows_GW[: end - start]
        longest = rounded_block(self.parts[1], np.arange(start, end), None, rows_GW, "gallery", self.workers).longest()
        errors = error_bound(self.query_lengths, longest, self.plan.width + 8, CPU_UNIT)
        if self.gpu is not None:
            held = longest.whole[0] + longest.lost[0]
            errors += 2 * _TF32 * ((self.query_lengths.whole + self.query_lengths.lost) @ held)
        for pool in pools:
            pending = np.arange(self.num_queries)
            wanted = min(len(rows_GW), pool.keep + _SPARE)
            while len(pending):
                pending = self._offer(rows_GW, pool, errors, pending, wanted, start)
                wanted = min(len(rows_GW), 4 * wanted)

    def _offer(
        self, rows_GW: NDArray[np.float32], pool: Pool, errors: Floats, pending: Ints, wanted: int, start: int
    ) -> Ints:
        """Ask for ``wanted`` results; the queries of which that may not be enough, nothing of them being taken."""
        step = max(1, _ASKED_AT_ONCE // wanted)
        open_: list[Ints] = []
        for first in range(0, len(pending), step):
            some = pending[first : first + step]
            values, columns = self._best(pool.sign * self.query_QW[some], rows_GW, wanted)
            best = values.astype(np.float64)
            if wanted >= pool.keep:
                pool.floors[some] = np.fmax(pool.floors[some], best[:, pool.keep - 1] - errors[some])
            is_done = (best[:, -1] + errors[some] < pool.floors[some]) | (wanted == len(rows_GW))
            open_.append(some[~is_done])
            done = some[is_done]
            counts = np.zeros(self.num_queries, np.int64)
            counts[done] = wanted
            bounds = np.concatenate([[0], np.cumsum(counts)])
            pool.take(bounds, columns[is_done].ravel(), pool.sign * best[is_done].ravel(), errors, start)
        return np.concatenate(open_)

    def _best(
        self, query_QW: NDArray[np.float32], rows_GW: NDArray[np.float32], wanted: int
    ) -> tuple[NDArray[np.float32], Ints]:
        found: tuple[Any, Any]
        if self.gpu is None or wanted > _MOST_ON_GPU:
            found = faiss.knn(query_QW, rows_GW, wanted, metric=faiss.METRIC_INNER_PRODUCT)
        else:
            found = faiss.knn_gpu(
                self.resources, query_QW, rows_GW, wanted, metric=faiss.METRIC_INNER_PRODUCT, device=self.gpu
            )
        return found
