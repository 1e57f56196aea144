"""COCO's matching and average precision at one IoU threshold, on columns.

The engines of `harness.scoring.boxes` make an object of every box and compare photo by photo; one threshold over all
sizes needs neither. Equal to their AP50 to rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.scoring.overlap import common_codes, first_of_group, iou, join
from harness.types import CATEGORIES, Bools, Detections, Ints, Items


def average_precision(truth: Items, detections: Detections, min_iou: float, max_detections: int) -> float | None:
    """Mean over the categories of the precision interpolated at 101 recalls.

    Args:
        truth: annotated items of the photos.
        detections: boxes of the same photos.
        min_iou: in (0, 1), the overlap that a match needs.
        max_detections: boxes of one photo and category that count, best first.

    Returns:
        A number in [0, 1]; None without an item.

    Source: pycocotools 2.0.11, ``evaluateImg`` and ``accumulate``.
    """
    if len(truth) == 0:
        return None
    detections = _best_first(detections, max_detections)
    is_match = _matches(truth, detections, min_iou)
    averages = []
    for category in range(1, len(CATEGORIES) + 1):
        num_items = int((truth.category_ids == category).sum())
        if num_items:
            rows = np.flatnonzero(detections.category_ids == category)
            # Of equal scores the box of the smaller photo id comes first: the rows are in that order already.
            rows = rows[np.argsort(-detections.scores[rows], kind="stable")]
            averages.append(_interpolated(is_match[rows], num_items))
    return float(np.mean(averages))


def hits(truth: Items, detections: Detections, min_iou: float = 0.5) -> Bools:
    """Which boxes are right: those that COCO's matching gives an item of their photo and category.

    The best-scored box chooses first, of equal scores the earlier row, and takes the item still free that it overlaps
    most; so of two boxes on one item at most one is right.

    Args:
        truth: annotated items of the photos.
        detections: boxes of the same photos, in any order.
        min_iou: in (0, 1), the overlap that a match needs.

    Returns:
        (N,) bool, in the order of the boxes.

    Source: pycocotools 2.0.11, ``evaluateImg``.
    """
    order = _order(detections)
    is_hit = np.zeros(len(detections), np.bool_)
    is_hit[order] = _matches(truth, detections.take(order), min_iou)
    return is_hit


def _order(detections: Detections) -> Ints:
    """By photo, category and descending score."""
    return np.lexsort((-detections.scores, detections.category_ids, detections.image_ids))


def _best_first(detections: Detections, max_detections: int) -> Detections:
    """Ordered by photo, category and descending score, at most so many of each photo and category."""
    detections = detections.take(_order(detections))
    groups = common_codes((detections.image_ids, detections.category_ids))[0]
    starts = first_of_group(groups)
    place = np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))
    return detections.take(place < max_detections)


def _matches(truth: Items, detections: Detections, min_iou: float) -> Bools:
    """(N,) whether each detection takes an item: the best first, each the item still free that it overlaps most."""
    box_keys, item_keys = common_codes(
        (detections.image_ids, detections.category_ids), (truth.image_ids, truth.category_ids)
    )
    boxes, items = join(box_keys, item_keys)
    overlap = iou(detections.boxes_xyxy[boxes], truth.boxes_xyxy[items])
    close = overlap >= min(min_iou, 1 - 1e-10)
    boxes, items, overlap = boxes[close], items[close], overlap[close]
    # Largest overlap first; of equal ones the later item, as pycocotools has it.
    order = np.lexsort((-items, -overlap, boxes))
    is_match = np.zeros(len(detections), np.bool_)
    taken: set[int] = set()
    matched = -1
    for box, item in zip(boxes[order].tolist(), items[order].tolist(), strict=True):
        if box != matched and item not in taken:
            taken.add(item)
            matched = box
            is_match[box] = True
    return is_match


def _interpolated(is_match: Bools, num_items: int) -> Any:
    hits: Ints = np.cumsum(is_match)
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(hits / num_items, np.linspace(0, 1, 101), side="left")
    return np.append(envelope, 0.0)[np.minimum(places, len(envelope))].mean()
