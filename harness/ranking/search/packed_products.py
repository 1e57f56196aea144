"""Products on a CPU with matrix units for bfloat16: queries packed once, and blocks of the gallery dealt to lanes.

A lane takes a block of the gallery through everything, rounding, products and choice, before it takes the next. So the
lanes meet only where a few candidates are handed over, and no phase waits for all threads.

Legend: Q queries of a block, G gallery rows of a block, W columns: the dimensions of all models.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import local
from typing import Any

import numpy as np
import torch

from harness.ranking.rows import FeatureRows
from harness.ranking.search.blocks import CPU_UNIT, error_bound, growth, rounded_block
from harness.ranking.search.exact import Workers
from harness.ranking.search.planning import SearchPlan
from harness.ranking.search.pool import Pool
from harness.types import Floats, Ints


class PackedProducts:
    """Products in bfloat16, scanned where they were made; `offer` may be called by several threads at once.

    The results come out in bfloat16 too, of which 8 bits are too few. So the present floor is taken from each sum
    before it is rounded: what is near the floor comes out near zero, where bfloat16 is fine enough.

    Args:
        parts: queries and gallery, one array a model each.
        scale: (M,) float64, what each model's queries are multiplied by.
        plan: of the search.
        workers: threads of everything.
    """

    def __init__(
        self,
        parts: tuple[Sequence[FeatureRows], Sequence[FeatureRows]],
        scale: Floats,
        plan: SearchPlan,
        workers: Workers,
    ) -> None:
        self.parts, self.scale, self.plan, self.workers = parts, scale, plan, workers
        self.of_lane = Workers(plan.lane_threads, workers.pool)
        self.lane = local()

    def ask(self, rows: Ints) -> None:
        """Make the products of these queries from now on."""
        self.lane = local()  # its memory is that of the queries until they are packed
        block_QW = np.zeros((len(rows), self.plan.width), np.uint16)
        self.query_lengths = rounded_block(self.parts[0], rows, self.scale, block_QW, "queries", self.workers)
        queries = torch.from_numpy(block_QW.view(np.int16)).view(torch.bfloat16)
        self.packed: Any = torch.ops.mkldnn._reorder_linear_weight(queries, self.plan.gallery_rows)

    def offer(self, start: int, end: int, pools: Sequence[Pool]) -> None:
        """Let pools take what they need of the products with the gallery rows ``start`` to ``end``."""
        rows_GW = self._space()[: end - start]
        lengths = rounded_block(self.parts[1], np.arange(start, end), None, rows_GW, "gallery", self.of_lane)
        floors = pools[0].floors
        shifts = torch.from_numpy(np.where(np.isfinite(floors), -floors, 0)).float()
        rows = torch.from_numpy(rows_GW.view(np.int16)).view(torch.bfloat16)
        products = torch.ops.mkldnn._linear_pointwise(rows, self.packed, shifts, "none", [], "")
        num_terms = self.plan.width + 8
        taken = -shifts.double().numpy()
        errors = error_bound(self.query_lengths, lengths.longest(), num_terms, CPU_UNIT)
        errors += growth(num_terms, CPU_UNIT) * np.abs(taken)
        bits_GQ = products.view(torch.uint16).numpy()
        for pool in pools:
            pool.pick(bits_GQ, taken, errors, start)

    def _space(self) -> Any:
        """The lane's block of gallery rows."""
        if not hasattr(self.lane, "rows_GW"):
            # Where torch takes its threads from is said to each thread of Python: OpenMP counts them apart.
            torch.set_num_threads(self.plan.lane_threads)
            self.lane.rows_GW = np.zeros((self.plan.gallery_rows, self.plan.width), np.uint16)
        return self.lane.rows_GW
