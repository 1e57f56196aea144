"""Intersection over union as pycocotools computes it, and the joins that bring boxes together.

Boxes are ``boxes_xyxy`` at this door and become x, y, width, height inside: the official script hands
``x2 - x1`` to pycocotools, which adds ``x`` again, and in floating point that is not always ``x2``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.types import Floats, Ints


def iou(first_boxes_xyxy: Floats, second_boxes_xyxy: Floats) -> Floats:
    """The overlap of the boxes of each row, bit for bit what ``pycocotools.mask.iou`` says of the same boxes as xywh.

    Args:
        first_boxes_xyxy: (N, 4) float64, pixels.
        second_boxes_xyxy: (N, 4) float64, pixels.

    Returns:
        (N,) float64 in [0, 1]; 0 where the boxes only touch, for empty and inverted boxes, and where the areas
        overflow or vanish (from sides of 1e154 on, or of 1e-162).

    Source: pycocotools 2.0.11, ``bbIou`` without crowds (no pixel is added to width or height).
    """
    first_x, first_y, first_w, first_h = _xywh(first_boxes_xyxy)
    second_x, second_y, second_w, second_h = _xywh(second_boxes_xyxy)
    with np.errstate(all="ignore"):
        width = np.minimum(first_w + first_x, second_w + second_x) - np.maximum(first_x, second_x)
        height = np.minimum(first_h + first_y, second_h + second_y) - np.maximum(first_y, second_y)
        intersection = width * height
        union = first_w * first_h + second_w * second_h - intersection
        # Areas that no float can hold are infinite or 0; pycocotools says NaN of those, which is in no order.
        overlaps = (width > 0) & (height > 0) & (union > 0) & (union < np.inf)
        shares = np.zeros(len(overlaps))
        np.divide(intersection, union, out=shares, where=overlaps)
    return shares


def _xywh(boxes_xyxy: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    x, y = boxes_xyxy[:, 0], boxes_xyxy[:, 1]
    with np.errstate(over="ignore"):
        return x, y, boxes_xyxy[:, 2] - x, boxes_xyxy[:, 3] - y


def common_codes(*column_sets: tuple[Any, ...]) -> list[Ints]:
    """Number the distinct tuples that the given tables hold, with the same number in every table.

    Args:
        column_sets: for each table its integer columns, the same number of columns in each.

    Returns:
        One (rows,) int64 array a table: equal numbers stand for equal tuples.
    """
    lengths = [len(columns[0]) for columns in column_sets]
    codes = np.zeros(sum(lengths), np.int64)
    for parts in zip(*column_sets, strict=True):
        values, inverse = np.unique(np.concatenate([np.asarray(part, np.int64) for part in parts]), return_inverse=True)
        # Renumbered after every column, so that the product stays below rows * rows.
        codes = np.unique(codes * max(len(values), 1) + inverse, return_inverse=True)[1]
    return list(np.split(codes, np.cumsum(lengths)[:-1]))


def join(left_keys: Ints, right_keys: Ints) -> tuple[Ints, Ints]:
    """Every pair of a left and a right row with equal keys, ordered by left row, then by right row.

    Args:
        left_keys: (L,) int64.
        right_keys: (R,) int64.

    Returns:
        (pairs,) int64 left rows and (pairs,) int64 right rows.
    """
    order = np.argsort(right_keys, kind="stable")
    first, counts = _runs(right_keys[order], left_keys)
    left_rows = np.repeat(np.arange(len(left_keys)), counts)
    within = np.arange(len(left_rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return left_rows, order[np.repeat(first, counts) + within]


def _runs(ordered: Ints, wanted: Ints) -> tuple[Ints, Ints]:
    """For each wanted value where its run in an ordered column begins, and how long it is."""
    if len(ordered) and ordered[0] >= 0 and ordered[-1] < 4 * (len(ordered) + len(wanted)):
        # Image ids are small and dense: a table answers five times faster than bisection.
        table = np.bincount(ordered, minlength=int(ordered[-1]) + 2)
        starts = np.cumsum(table) - table
        known = np.where((wanted >= 0) & (wanted <= ordered[-1]), wanted, len(table) - 1)
        return starts[known], table[known]
    first = np.searchsorted(ordered, wanted, "left")
    return first, np.searchsorted(ordered, wanted, "right") - first


def first_of_group(groups: Ints) -> Ints:
    """Positions at which a new value begins in an ordered column."""
    if len(groups) == 0:
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1]]))


def distinct(values: Ints) -> Ints:
    """The values of a column in ascending order, each once; ``np.unique`` would first import numpy.ma, which takes as
    long as scoring a thousand queries."""
    ordered = np.sort(values)
    return ordered[first_of_group(ordered)]
