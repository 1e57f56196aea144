"""Blocks of rows of several models side by side, rounded for the products, with what the rounding took.

Legend: N rows of a block, M models, D dimensions of a model, W columns of a block.

Source of the bound: |<a, b> - <a', b'>| <= |a - a'| |b'| + |a| |b - b'| (Cauchy and Schwarz), summed over the models,
and n products summed in float32 in any order are off by at most n u / (1 - n u) times the sum of their magnitudes
(N. Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.ranking.rows import FeatureRows, place
from harness.ranking.search import rounding
from harness.ranking.search.exact import Workers, as_floats, lying
from harness.types import Bools, Floats, InputError, Ints

CPU_UNIT = 2.0**-24
"""Of a float32 addition that rounds to nearest."""
GPU_UNIT = 2.0**-22
"""Of an addition in a matrix unit of a GPU, which cuts off instead, several products at once (M. Fasi et al. 2021,
Numerical behavior of NVIDIA tensor cores); doubled once more, because not every unit has been examined."""

Side = Literal["queries", "gallery"]


@dataclass(frozen=True, eq=False)
class Lengths:
    """How long the rows of a block are, and how long what was rounded away; none is too small.

    Attributes:
        whole: (N, M) float64, the length of each row as it was given.
        lost: (N, M) float64, the length of what its rounding took.
    """

    whole: Floats
    lost: Floats

    def longest(self) -> Lengths:
        """The largest of all rows (1, M)."""
        return Lengths(self.whole.max(axis=0, keepdims=True), self.lost.max(axis=0, keepdims=True))


def error_bound(queries: Lengths, gallery: Lengths, num_terms: int, unit: float) -> Floats:
    """How far a product of rounded rows may be from the exact one, for each query and any gallery row of a block (N,).

    Args:
        queries: N rows.
        gallery: the longest rows of the block, one row.
        num_terms: roundings in a row that a sum may meet: products and partial sums.
        unit: of each.
    """
    held = gallery.whole[0] + gallery.lost[0]
    with np.errstate(invalid="ignore", over="ignore"):
        bound = queries.lost @ held + queries.whole @ gallery.lost[0]
        bound += growth(num_terms, unit) * ((queries.whole + queries.lost) @ held)
        bound = bound * (1 + 1e-6) + num_terms * 2.0**-120  # what is smaller than float32 can hold
    return np.where(np.isnan(bound), np.inf, bound)  # no length times one that left the range


def growth(num_terms: int, unit: float) -> float:
    """By how much of the sum of magnitudes a sum may be off; infinite where nothing can be said."""
    return num_terms * unit / (1 - num_terms * unit) if num_terms * unit < 0.5 else float("inf")


def rounded_block(
    parts: Sequence[FeatureRows],
    rows: Ints,
    scale: Floats | None,
    out: NDArray[Any],
    side: Side,
    workers: Workers,
) -> Lengths:
    """Fill a block with rows of all models side by side.

    Args:
        parts: the features, one (., D) a model.
        rows: (N,) int64.
        scale: what each model is multiplied by; None for nothing.
        out: (N, W), uint16 for bits of bfloat16 or float32; the first columns are filled.
        side: what the rows are, for messages.
        workers: threads.

    Returns:
        The lengths.

    Raises:
        InputError: a row is not finite or has no direction.
    """
    whole, lost = np.empty((len(rows), len(parts))), np.empty((len(rows), len(parts)))
    offset = 0
    for model, part in enumerate(parts):
        weight = 1.0 if scale is None else float(scale[model])
        squares, residuals = np.empty(len(rows)), np.zeros(len(rows))
        is_wrong = np.zeros(len(rows), bool)
        array, places = lying(part, rows)
        if array.dtype == np.float16 and weight != 1.0:
            array, places = as_floats(part, rows, workers), np.arange(len(rows))
        fill = _filler(array, places, weight, out, offset, squares, residuals, is_wrong)
        workers.spread(len(rows), fill)
        if array.dtype != np.float16:
            for row in np.flatnonzero(~np.isfinite(squares)):  # it may only be very long
                is_wrong[row] = not np.isfinite(array[places[row]]).all()
        dimensions = array.shape[1]
        refuse_rows(part, rows, squares, is_wrong, dimensions, side)
        whole[:, model], lost[:, model] = (upper_length(each, dimensions) for each in (squares, residuals))
        offset += dimensions
    return Lengths(whole, lost)


def _filler(
    array: NDArray[Any],
    places: Ints,
    weight: float,
    out: NDArray[Any],
    offset: int,
    squares: Floats,
    residuals: Floats,
    is_wrong: Bools,
) -> Any:
    is_bf16, is_half = out.dtype == np.uint16, array.dtype == np.float16
    source = array.view(np.uint16) if is_half else array

    def fill(start: int, end: int) -> None:
        part = slice(start, end)
        if is_half and is_bf16:
            rounding.halves_to_bf16(
                source, places[part], out[part], offset, squares[part], residuals[part], is_wrong[part]
            )
        elif is_half:
            rounding.halves_to_single(source, places[part], out[part], offset, squares[part], is_wrong[part])
        elif is_bf16:
            rounding.floats_to_bf16(source, places[part], weight, out[part], offset, squares[part], residuals[part])
        else:
            rounding.floats_to_single(source, places[part], weight, out[part], offset, squares[part], residuals[part])

    return fill


def upper_length(squares: Floats, dimensions: int) -> Floats:
    """Lengths from squares that were summed in float32: never too small, though sums round and small squares vanish."""
    slack = 1 + 4 * dimensions * CPU_UNIT
    return np.asarray(np.sqrt(squares) * slack + np.sqrt(dimensions) * 2.0**-62)


def refuse_rows(part: FeatureRows, rows: Ints, squares: Floats, is_wrong: Bools, dimensions: int, side: Side) -> None:
    """Raise `InputError` for the first row that is not finite, or all zeros in more than one dimension."""
    wrong = np.flatnonzero(is_wrong | (squares == 0)) if dimensions > 1 else np.flatnonzero(is_wrong)
    for row in wrong:
        where = place(part, int(rows[row]), side)
        if is_wrong[row]:
            raise InputError(f"{where} is not finite: expected {dimensions} numbers; make these features again")
        if not np.asarray(part[rows[row : row + 1]]).any():  # a very short row is no zero
            raise InputError(
                f"{where} is all zeros, which has no direction: expected a feature of length 1; make these features "
                "again, or leave that box out"
            )
