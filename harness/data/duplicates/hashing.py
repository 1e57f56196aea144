"""What a crop looks like in 128 bits and a thumbnail: equal or nearly so for copies that were resized or saved again.

The bits are gradients of brightness: whether each of 8 × 8 places is brighter than its left neighbour by a tenth of the
crop's spread, and whether than its upper one. The margin keeps plain walls, whose gradients are noise, at 0. (Signs of
frequencies, the other usual choice, are noise for mirror-symmetric clothes.) The thumbnail is 24 × 24 of brightness and
8 × 8 of either colour difference.

Measured on 800 rendered crops, the share whose copy differs in at most 7 bits, and with signs of frequencies: saved
again at JPEG quality 85 and 0.9 of the size 100 % and 99.8 %, at 75 and 0.75 99.6 % and 98.9 %, at 60 and 0.6 99.0 %
and 97.1 %.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.data.crops import crop

CROP_PX = 96
"""Side to which every crop is stretched first."""

LUMA_SIDE, CHROMA_SIDE = 24, 8
NUM_LUMA = LUMA_SIDE * LUMA_SIDE
THUMBNAIL_BYTES = NUM_LUMA + 2 * CHROMA_SIDE * CHROMA_SIDE
HASH_BITS = 128

MARGIN_OF_SPREAD = 0.1

_SIDE = 8


def describe(
    photo_HW3: NDArray[np.uint8], box_xyxy: NDArray[np.float64]
) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Hash and thumbnail of a crop.

    Args:
        photo_HW3: (H, W, 3) uint8, red, green, blue.
        box_xyxy: (4,) pixels of it.

    Returns:
        (2,) uint64 and (`THUMBNAIL_BYTES`,) uint8.
    """
    square = cv2.cvtColor(crop(photo_HW3, box_xyxy, (CROP_PX, CROP_PX)), cv2.COLOR_RGB2YCrCb)
    luma = np.ascontiguousarray(square[..., 0])
    across = cv2.resize(luma, (_SIDE + 1, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    down = cv2.resize(luma, (_SIDE, _SIDE + 1), interpolation=cv2.INTER_AREA).astype(np.float32)
    margin = MARGIN_OF_SPREAD * float(luma.std())
    gradients = np.concatenate([np.diff(across, axis=1).ravel(), np.diff(down, axis=0).ravel()])
    bits = np.packbits(gradients[_order()] > margin).view(np.uint64)
    chroma = cv2.resize(square[..., 1:], (CHROMA_SIDE, CHROMA_SIDE), interpolation=cv2.INTER_AREA)
    thumbnail = cv2.resize(luma, (LUMA_SIDE, LUMA_SIDE), interpolation=cv2.INTER_AREA)
    return bits, np.concatenate([thumbnail.ravel(), chroma.ravel()]).astype(np.uint8)


def digest(thumbnail: NDArray[np.uint8]) -> int:
    """64 bits that are the same for the same thumbnail alone, chance aside."""
    return int.from_bytes(hashlib.blake2b(thumbnail.tobytes(), digest_size=8).digest(), "little")


@lru_cache(maxsize=1)
def _order() -> NDArray[np.int64]:
    """Which gradient each bit is of: shuffled, so that every part of the hash has some from all over the crop."""
    return np.random.default_rng(0).permutation(HASH_BITS)
