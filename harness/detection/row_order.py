"""Rows in the order of their keys, compiled: a sort of few numbers that is called often."""

from __future__ import annotations

import numpy as np
from numba import njit

from harness.types import Floats, Ints

_RUN = 64
"""Boxes up to which counting sorts faster than merging."""


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def sort_rows(rows: Ints, keys: Floats, count: int, space: Ints) -> bool:
    """Put the first ``count`` rows in descending order of their keys, equal ones as they were; True if any are."""
    near = np.empty(_RUN, np.float64)
    ranks = np.empty(_RUN, np.int64)
    for low in range(0, count, _RUN):
        size = min(_RUN, count - low)
        for place in range(size):
            near[place] = keys[rows[low + place]]
            space[low + place] = -1
        # Counting the larger ones takes more steps than insertion, but none that a processor has to guess.
        for place in range(size):
            key, rank = near[place], 0
            for other in range(size):
                rank += near[other] > key
            ranks[place] = rank
        for place in range(size):
            rank = ranks[place]
            while space[low + rank] >= 0:
                rank += 1
            space[low + rank] = rows[low + place]
    source, target = space, rows
    width = _RUN
    while width < count:
        for low in range(0, count, 2 * width):
            middle, high = min(low + width, count), min(low + 2 * width, count)
            left, right = low, middle
            for place in range(low, high):
                if left < middle and (right >= high or keys[source[left]] >= keys[source[right]]):
                    target[place] = source[left]
                    left += 1
                else:
                    target[place] = source[right]
                    right += 1
        source, target = target, source
        width *= 2
    tied = False
    for place in range(count):
        rows[place] = source[place]
        if place > 0:
            tied |= keys[source[place]] == keys[source[place - 1]]
    return tied
