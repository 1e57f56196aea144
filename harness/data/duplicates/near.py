"""Pairs of 128-bit hashes that differ in few bits, without comparing all with all.

The hash is cut into 8 bands of 16 bits. Two hashes that differ in at most 7 bits have a band that does not differ, so
all of them are among the pairs that agree in some band: the search is exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.types import Ints, Progress

NUM_BANDS = 8
MAX_DISTANCE = NUM_BANDS - 1
"""Bits in which a near pair may differ."""

_CHUNK = 1 << 20


def near_pairs(hashes_N2: NDArray[np.uint64], *, progress: Progress | None = None) -> Ints:
    """All pairs of rows whose hashes differ in at most `MAX_DISTANCE` bits.

    Args:
        hashes_N2: (N, 2) uint64, 128 bits a row.
        progress: called with bands done, and in total.

    Returns:
        (M, 2) int64, each pair once, the smaller row first, in ascending order.
    """
    found = [np.zeros((0, 2), np.int64)]
    bands_NB = np.ascontiguousarray(hashes_N2).view(np.uint16).reshape(-1, NUM_BANDS)
    for band in range(NUM_BANDS):
        found += _of_band(hashes_N2, bands_NB, band)
        if progress is not None:
            progress(band + 1, NUM_BANDS)
    pairs = np.sort(np.concatenate(found), axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _of_band(hashes_N2: NDArray[np.uint64], bands_NB: NDArray[np.uint16], band: int) -> list[Ints]:
    """The near pairs that agree in this band and in none before it."""
    order = np.argsort(bands_NB[:, band], kind="stable")
    keys, hashes, bands = bands_NB[order, band], hashes_N2[order], bands_NB[order, :band]
    places = np.arange(len(order))
    ends = np.searchsorted(keys, keys, side="right")
    found = []
    step = 0
    while len(places):  # every row against the one `step` behind it, as long as that is of the same bucket
        step += 1
        places = places[places + step < ends[places]]
        for start in range(0, len(places), _CHUNK):
            first = places[start : start + _CHUNK]
            near = np.bitwise_count(hashes[first] ^ hashes[first + step]).sum(axis=1) <= MAX_DISTANCE
            first = first[near]
            first = first[~(bands[first] == bands[first + step]).any(axis=1)]
            if len(first):
                found.append(np.stack([order[first], order[first + step]], axis=1))
    return found
