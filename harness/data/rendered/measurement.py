"""What an annotation says of a garment, read off the rendered label map."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.data.rendered.silhouette import Points

SCALE_LIMITS = (0.10, 0.30)
"""Visible share of the photo below which a garment is small (1), and from which it is large (3)."""
COVER_LIMITS = (0.10, 0.35)
"""Covered share from which occlusion is medium (2), and from which it is heavy (3)."""
ZOOM_LIMITS = (0.0, 0.35)
"""Share of landmarks outside the photo above which zoom-in is medium (2), and above which it is large (3)."""


def _level(value: float, limits: tuple[float, float], above: bool = False) -> int:
    """1, 2 or 3 by two limits; a value at a limit belongs to the higher level unless ``above``."""
    return 1 + sum(value > limit if above else value >= limit for limit in limits)


def measure(
    visible: NDArray[np.bool_], silhouette: NDArray[np.bool_], landmarks: Points, viewpoint: int
) -> dict[str, Any] | None:
    """What the annotation says of a garment, read off the rendered picture.

    Args:
        visible: (H, W) where the garment is seen.
        silhouette: (H, W) where it would be seen with nothing in front of it.
        landmarks: (L, 2) float64 pixels, also outside the photo.
        viewpoint: 1 not worn, 2 frontal, 3 side or back.

    Returns:
        The item's fields ``bounding_box``, ``landmarks``, ``segmentation``, ``scale``, ``occlusion``,
        ``zoom_in`` and ``viewpoint``; None if less than 1.5 % of the photo shows it.
    """
    height, width = visible.shape
    contours, _ = cv2.findContours(visible.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    kept = [contour[:, 0] for contour in contours if cv2.contourArea(contour) >= 8]
    num_visible = int(visible.sum())
    if not kept or num_visible < 0.015 * visible.size:
        return None
    points = np.concatenate(kept)
    (x1, y1), (x2, y2) = points.min(0), points.max(0) + 1
    pixels = np.floor(landmarks).astype(int)
    marks: list[int] = []
    num_outside = num_covered = 0
    for x, y in pixels.tolist():
        if not (0 <= x < width and 0 <= y < height):
            marks += [0, 0, 0]
            num_outside += 1
            continue
        near = np.s_[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        seen = bool(visible[near].any())
        num_covered += bool(not seen and silhouette[near].any())
        marks += [x, y, 2 if seen else 1]
    num_inside = len(pixels) - num_outside
    num_silhouette = max(int(silhouette.sum()), 1)
    covered = (num_silhouette - num_visible) / num_silhouette
    covered = max(covered, num_covered / num_inside if num_inside else 0.0)
    return {
        "bounding_box": [int(x1), int(y1), int(x2), int(y2)],
        "landmarks": marks,
        "segmentation": [polygon.ravel().tolist() for polygon in kept],
        "scale": _level(num_visible / visible.size, SCALE_LIMITS),
        "occlusion": _level(covered, COVER_LIMITS),
        "zoom_in": _level(num_outside / len(pixels), ZOOM_LIMITS, above=True),
        "viewpoint": viewpoint,
    }
