"""The directions in which features vary most, of stacks too large to be held.

Three ways to the same answer: the covariance of the dimensions, the products of the rows where there are fewer of
them than dimensions, and a block Krylov subspace where only a small share of many directions is wanted. The first two
compute in float64 throughout; the third in float32, in as many passes over the rows as it needs.

Legend: N rows, D dimensions of all models together, d directions wanted, b columns of a Krylov block.

Sources: C. Musco, C. Musco 2015, "Randomized block Krylov methods for stronger and faster approximate singular value
decomposition"; G. Golub, R. Underwood 1977, "The block Lanczos method for computing eigenvalues".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from harness.ranking.rows import FeatureRows
from harness.ranking.stacks import block_rows, joined_blocks, refuse_row
from harness.types import Floats, InputError, Progress

if TYPE_CHECKING:
    import torch

KRYLOV_TOLERANCE = 1e-4
"""The Krylov passes end when one adds less than this share to the variance that the d directions hold."""

KRYLOV_LOOSE = 1e-2
"""The same where the basis has become as wide as it may: a larger gain is refused."""


EXACT_SIDE = 2048
"""Up to so many rows or dimensions everything is computed exactly: that takes a second."""

_LEAST_BLOCK = 16 << 20

Method = Literal["covariance", "products", "krylov"]


def choose_method(num_rows: int, width: int, wanted: int, room: int | None) -> Method:
    """How to compute d directions: exactly where that is quick, fits, or many of all directions are wanted.

    Args:
        num_rows: N.
        width: D.
        wanted: d.
        room: bytes that may be taken; None for as many as it needs.
    """
    side = min(num_rows, width)
    exact: Method = "products" if num_rows < width else "covariance"
    if side <= EXACT_SIDE or wanted * 3 > side:
        return exact
    fits = room is None or method_bytes(exact, num_rows, width, wanted) <= room
    return exact if fits and wanted * 8 > side else "krylov"


def method_bytes(method: Method, num_rows: int, width: int, wanted: int) -> int:
    """Bytes that a method takes beside the blocks that it reads, the result included; the arguments are as before."""
    result = 12 * width * wanted  # of the projection in double and in single precision
    if method == "krylov":
        # The basis and its image, and one of them again while it grows.
        columns = krylov_widest(wanted, width)
        return _LEAST_BLOCK + result + 12 * width * columns + 16 * columns * columns
    side = min(num_rows, width)
    # The symmetric matrix, its vectors, and twice as much for LAPACK's divide and conquer.
    held = 2 * num_rows * width if method == "products" else 0
    return _LEAST_BLOCK + result + 32 * side * side + held


def krylov_width(num_directions: int) -> int:
    """Columns of a block: half as many as wanted, so that the subspace grows in small steps, and enough to be fast."""
    return max(32, -(-num_directions // 2))


def krylov_widest(num_directions: int, dimensions: int) -> int:
    """Columns of the Krylov basis, at most: 3 to 4 times d where variances fall, twice that where they hardly do."""
    return min(max(8 * num_directions, 640), dimensions)


class Advance:
    """Counts rows read, and tells of them; a guess of the whole is mended when it was too low."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def __call__(self, num_rows: int) -> None:
        """So many rows more were read."""
        self._done += num_rows
        self._total = max(self._total, self._done)
        if self._progress is not None:
            self._progress(self._done, self._total)

    def end(self) -> None:
        """The whole is done, whatever the guess was."""
        if self._progress is not None:
            self._progress(self._done, self._done)


Components = tuple["torch.Tensor", "torch.Tensor", float]
"""Directions (D, d), the variances (d,) in them, descending, and the variance of all D dimensions."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows that a projection is fitted on.

    Attributes:
        parts: one (N, D_m) per model.
        weights: (M,).
        device: where to compute.
        memory_bytes: for blocks, beside what the method itself needs.
        advance: told of rows that were read.
    """

    parts: Sequence[FeatureRows]
    weights: Floats
    device: torch.device
    memory_bytes: int
    advance: Advance

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return len(self.parts[0]), sum(part.shape[1] for part in self.parts)


def mean_of(rows: Rows) -> torch.Tensor:
    """The mean row, (D,) float64.

    Raises:
        InputError: a row is not finite; the message names it.
    """
    import torch

    num_rows, dimensions = rows.shape
    total = torch.zeros(dimensions, dtype=torch.float64, device=rows.device)
    size = block_rows(4 * dimensions, rows.memory_bytes)
    for start, block in joined_blocks(rows.parts, rows.weights, size, rows.device, torch.float32):
        total += block.sum(dim=0)
        if not torch.isfinite(total).all():
            taken = np.arange(start, start + len(block))
            raise refuse_row(
                [("features", rows.parts, taken)],
                f"features: rows {start} to {taken[-1]} are too large for float32; bring them to length 1",
            )
        rows.advance(len(block))
    return total / num_rows


def by_covariance(rows: Rows, mean: torch.Tensor, num_directions: int) -> Components:
    """The components from the (D, D) covariance in float64."""
    import torch

    num_rows, dimensions = rows.shape
    covariance = torch.zeros((dimensions, dimensions), dtype=torch.float64, device=rows.device)
    size = block_rows(8 * dimensions, rows.memory_bytes)
    for _, block in joined_blocks(rows.parts, rows.weights, size, rows.device, torch.float64):
        block -= mean
        covariance.addmm_(block.T, block)
        rows.advance(len(block))
    covariance /= num_rows - 1
    total = float(covariance.trace())
    variances, directions = torch.linalg.eigh(covariance)
    return directions.flip(1)[:, :num_directions], variances.flip(0)[:num_directions].clamp_(min=0), total


def by_products(rows: Rows, mean: torch.Tensor, num_directions: int) -> Components:
    """The same from the (N, N) products of centred rows, for fewer rows than dimensions."""
    import torch

    num_rows, dimensions = rows.shape
    products = torch.zeros((num_rows, num_rows), dtype=torch.float64, device=rows.device)
    for _, columns in _centred_columns(rows, mean):
        products.addmm_(columns, columns.T)
        rows.advance(num_rows * columns.shape[1] // dimensions)
    total = float(products.trace()) / (num_rows - 1)
    values, vectors = torch.linalg.eigh(products)
    values, vectors = values.flip(0)[:num_directions].clamp_(min=0), vectors.flip(1)[:, :num_directions]
    lengths = values.sqrt()
    # Where nothing varies there is no length to divide by, and no direction to speak of.
    shares = torch.where(lengths > 1e-6 * lengths[0], 1 / lengths, 0.0)
    directions = torch.empty((dimensions, num_directions), dtype=torch.float64, device=rows.device)
    for first, columns in _centred_columns(rows, mean):
        directions[first : first + columns.shape[1]] = columns.T @ vectors * shares
    return directions, values / (num_rows - 1), total


def _centred_columns(rows: Rows, mean: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """All rows of some columns, float64, and the number of the first of them."""
    import torch

    first = 0
    for part, weight in zip(rows.parts, rows.weights, strict=True):
        values = torch.from_numpy(np.array(part[:]))
        for columns in torch.split(values, block_rows(8 * len(values), rows.memory_bytes), dim=1):
            centred = columns.to(rows.device, torch.float64) * float(np.sqrt(weight))
            yield first, centred - mean[first : first + columns.shape[1]]
            first += columns.shape[1]


def by_krylov(rows: Rows, mean: torch.Tensor, num_directions: int, seed: int) -> Components:
    """The same, nearly, for few directions of many dimensions: the best within a block Krylov subspace.

    Every pass multiplies one block of directions by the covariance, and the subspace grows by what is new in the
    product. It ends when a pass adds less than `KRYLOV_TOLERANCE` to the variance held. The variances returned are
    those that the rows have in the directions returned, and no two of these are correlated.

    Raises:
        InputError: the subspace became as wide as it may, and still gained.
    """
    import torch

    num_rows, dimensions = rows.shape
    width = krylov_width(num_directions)
    start = np.random.default_rng(seed).standard_normal((dimensions, width), np.float32)
    block = torch.linalg.qr(torch.from_numpy(start).to(rows.device)).Q
    product, total = _times_covariance(rows, mean, block)
    basis, image, held = block, product, 0.0
    while True:
        small = (basis.T @ image).double()
        variances, mix = torch.linalg.eigh((small + small.T) / 2)
        variances, mix = variances.flip(0)[:num_directions].clamp_(min=0), mix.flip(1)[:, :num_directions]
        before, held = held, float(variances.sum())
        gain = held - before
        is_widest = basis.shape[1] + width > krylov_widest(num_directions, dimensions)
        if is_widest and gain > KRYLOV_LOOSE * held:
            raise InputError(
                f"the {num_directions} directions in which {num_rows} rows vary most did not settle: the last of "
                f"{basis.shape[1] // width} passes over them added {gain / held:.1%} to their variance; ask for more "
                f"than an eighth of {min(num_rows, dimensions)}, which are computed exactly"
            )
        if is_widest or (basis.shape[1] > num_directions and gain <= KRYLOV_TOLERANCE * held):
            return basis @ mix.float(), variances, total
        block = product
        for _ in range(2):  # once leaves the rounding errors of large numbers behind
            block = torch.linalg.qr(block - basis @ (basis.T @ block)).Q
        product, _ = _times_covariance(rows, mean, block)
        basis, image = torch.cat([basis, block], dim=1), torch.cat([image, product], dim=1)


def _times_covariance(rows: Rows, mean: torch.Tensor, directions: torch.Tensor) -> tuple[torch.Tensor, float]:
    """(D, b) directions times the covariance, and the variance of all D dimensions, in one pass over the rows."""
    import torch

    num_rows, dimensions = rows.shape
    result = torch.zeros_like(directions)
    total = 0.0
    size = block_rows(4 * dimensions, rows.memory_bytes)
    single = mean.float()
    for _, block in joined_blocks(rows.parts, rows.weights, size, rows.device, torch.float32):
        block -= single
        result.addmm_(block.T, block @ directions)
        total += float(
            torch.linalg.vector_norm(block, dim=1).double().square().sum()
        )  # a row at a time: more float32 drifts
        rows.advance(len(block))
    return result / (num_rows - 1), total / (num_rows - 1)
