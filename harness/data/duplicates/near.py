"""Pairs of 128-bit hashes that differ in few bits, without comparing all with all.

The hash is cut into 8 bands of 16 bits. Two hashes that differ in at most 7 bits have a band that does not differ, so
all of them are among the pairs that agree in some band: the search is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.types import Ints, Progress
from harness.workers import available_threads

NUM_BANDS = 8
MAX_DISTANCE = NUM_BANDS - 1
"""Bits in which a near pair may differ."""


def near_pairs(hashes_N2: NDArray[np.uint64], *, progress: Progress | None = None) -> Ints:
    """All pairs of rows whose hashes differ in at most `MAX_DISTANCE` bits.

    Args:
        hashes_N2: (N, 2) uint64, 128 bits a row.
        progress: called with bands done, and in total.

    Returns:
        (M, 2) int64, each pair once, the smaller row first, in ascending order.
    """
    bands_NB = np.ascontiguousarray(hashes_N2).view(np.uint16).reshape(-1, NUM_BANDS)
    found = [np.zeros((0, 2), np.int64)]
    with ThreadPoolExecutor(min(NUM_BANDS, available_threads())) as pool:
        for done, pairs in enumerate(pool.map(lambda band: _of_band(hashes_N2, bands_NB, band), range(NUM_BANDS)), 1):
            found.append(pairs)
            if progress is not None:
                progress(done, NUM_BANDS)
    pairs = np.sort(np.concatenate(found), axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _of_band(hashes_N2: NDArray[np.uint64], bands_NB: NDArray[np.uint16], band: int) -> Ints:
    """The near pairs that agree in this band and in none before it."""
    scan = _scanner()
    order = np.argsort(bands_NB[:, band], kind="stable")
    hashes, bands = hashes_N2[order], bands_NB[order]
    room = np.empty((len(order), 2), np.int64)
    count = scan(hashes, bands, band, room)
    if count > len(room):
        room = np.empty((count, 2), np.int64)
        scan(hashes, bands, band, room)
    return order[room[:count]]


@lru_cache(maxsize=1)
def _scanner() -> Callable[[NDArray[np.uint64], NDArray[np.uint16], int, Ints], int]:
    """The compiled search of one band; compiled when it is first wanted."""
    import numba

    @numba.njit(nogil=True)  # type: ignore[untyped-decorator]
    def num_bits(word: np.uint64) -> np.uint64:
        word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
        word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
        word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
        return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)

    @numba.njit(nogil=True)  # type: ignore[untyped-decorator]
    def scan(hashes_N2: NDArray[np.uint64], bands_NB: NDArray[np.uint16], band: int, room_M2: Ints) -> int:
        """Rows of near pairs, as many as there is room for; returns how many there are."""
        count = 0
        for first in range(len(hashes_N2)):
            for second in range(first + 1, len(hashes_N2)):
                if bands_NB[first, band] != bands_NB[second, band]:
                    break
                differing = num_bits(hashes_N2[first, 0] ^ hashes_N2[second, 0])
                if differing > MAX_DISTANCE:
                    continue
                differing += num_bits(hashes_N2[first, 1] ^ hashes_N2[second, 1])
                if differing > MAX_DISTANCE:
                    continue
                is_known = False
                for earlier in range(band):
                    is_known |= bands_NB[first, earlier] == bands_NB[second, earlier]
                if is_known:
                    continue
                if count < len(room_M2):
                    room_M2[count, 0], room_M2[count, 1] = first, second
                count += 1
        return count

    return scan  # type: ignore[no-any-return]
