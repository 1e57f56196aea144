"""Rows of features rounded to what the hardware multiplies fastest, and how much the rounding took from them, compiled.

Each kernel reads its rows once, where they lie: it gathers, rounds, measures and checks them in one pass.
bfloat16 is float32 without its lower half; a half-precision number is rebuilt from its bits, because numba has no such
type on a CPU, and 2^112 moves its exponent into place, subnormal numbers too. Every step on bits is cast back to 32:
numba widens it to 64, and half as many numbers are then taken at once.

Legend: N rows, D dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from harness.types import Bools, Floats, Ints

SMALLEST = 2.0**-126
"""Values nearer to zero are taken for zero, as matrix units do; what that takes is part of the residual."""
LARGEST = 2.0**55
"""Larger values are taken for zero as well: so no sum of products leaves float32. Their rows are scored exactly."""

_HALF_TO_SINGLE = np.float32(2.0**112)
_FAST = {"reassoc", "contract"}


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)  # type: ignore[untyped-decorator]
def halves_to_bf16(
    source: NDArray[np.uint16],
    rows: Ints,
    out: NDArray[np.uint16],
    offset: int,
    squares: Floats,
    residuals: Floats,
    is_wrong: Bools,
) -> None:
    """Round rows of half-precision numbers to bfloat16.

    Args:
        source: (M, D) uint16, bits of float16.
        rows: (N,) int64, rows of the source.
        out: (N, W) uint16, bits of bfloat16; D of its columns are filled.
        offset: the first of them.
        squares: (N,) float64, is filled: the squared length of each row.
        residuals: (N,) float64, is filled: the squared length of what was rounded away.
        is_wrong: (N,) bool, is filled: some number of the row is not finite.
    """
    for place in range(len(rows)):
        line = source[rows[place]]
        target = out[place, offset : offset + len(line)]
        square, residual, largest = np.float32(0), np.float32(0), np.uint32(0)
        for column in range(len(line)):
            half = np.uint32(line[column])
            magnitude = np.uint32(half & np.uint32(0x7FFF))
            largest = max(largest, magnitude)
            value = np.uint32(magnitude << np.uint32(13)).view(np.float32) * _HALF_TO_SINGLE
            bits = np.float32(value).view(np.uint32)
            odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
            rounded = np.uint32(np.uint32(np.uint32(bits + np.uint32(0x7FFF)) + odd) & np.uint32(0xFFFF0000))
            sign = np.uint32(half & np.uint32(0x8000))
            target[column] = np.uint16(np.uint32(rounded >> np.uint32(16)) | sign)
            rest = value - rounded.view(np.float32)
            square += value * value
            residual += rest * rest
        squares[place], residuals[place] = square, residual
        is_wrong[place] = largest >= np.uint32(0x7C00)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)  # type: ignore[untyped-decorator]
def floats_to_bf16(
    source: NDArray[Any],
    rows: Ints,
    weight: float,
    out: NDArray[np.uint16],
    offset: int,
    squares: Floats,
    residuals: Floats,
) -> None:
    """Round rows of float32 or float64, times a weight, to bfloat16; arguments as for `halves_to_bf16`."""
    for place in range(len(rows)):
        line = source[rows[place]]
        target = out[place, offset : offset + len(line)]
        square, residual = 0.0, 0.0
        for column in range(len(line)):
            value = weight * np.float64(line[column])
            fits = (abs(value) >= SMALLEST) & (abs(value) <= LARGEST)
            bits = np.float32(value if fits else 0.0).view(np.uint32)
            odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
            rounded = np.uint32(np.uint32(np.uint32(bits + np.uint32(0x7FFF)) + odd) & np.uint32(0xFFFF0000))
            target[column] = np.uint16(np.uint32(rounded >> np.uint32(16)))
            rest = value - np.float64(rounded.view(np.float32))
            square += value * value
            residual += rest * rest
        squares[place], residuals[place] = square, residual


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)  # type: ignore[untyped-decorator]
def halves_to_single(
    source: NDArray[np.uint16],
    rows: Ints,
    out: NDArray[np.float32],
    offset: int,
    squares: Floats,
    is_wrong: Bools,
) -> None:
    """Rows of half-precision numbers as float32, which takes nothing; arguments as for `halves_to_bf16`."""
    for place in range(len(rows)):
        line = source[rows[place]]
        target = out[place, offset : offset + len(line)]
        square, largest = np.float32(0), np.uint32(0)
        for column in range(len(line)):
            half = np.uint32(line[column])
            magnitude = np.uint32(half & np.uint32(0x7FFF))
            largest = max(largest, magnitude)
            value = np.uint32(magnitude << np.uint32(13)).view(np.float32) * _HALF_TO_SINGLE
            bits = np.uint32(np.float32(value).view(np.uint32) | np.uint32(np.uint32(half & np.uint32(0x8000)) << 16))
            target[column] = np.uint32(bits).view(np.float32)
            square += value * value
        squares[place] = square
        is_wrong[place] = largest >= np.uint32(0x7C00)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)  # type: ignore[untyped-decorator]
def floats_to_single(
    source: NDArray[Any],
    rows: Ints,
    weight: float,
    out: NDArray[np.float32],
    offset: int,
    squares: Floats,
    residuals: Floats,
) -> None:
    """Round rows of float32 or float64, times a weight, to float32; arguments as for `halves_to_bf16`."""
    for place in range(len(rows)):
        line = source[rows[place]]
        target = out[place, offset : offset + len(line)]
        square, residual = 0.0, 0.0
        for column in range(len(line)):
            value = weight * np.float64(line[column])
            fits = (abs(value) >= SMALLEST) & (abs(value) <= LARGEST)
            rounded = np.float32(value if fits else 0.0)
            target[column] = rounded
            rest = value - np.float64(rounded)
            square += value * value
            residual += rest * rest
        squares[place], residuals[place] = square, residual


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)  # type: ignore[untyped-decorator]
def pair_products(
    queries: NDArray[Any],
    gallery: NDArray[Any],
    query_rows: Ints,
    gallery_rows: Ints,
    weight: float,
    totals: Floats,
) -> None:
    """Add a model's weighted float64 inner product to each pair's total.

    Every pair is summed by the same instructions, so equal rows get equal values wherever they stand.

    Args:
        queries: (Q, D) float32 or float64.
        gallery: (G, D) float32 or float64.
        query_rows: (P,) int64.
        gallery_rows: (P,) int64.
        weight: of the model.
        totals: (P,) float64, is added to.
    """
    for pair in range(len(query_rows)):
        query, answer = queries[query_rows[pair]], gallery[gallery_rows[pair]]
        total = 0.0
        for column in range(len(query)):
            total += np.float64(query[column]) * np.float64(answer[column])
        totals[pair] += weight * total
