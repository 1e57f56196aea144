"""Crops: the part of a photo inside a box, at the size a retrieval model wants."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray


def crop(
    photo_HW3: NDArray[np.uint8], box_xyxy: ArrayLike, size_wh: tuple[int, int], margin: float = 0.0
) -> NDArray[np.uint8]:
    """The pixels of a box, stretched to a size.

    The box grows by the margin, is widened to whole pixels and clipped to the photo. Whatever is
    asked for, a crop comes back: a side that is empty after clipping (zero area, or outside the
    photo) becomes the one pixel of the photo that is nearest.

    Args:
        photo_HW3: (H, W, 3) uint8 with at least one pixel; any order of channels.
        box_xyxy: (4,) pixels, finite, x1 <= x2 and y1 <= y2.
        size_wh: width and height of the crop in pixels, at least 1 each.
        margin: added on each side, as a fraction of the box's own width and height; >= 0.

    Returns:
        (h, w, 3) uint8, contiguous; averaged over pixel areas where both sides shrink, bilinear otherwise.

    Raises:
        ValueError: the box is not finite or inverted, the margin is negative, or a size is below 1.
    """
    width, height = size_wh
    if width < 1 or height < 1:
        raise ValueError(f"expected a size of at least 1 × 1, got {size_wh}")
    left, top, right, bottom = window(box_xyxy, (photo_HW3.shape[1], photo_HW3.shape[0]), margin)
    region = photo_HW3[top:bottom, left:right]
    shrinks = right - left >= width and bottom - top >= height
    resized = cv2.resize(region, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.ascontiguousarray(resized, dtype=np.uint8)


def window(box_xyxy: ArrayLike, photo_wh: tuple[int, int], margin: float = 0.0) -> tuple[int, int, int, int]:
    """The whole pixels that `crop` takes of a photo; boxes of the same window have the same crop.

    Args:
        box_xyxy: as for `crop`.
        photo_wh: width and height of the photo, pixels.
        margin: as for `crop`.

    Returns:
        First column and row, and the ones after the last; at least one pixel.

    Raises:
        ValueError: the box is not finite or inverted, or the margin is negative.
    """
    x1, y1, x2, y2 = (float(side) for side in np.asarray(box_xyxy, dtype=np.float64))
    if not all(map(math.isfinite, (x1, y1, x2, y2))) or x1 > x2 or y1 > y2:
        raise ValueError(f"box_xyxy: expected finite x1 <= x2 and y1 <= y2, got {[x1, y1, x2, y2]}")
    if not margin >= 0:
        raise ValueError(f"expected margin >= 0, got {margin}")
    left, right = _whole_pixels(x1, x2, margin, photo_wh[0])
    top, bottom = _whole_pixels(y1, y2, margin, photo_wh[1])
    return left, top, right, bottom


def _whole_pixels(low: float, high: float, margin: float, length: int) -> tuple[int, int]:
    """First pixel and the one after the last of a side, within [0, length] and never empty."""
    grown = margin * (high - low)
    low, high = max(low - grown, 0.0), min(high + grown, float(length))
    first, end = math.floor(low), math.ceil(high)
    if first >= end:
        first = min(max(math.floor(min(low, high)), 0), length - 1)
        end = first + 1
    return first, end
