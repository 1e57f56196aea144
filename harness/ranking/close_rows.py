"""Rows that may be among the nearest of each, told from all products in bfloat16 at once; compiled.

Legend: N rows, K neighbours of a row, P pairs.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from harness.ranking.reciprocal import Ints32, room_ints
from harness.types import Floats, Ints

_STRIDES = 16
_ROUNDING = np.float32(2.0**-8.9)  # of a product to bfloat16, and of what is done with it in float32


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _keep_large(best: NDArray[np.float32], value: float) -> None:
    """Put a value among the largest ones, which descend."""
    seat = len(best) - 1
    if value > best[seat]:
        while seat > 0 and best[seat - 1] < value:
            best[seat] = best[seat - 1]
            seat -= 1
        best[seat] = value


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"nnan", "nsz"})  # type: ignore[untyped-decorator]
def find_close(
    bits: NDArray[np.uint16], added: NDArray[np.float32], errors: Floats, count: int, start: int, stop: int
) -> tuple[Ints, Ints32, Ints, Ints32]:
    """The columns that may be among the largest of some rows, and those that may be the smallest.

    Args:
        bits: (N, N) products, bits of bfloat16.
        added: (N,) float32, what is added to each column.
        errors: (N,) float64, how far a product of the row may be off before it was rounded to bfloat16.
        count: K, at most N.
        start: first row to do.
        stop: the one after the last.

    Returns:
        Lengths (stop - start,) and columns of the largest; the same of the smallest.
    """
    num_rows = bits.shape[1]
    reach = -(-num_rows // _STRIDES)
    words = np.zeros(_STRIDES * reach, np.uint32)
    offsets = np.zeros(len(words), np.float32)
    offsets[:num_rows] = added
    lower, upper = np.empty(len(words), np.float32), np.empty(len(words), np.float32)
    most, most_upper, least = np.empty(reach, np.float32), np.empty(reach, np.float32), np.empty(reach, np.float32)
    least_upper, best = np.empty(reach, np.float32), np.empty(count, np.float32)
    high_lengths, low_lengths = np.zeros(stop - start, np.int64), np.zeros(stop - start, np.int64)
    high = np.empty(2 * count * (stop - start), np.int32)
    low = np.empty(16 * (stop - start), np.int32)
    high_end, low_end = 0, 0
    for row in range(start, stop):
        row_bits = bits[row]
        for column in range(num_rows):
            words[column] = np.uint32(row_bits[column]) << np.uint32(16)
        floats = words.view(np.float32)
        error = np.float32(errors[row] * (1 + 1e-6))
        for column in range(len(words)):
            value = floats[column] + offsets[column]
            margin = error + _ROUNDING * (abs(floats[column]) + abs(offsets[column]))
            lower[column], upper[column] = value - margin, value + margin
        lower[num_rows:], upper[num_rows:] = np.inf, -np.inf  # never among the smallest, never among the largest
        # Of every reach-th column together the extremes: most of them need no second look.
        most[:], most_upper[:], least[:] = -np.inf, -np.inf, np.inf
        least_upper[:] = np.inf
        for stride in range(0, num_rows, reach):
            some_lower, some_upper = lower[stride : stride + reach], upper[stride : stride + reach]
            for place in range(reach):
                most_upper[place] = max(most_upper[place], some_upper[place])
                least[place] = min(least[place], some_lower[place])
            for place in range(min(reach, num_rows - stride)):
                most[place] = max(most[place], some_lower[place])
                least_upper[place] = min(least_upper[place], some_upper[place])
        smallest = least_upper.min()
        # The K-th largest of these extremes is at most the K-th largest of all.
        best[:] = -np.inf
        for place in range(reach):
            _keep_large(best, most[place])
        first_limit = best[count - 1]
        best[:] = -np.inf
        for place in range(reach):
            if most[place] >= first_limit:
                for column in range(place, num_rows, reach):
                    _keep_large(best, lower[column])
        limit = best[count - 1]
        high, low = room_ints(high, high_end + num_rows), room_ints(low, low_end + num_rows)
        first_high, first_low = high_end, low_end
        for place in range(reach):
            if most_upper[place] >= limit:
                for column in range(place, num_rows, reach):
                    high[high_end] = column
                    high_end += upper[column] >= limit
            if least[place] <= smallest:
                for column in range(place, num_rows, reach):
                    low[low_end] = column
                    low_end += lower[column] <= smallest
        high_lengths[row - start], low_lengths[row - start] = high_end - first_high, low_end - first_low
    return high_lengths, high[:high_end].copy(), low_lengths, low[:low_end].copy()


@njit(cache=True, nogil=True, error_model="numpy", inline="always")  # type: ignore[untyped-decorator]
def _is_before(value: float, column: int, other_value: float, other_column: int) -> bool:
    return value > other_value or (value == other_value and column < other_column)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def keep_largest(starts: Ints, columns: Ints, values: Floats, start: int, stop: int, ids: Ints, best: Floats) -> None:
    """The largest values of some rows, descending, equal ones by ascending column.

    Args:
        starts: (N + 1,) int64.
        columns: (P,) int64.
        values: (P,) float64.
        start: first row to do.
        stop: the one after the last.
        ids: (N, K) int64, is filled with columns.
        best: (N, K) float64, is filled with values.
    """
    count = ids.shape[1]
    for row in range(start, stop):
        held = 0
        for place in range(starts[row], starts[row + 1]):
            value = values[place]
            column = columns[place]
            if held == count and _is_before(best[row, count - 1], ids[row, count - 1], value, column):
                continue
            seat = min(held, count - 1)
            while seat > 0 and not _is_before(best[row, seat - 1], ids[row, seat - 1], value, column):
                best[row, seat], ids[row, seat] = best[row, seat - 1], ids[row, seat - 1]
                seat -= 1
            best[row, seat], ids[row, seat] = value, column
            held = min(held + 1, count)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def keep_smallest(starts: Ints, values: Floats, smallest: Floats) -> None:
    """The smallest value of each row, which has at least one, into ``smallest`` (N,) float64."""
    for row in range(len(smallest)):
        smallest[row] = values[starts[row] : starts[row + 1]].min()
