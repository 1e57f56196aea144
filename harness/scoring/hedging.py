"""Class hedging: one box handed in under many categories, so that one of them is sure to be right.

The official rules accept it: only boxes of the query's own category speak, so a box under all 13 categories cannot be
classified wrongly. An honest detector leaves a box under two or three categories at times, not under most of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.scoring.overlap import first_of_group, iou
from harness.types import CATEGORIES, Floats, InputError, Ints

SAME_BOX_IOU = 0.9
MANY_CATEGORIES = len(CATEGORIES) // 2 + 1
MAX_SHARE = 0.05
MAX_STACKED = 2000
"""Boxes of one photo that begin at about the same left edge; an honest detector hands in a hundred in all."""
MAX_PAIRS = 20_000_000
"""Pairs of same boxes in a file; 590,000 rows that are 13 categories for each box have 4 million."""


@dataclass(frozen=True)
class Hedging:
    """How often boxes stand under several categories.

    Attributes:
        max_categories: the most categories under which one box stands.
        share: rows whose box stands under at least 7 of the 13 categories, as a share of all rows.
        is_hedged: whether that share exceeds 5 %.
    """

    max_categories: int
    share: float
    is_hedged: bool


def class_hedging(image_ids: Ints, boxes_xyxy: Floats, category_ids: Ints) -> Hedging:
    """Look for boxes of one photo that overlap with an IoU of at least 0.9 under different categories.

    Args:
        image_ids: (R,) int64, the consumer photos of the result rows.
        boxes_xyxy: (R, 4) float64, pixels.
        category_ids: (R,) int64.

    Returns:
        What was found; no rows are not hedged. Boxes that are moved apart are not found: the strict protocol, by which
        one box speaks for a garment, shows what they gain.

    Raises:
        InputError: see `same_boxes`.
    """
    if len(image_ids) == 0:
        return Hedging(0, 0.0, False)
    first, second = same_boxes(image_ids, boxes_xyxy)
    names, codes = np.unique(category_ids, return_inverse=True)
    rows = np.concatenate([np.arange(len(image_ids)), first, second])
    named = np.sort(rows * len(names) + codes[np.concatenate([rows[: len(image_ids)], second, first])])
    num_categories = np.bincount(named[first_of_group(named)] // len(names))
    share = float((num_categories >= MANY_CATEGORIES).mean())
    return Hedging(int(num_categories.max()), share, share > MAX_SHARE)


def same_boxes(image_ids: Ints, boxes_xyxy: Floats) -> tuple[Ints, Ints]:
    """Every two boxes of one photo that overlap with an IoU of at least 0.9.

    Args:
        image_ids: (R,) int64.
        boxes_xyxy: (R, 4) float64, pixels.

    Returns:
        (pairs,) int64 and (pairs,) int64, rows; each pair once.

    Raises:
        InputError: more than `MAX_STACKED` boxes of a photo lie on top of each other, or there are more pairs than
            `MAX_PAIRS`: no detections look so, and they would fill the memory.
    """
    # Ordered by left edge, the partners of a box follow it closely: none is further to the right than a tenth of its
    # width (and rounding). Boxes without an area overlap nothing.
    rows = np.flatnonzero((boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(axis=1))
    rows = rows[np.lexsort((boxes_xyxy[rows, 0], image_ids[rows]))]
    photos, boxes = image_ids[rows], boxes_xyxy[rows]
    reach = boxes[:, 0] + (1 - SAME_BOX_IOU + 1e-6) * (boxes[:, 2] - boxes[:, 0])
    near = np.arange(len(rows))
    firsts, seconds = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    num_pairs = 0
    for step in range(1, len(rows)):
        near = near[: np.searchsorted(near, len(rows) - step)]
        near = near[(photos[near] == photos[near + step]) & (boxes[near + step, 0] <= reach[near])]
        if len(near) == 0:
            break
        same = near[iou(boxes[near], boxes[near + step]) >= SAME_BOX_IOU]
        num_pairs += len(same)
        if step > MAX_STACKED or num_pairs > MAX_PAIRS:
            raise InputError(
                f"photo {photos[near[0]]}: has thousands of boxes on top of each other, which no detector finds; "
                "keep the best of them"
            )
        firsts.append(rows[same])
        seconds.append(rows[same + step])
    return np.concatenate(firsts), np.concatenate(seconds)
