"""Rows that may be among the nearest of each, told from their products in bfloat16; compiled.

Rounding to bfloat16 never turns the order of two numbers round, and it has few values: so the products of a row are
compared as the integers that their bits are, and one number a row tells which of them may be among the largest.

Let s be the exact numbers of a row, f what the hardware sums in float32, |f - s| <= e, v those rounded to bfloat16, and
S, F, V the K-th largest of each; |F - S| <= e then. Whatever is among the K largest has s >= S, hence
f >= s - e >= S - e >= F - 2e. F is at least the middle M between V and the bfloat16 below it, since it was rounded to
V; and as rounding keeps the order, v is at least M - 2e rounded. The same holds upside down for the smallest.

Legend: N rows, B rows of a band of them, K neighbours of a row, P pairs.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from harness.ranking.reranking.encoding import with_room
from harness.types import Floats, Ints

Ints16 = NDArray[np.int16]

_STRIDES = 16
_LEAST, _MOST = -(2**15), 2**15 - 1


@njit(cache=True, nogil=True, error_model="numpy", inline="always")  # type: ignore[untyped-decorator]
def _ordered(bits: Ints16, keys: Ints16) -> None:
    """Integers in the order of the bfloat16 numbers of the bits: the magnitude with its sign, so -0 and 0 are equal."""
    for column in range(len(bits)):
        sign = np.int16(bits[column] >> np.int16(15))
        keys[column] = np.int16((np.int16(bits[column] & np.int16(0x7FFF)) ^ sign) - sign)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _rank(keys: Ints16, count: int, least: int) -> int:
    """The ``count``-th largest of at most 2^15 - 1 keys, where it is ``least`` or more; ``least`` otherwise."""
    low, high = least, _MOST
    while low < high:
        middle = (low + high + 1) >> 1
        limit, num_reaching = np.int16(middle), np.int16(0)  # of 16 bits, as vectors of many numbers want it
        for place in range(len(keys)):
            num_reaching = np.int16(num_reaching + np.int16(keys[place] >= limit))
        if num_reaching >= count:
            low = middle
        else:
            high = middle - 1
    return low


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _limit(key: int, slack: float) -> int:
    """The key of what may have been ``slack`` less than a number that was rounded to ``key``, rounded likewise.

    Halves are rounded down and one bit more is taken off, for the float32 that the difference is brought to.
    """
    middle = (key << 16) - (1 << 15)
    magnitude = np.uint32(abs(middle)).view(np.float32)
    lower = np.float32((-magnitude if middle < 0 else magnitude) - slack)
    bits = np.int64(np.float32(abs(lower)).view(np.uint32))
    return int((-bits if lower < 0 else bits) - 1 + 0x7FFF) >> 16


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def find_close(bits: Ints16, errors: Floats, count: int) -> tuple[Ints, Ints, Ints, Ints]:
    """The columns that may be among the largest of some rows, and those that may be the smallest.

    Args:
        bits: (B, N) int16, products as bits of bfloat16; N is below 2^15.
        errors: (B,) float64, how far a product of the row may be off before it was rounded to bfloat16.
        count: K, at most N.

    Returns:
        Where the largest of each row start (B + 1,), and their columns; the same of the smallest; all int64.
    """
    num_rows, num_columns = bits.shape
    reach = -(-num_columns // _STRIDES)
    keys = np.empty(num_columns, np.int16)
    most, least = np.empty(reach, np.int16), np.empty(reach, np.int16)
    chosen = np.empty(reach + 1, np.int64)
    places, held = np.empty(num_columns + 1, np.int64), np.empty(num_columns + 1, np.int16)
    high_starts, low_starts = np.zeros(num_rows + 1, np.int64), np.zeros(num_rows + 1, np.int64)
    high, low = np.empty(2 * count * num_rows, np.int64), np.empty(8 * num_rows, np.int64)
    high_end, low_end = 0, 0
    for row in range(num_rows):
        _ordered(bits[row], keys)
        # Of every reach-th column together the extremes: most of them need no second look.
        most[:], least[:] = _LEAST, _MOST
        for stride in range(0, num_columns, reach):
            some = keys[stride : min(stride + reach, num_columns)]
            for place in range(len(some)):
                most[place] = max(most[place], some[place])
                least[place] = min(least[place], some[place])
        slack = 2 * errors[row]
        # The K-th largest of these extremes is at most the K-th largest of all.
        first = _rank(most, count, _LEAST)
        limit = np.int16(_limit(first, slack) if first > _LEAST else _LEAST)
        num_chosen = 0
        for place in range(reach):
            chosen[num_chosen] = place
            num_chosen += most[place] >= limit
        num_held = 0
        for seat in range(num_chosen):
            for column in range(chosen[seat], num_columns, reach):
                places[num_held], held[num_held] = column, keys[column]
                num_held += keys[column] >= limit
        last = _limit(_rank(held[:num_held], count, first), slack)
        high = with_room(high, high_end + num_held + 1)
        for place in range(num_held):
            high[high_end] = places[place]
            high_end += held[place] >= last
        last = -_limit(-least.min(), slack)
        low = with_room(low, low_end + num_columns + 1)
        for place in range(reach):
            if least[place] <= last:
                for column in range(place, num_columns, reach):
                    low[low_end] = column
                    low_end += keys[column] <= last
        high_starts[row + 1], low_starts[row + 1] = high_end, low_end
    return high_starts, high[:high_end].copy(), low_starts, low[:low_end].copy()


@njit(cache=True, nogil=True, error_model="numpy", inline="always")  # type: ignore[untyped-decorator]
def _is_before(value: float, column: int, other_value: float, other_column: int) -> bool:
    return value > other_value or (value == other_value and column < other_column)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def keep_largest(starts: Ints, columns: Ints, values: Floats, ids: Ints, best: Floats) -> None:
    """The largest values of each row, descending, equal ones by ascending column.

    Args:
        starts: (B + 1,) int64.
        columns: (P,) int64.
        values: (P,) float64.
        ids: (B, K) int64, is filled with columns.
        best: (B, K) float64, is filled with values.
    """
    num_rows, count = ids.shape
    for row in range(num_rows):
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
    """The smallest value of each row, which has at least one, into ``smallest`` (B,) float64."""
    for row in range(len(smallest)):
        smallest[row] = values[starts[row] : starts[row + 1]].min()
