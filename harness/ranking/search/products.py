"""Blocks of products by torch, and the choice of those that matter: on the CPU, or on a GPU.

Legend: Q queries of a block, G gallery rows of a block, W columns: the dimensions of all models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from harness.ranking.rows import FeatureRows
from harness.ranking.search.blocks import CPU_UNIT, GPU_UNIT, Lengths, Side, error_bound, refuse_rows, rounded_block
from harness.ranking.search.exact import Workers, lying
from harness.ranking.search.planning import SearchPlan
from harness.ranking.search.pool import Pool
from harness.types import Floats, Ints

_SUMMED_AT_ONCE = {"cpu": 2048, "cuda": 4096}  # columns of a product: more make the bound on their sum loose
_MASKED_AT_ONCE = 1 << 27  # products that are compared at once on a GPU
_FIRST_LOOK = 16384  # gallery rows that the first floor is taken from on a GPU


class HostProducts:
    """Products on the CPU in float32, scanned where they were made.

    Args:
        parts: queries and gallery, one array a model each.
        scale: (M,) float64, what each model's queries are multiplied by.
        plan: of the search.
        workers: threads.
    """

    def __init__(
        self,
        parts: tuple[Sequence[FeatureRows], Sequence[FeatureRows]],
        scale: Floats,
        plan: SearchPlan,
        workers: Workers,
    ) -> None:
        self.parts, self.scale, self.plan, self.workers = parts, scale, plan, workers
        self.query_QW = np.zeros((plan.query_rows, plan.width), np.float32)
        self.rows_GW = np.zeros((plan.gallery_rows, plan.width), np.float32)
        self.products = np.empty(plan.query_rows * plan.gallery_rows, np.float32)

    def ask(self, rows: Ints) -> None:
        """Make the products of these queries from now on."""
        self.query_lengths = rounded_block(
            self.parts[0], rows, self.scale, self.query_QW[: len(rows)], "queries", self.workers
        )
        self.num_queries = len(rows)

    def offer(self, start: int, end: int, pools: Sequence[Pool]) -> None:
        """Let pools take what they need of the products with the gallery rows ``start`` to ``end``."""
        rows_GW = self.rows_GW[: end - start]
        lengths = rounded_block(self.parts[1], np.arange(start, end), None, rows_GW, "gallery", self.workers)
        products = self.products[: self.num_queries * (end - start)].reshape(self.num_queries, end - start)
        chunk = _SUMMED_AT_ONCE["cpu"]
        num_terms = chunk + -(-self.plan.width // chunk) + 8
        errors = error_bound(self.query_lengths, lengths.longest(), num_terms, CPU_UNIT)
        query, answers, out = (
            torch.from_numpy(each) for each in (self.query_QW[: self.num_queries], rows_GW, products)
        )
        torch.mm(query[:, :chunk], answers[:, :chunk].T, out=out)
        for column in range(chunk, self.plan.width, chunk):
            columns = slice(column, column + chunk)
            out.addmm_(query[:, columns], answers[:, columns].T)
        for pool in pools:
            pool.scan(products, errors, start)


class DeviceProducts:
    """Products on a GPU, of which only those that matter come to the host.

    The gallery's blocks stay on the device as far as they fit. Half-precision features are multiplied as they are
    stored, so that only the sums round.

    Args:
        parts: queries and gallery, one array a model each.
        scale: (M,) float64, what each model's queries are multiplied by.
        plan: of the search.
        device: torch's name.
        keep_bytes: of gallery blocks that may stay on the device.
    """

    def __init__(
        self,
        parts: tuple[Sequence[FeatureRows], Sequence[FeatureRows]],
        scale: Floats,
        plan: SearchPlan,
        device: str,
        keep_bytes: int,
    ) -> None:
        self.parts, self.scale, self.plan, self.device = parts, scale, plan, torch.device(device)
        self.dtype = {"16": torch.float16, "bf16": torch.bfloat16, "32": torch.float32}[plan.precision]
        self.left_bytes = keep_bytes
        self.kept: dict[int, tuple[torch.Tensor, Lengths]] = {}

    def ask(self, rows: Ints) -> None:
        """Make the products of these queries from now on."""
        self.query_QW, self.query_lengths = self._load(self.parts[0], rows, self.scale, "queries")

    def offer(self, start: int, end: int, pools: Sequence[Pool]) -> None:
        """Let pools take what they need of the products with the gallery rows ``start`` to ``end``."""
        rows_GW, longest = self._gallery(start, end)
        products = self._multiply(rows_GW)
        chunk = _SUMMED_AT_ONCE["cuda"]
        num_terms = chunk + -(-self.plan.width // chunk) + 8
        errors = error_bound(self.query_lengths, longest, num_terms, GPU_UNIT)
        for pool in pools:
            self._choose(products if pool.sign > 0 else -products, pool, errors, start)

    def _gallery(self, start: int, end: int) -> tuple[torch.Tensor, Lengths]:
        if start in self.kept:
            return self.kept[start]
        rows_GW, lengths = self._load(self.parts[1], np.arange(start, end), None, "gallery")
        block = rows_GW, lengths.longest()
        size = rows_GW.numel() * rows_GW.element_size()
        if size <= self.left_bytes:
            self.left_bytes -= size
            self.kept[start] = block
        return block

    def _load(
        self, parts: Sequence[FeatureRows], rows: Ints, scale: Floats | None, side: Side
    ) -> tuple[torch.Tensor, Lengths]:
        out = torch.zeros((len(rows), self.plan.width), dtype=self.dtype, device=self.device)
        whole, lost = np.empty((len(rows), len(parts))), np.empty((len(rows), len(parts)))
        offset = 0
        for model, part in enumerate(parts):
            array, places = lying(part, rows)
            values = torch.from_numpy(np.ascontiguousarray(array[places])).to(self.device)
            if scale is not None and scale[model] != 1:
                values = values.double() * float(scale[model])
            dimensions = values.shape[1]
            exact = values if values.dtype == torch.float64 else values.float()
            limit = min(torch.finfo(self.dtype).max / 2, 2.0**55)
            fits = (exact.abs() <= limit) & (exact.abs() >= 2.0**-126)
            rounded = torch.where(fits, exact, 0).to(self.dtype)
            out[:, offset : offset + dimensions] = rounded
            squares = exact.double().square().sum(dim=1).cpu().numpy()
            residuals = (exact - rounded.to(exact.dtype)).double().square().sum(dim=1).cpu().numpy()
            is_wrong = ~torch.isfinite(exact).all(dim=1).cpu().numpy()
            refuse_rows(part, rows, squares, is_wrong, dimensions, side)
            whole[:, model], lost[:, model] = np.sqrt(squares) * (1 + 1e-9), np.sqrt(residuals) * (1 + 1e-9)
            offset += dimensions
        return out, Lengths(whole, lost)

    def _multiply(self, rows_GW: torch.Tensor) -> torch.Tensor:
        chunk = _SUMMED_AT_ONCE["cuda"]
        total: torch.Tensor | None = None
        for column in range(0, self.plan.width, chunk):
            query, answers = self.query_QW[:, column : column + chunk], rows_GW[:, column : column + chunk].T
            if self.dtype == torch.float32 or self.device.type == "cpu":
                part = query.float() @ answers.float()
                total = part if total is None else total.add_(part)
            elif total is None:
                total = torch.mm(query, answers, out_dtype=torch.float32)
            else:
                total = torch.addmm(total, query, answers, out_dtype=torch.float32)
        assert total is not None
        return total

    def _choose(self, products: torch.Tensor, pool: Pool, errors: Floats, start: int) -> None:
        """Hand over what passes; ``products`` times the pool's sign."""
        if np.isinf(pool.floors).any() and products.shape[1] >= pool.keep:
            look = products[:, : max(_FIRST_LOOK, pool.keep)]
            found = torch.topk(look, pool.keep, dim=1).values[:, -1].double().cpu().numpy() - errors
            np.maximum(pool.floors, np.where(np.isnan(found), -np.inf, found), out=pool.floors)
        with np.errstate(invalid="ignore"):
            floors = pool.floors - errors
        lowest = torch.from_numpy(
            np.nextafter((floors - np.abs(floors) * 1e-6).astype(np.float32), np.float32(-np.inf))
        )
        lowest = lowest.to(self.device)
        counts, columns, values = [], [], []
        step = max(1, _MASKED_AT_ONCE // products.shape[1])
        for first in range(0, len(products), step):
            some = products[first : first + step]
            passes = ~(some < lowest[first : first + step, None])
            where = passes.nonzero()
            counts.append(passes.sum(dim=1).cpu().numpy())
            columns.append(where[:, 1].cpu().numpy())
            values.append(some[where[:, 0], where[:, 1]].cpu().numpy())
        bounds = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
        pool.take(bounds, np.concatenate(columns), pool.sign * np.concatenate(values), errors, start)


@contextmanager
def strict_products(num_threads: int) -> Iterator[None]:
    """Products of float32 in float32 and sums in float32, on a number of threads, and everything as before after."""
    cpu: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    cuda: Any = torch.backends.cuda.matmul
    before = (
        torch.get_num_threads(), cpu.fp32_precision, cuda.fp32_precision,
        cuda.allow_fp16_reduced_precision_reduction, cuda.allow_bf16_reduced_precision_reduction,
    )  # fmt: skip
    try:
        torch.set_num_threads(num_threads)
        cpu.fp32_precision = cuda.fp32_precision = "ieee"
        cuda.allow_fp16_reduced_precision_reduction = cuda.allow_bf16_reduced_precision_reduction = False
        yield
    finally:
        torch.set_num_threads(before[0])
        cpu.fp32_precision, cuda.fp32_precision = before[1:3]
        cuda.allow_fp16_reduced_precision_reduction, cuda.allow_bf16_reduced_precision_reduction = before[3:]
