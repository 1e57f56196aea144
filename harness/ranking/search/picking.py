"""Picking the products in bfloat16 that may matter out of a block that lies gallery row by gallery row, compiled.

What passes is listed without a lock, by each lane of its own block, and handed over to the candidates of all.

Legend: Q queries, G gallery rows of a block, P products that passed, C candidates of a query at most.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from harness.ranking.search.candidates import CHUNK, lowest_product, shrink
from harness.types import Floats, Ints

BF16_STEP = 2.0**-7
"""The most that rounding to bfloat16 moves a number by, in parts of it; twice what rounding to nearest does."""


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def thresholds(floors: Floats, shifts: Floats, errors: Floats) -> NDArray[np.float32]:
    """The lowest product in bfloat16 of each query, times the sign, that may reach the floor (Q,).

    Args:
        floors: (Q,) float64.
        shifts: (Q,) float64, what was taken from each product, times the sign.
        errors: (Q,) float64.
    """
    lowest = np.empty(len(floors), np.float32)
    for query in range(len(floors)):
        lowest[query] = lowest_product(floors[query], shifts[query], errors[query], BF16_STEP)
    return lowest


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def pick(
    bits: NDArray[np.uint16],
    start: int,
    lowest: NDArray[np.float32],
    sign: float,
    rows: NDArray[np.int32],
    queries: NDArray[np.int32],
    values: NDArray[np.float32],
) -> tuple[int, int]:
    """List the products of a block that pass, gallery row by gallery row, as long as a whole row of them fits.

    Args:
        bits: (G, Q) uint16, bits of bfloat16.
        start: the row to begin with.
        lowest: (Q,) float32, what passes, times the sign.
        sign: 1 for the largest, -1 for the smallest.
        rows: (P,) int32, is filled, and so are those that follow; P at least Q.
        queries: (P,) int32.
        values: (P,) float32, the products.

    Returns:
        The row to go on from, and how many were listed.
    """
    num_rows, num_queries = bits.shape
    side, found, row = np.float32(sign), 0, start
    while row < num_rows and found + num_queries <= len(rows):
        for begin in range(0, num_queries, CHUNK):
            some, against = bits[row, begin : begin + CHUNK], lowest[begin : begin + CHUNK]
            passing = 0
            for place in range(len(some)):
                value = np.uint32(np.uint32(some[place]) << np.uint32(16)).view(np.float32)
                passing += not (side * value < against[place])
            if passing == 0:
                continue
            for place in range(len(some)):
                value = np.uint32(np.uint32(some[place]) << np.uint32(16)).view(np.float32)
                if not (side * value < against[place]):
                    rows[found], queries[found], values[found] = row, begin + place, value
                    found += 1
        row += 1
    return row, found


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def add(
    start: int,
    end: int,
    rows: NDArray[np.int32],
    queries: NDArray[np.int32],
    values: NDArray[np.float32],
    shifts: Floats,
    errors: Floats,
    sign: float,
    first_id: int,
    keep: int,
    floors: Floats,
    lower: Floats,
    upper: Floats,
    ids: Ints,
    counts: Ints,
) -> int:
    """Keep what passes of listed products in bfloat16; arguments as for `candidates.scan`, but for these.

    Args:
        start: the first of them.
        end: one past the last.
        rows: (P,) int32, rows of the block.
        queries: (P,) int32.
        values: (P,) float32, the products.
        shifts: (Q,) float64, what was taken from each.
        errors: as for `candidates.scan`, and so are those that follow.

    Returns:
        The end, or that whose candidate did not fit any more.
    """
    capacity = lower.shape[1]
    for place in range(start, end):
        query, value = queries[place], sign * np.float64(values[place])
        middle, reach = sign * shifts[query] + value, errors[query] + BF16_STEP * abs(value)
        low, high = middle - reach, middle + reach
        count = counts[query]
        if high < floors[query]:
            continue
        if count == capacity:
            count, floors[query] = shrink(keep, lower[query], upper[query], ids[query], count, floors[query])
            counts[query] = count
            if count > capacity - capacity // 4:
                return place
            if high < floors[query]:
                continue
        lower[query, count] = low if low == low else -np.inf
        upper[query, count] = high if high == high else np.inf
        ids[query, count] = first_id + rows[place]
        counts[query] = count + 1
    return end
