"""Class hedging: one box handed in under many categories, so that one of them is sure to be right.

The official rules accept it: only boxes of the query's own category speak, so a box under all 13 categories cannot be
classified wrongly. An honest detector leaves a box under two or three categories at times, not under most of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.scoring.overlap import first_of_group, iou, join
from harness.types import CATEGORIES, Floats, Ints

SAME_BOX_IOU = 0.9
MANY_CATEGORIES = len(CATEGORIES) // 2 + 1
MAX_SHARE = 0.05


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
        What was found; no rows are not hedged.
    """
    if len(image_ids) == 0:
        return Hedging(0, 0.0, False)
    num_categories = np.zeros(len(image_ids), np.int64)
    order = np.argsort(image_ids, kind="stable")
    # Photo by photo in blocks: all pairs of 590k boxes at once would take gigabytes.
    photo_starts = first_of_group(image_ids[order])
    blocks = np.split(order, photo_starts[1024::1024])
    for rows in blocks:
        first, second = join(image_ids[rows], image_ids[rows])
        same = iou(boxes_xyxy[rows[first]], boxes_xyxy[rows[second]]) >= SAME_BOX_IOU
        same |= first == second  # an empty box overlaps nothing, not even itself
        found = np.unique(np.stack([rows[first[same]], category_ids[rows[second[same]]]], axis=1), axis=0)
        num_categories += np.bincount(found[:, 0], minlength=len(image_ids))
    share = float((num_categories >= MANY_CATEGORIES).mean())
    return Hedging(int(num_categories.max()), share, share > MAX_SHARE)
