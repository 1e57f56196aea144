"""Which crops are copies of one another: near hashes, confirmed by thumbnails, and whatever hangs together by them.

A pair of near hashes is confirmed where the thumbnails agree as well as those of copies do. Measured on 500 rendered
crops saved again at JPEG quality 75 and 0.75 of their size, of which 99 % stay below: difference of brightness 4.5 of
255 (root mean square), 0.11 of its spread in the crop, 21 where it is largest; of colour 1.8. Of 625 pairs of near
hashes of different garments among 8,300 crops the nearest is at 13.4, 0.55, 83 and 9.3. The spread matters for plain
clothes on a plain wall: two white shirts differ little, and copies of one of them by much less.

Hash and thumbnail together, 500 rendered crops and their copies: found are 100 % at quality 92 and 0.97 of the size,
at 85 and 0.9, and at 75 and 0.75; 99.8 % at 85 and 1.25; 96.8 % at 60 and 0.6. Mirrored and cut copies are not found.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.data.duplicates.hashing import NUM_LUMA
from harness.data.duplicates.looking import Looks
from harness.data.duplicates.near import near_pairs
from harness.types import Bools, Ints, Progress

MOST_LUMA_DIFFERENCE = 6.5
"""Root mean square over the thumbnail, of 255."""
MOST_SHARE_OF_SPREAD = 0.15
LEAST_SPREAD = 4.0
"""Brightness of a crop that spreads less is taken to spread so much: what JPEG alone does to a blank one."""
MOST_LARGEST_DIFFERENCE = 40
"""Of brightness at any one place."""
MOST_CHROMA_DIFFERENCE = 4.5
MOST_ASPECT_DIFFERENCE = 0.06
"""Of the logarithms of width over height."""

_CHUNK = 1 << 16


def copies(looks: Looks, *, progress: Progress | None = None) -> Ints:
    """Groups of copies.

    Args:
        looks: of N crops.
        progress: of `near_pairs`.

    Returns:
        (N,) int64, equal for crops of one group; crops that cannot be read are alone. It does not depend on the order
        of the rows which of them are together.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = np.flatnonzero(looks.is_readable)
    keys = np.column_stack([looks.hashes[rows], looks.digests[rows]])
    _, first, node = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    node = node.reshape(-1)
    members = rows[first]  # of equal looks, one stands for all: placeholders come by the thousand
    pairs = members[near_pairs(looks.hashes[members], progress=progress)]
    pairs = pairs[confirmed(looks, pairs)]
    links = np.concatenate([pairs, np.column_stack([members[node], rows])])
    ones = np.ones(len(links), dtype=np.int8)
    graph = coo_array((ones, (links[:, 0], links[:, 1])), shape=(len(looks.hashes), len(looks.hashes)))
    return connected_components(graph, directed=False)[1].astype(np.int64)  # type: ignore[no-any-return]


def confirmed(looks: Looks, pairs: Ints) -> Bools:
    """Whether the thumbnails of pairs of near hashes agree as those of copies do.

    Args:
        looks: of N crops.
        pairs: (M, 2) rows.

    Returns:
        (M,) bool.
    """
    agree = np.zeros(len(pairs), dtype=bool)
    for start in range(0, len(pairs), _CHUNK):
        first, second = pairs[start : start + _CHUNK].T
        one, other = looks.thumbnails[first].astype(np.float32), looks.thumbnails[second].astype(np.float32)
        difference = one - other
        luma, chroma = _rms(difference[:, :NUM_LUMA]), _rms(difference[:, NUM_LUMA:])
        spread = np.minimum(one[:, :NUM_LUMA].std(axis=1), other[:, :NUM_LUMA].std(axis=1))
        agree[start : start + _CHUNK] = (
            (luma <= np.minimum(MOST_LUMA_DIFFERENCE, MOST_SHARE_OF_SPREAD * np.maximum(spread, LEAST_SPREAD)))
            & (np.abs(difference[:, :NUM_LUMA]).max(axis=1) <= MOST_LARGEST_DIFFERENCE)
            & (chroma <= MOST_CHROMA_DIFFERENCE)
            & (np.abs(np.log(looks.aspects[first] / looks.aspects[second])) <= MOST_ASPECT_DIFFERENCE)
        )
    return agree


def _rms(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.sqrt(np.square(values).mean(axis=1))  # type: ignore[no-any-return]
