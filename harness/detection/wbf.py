"""The arithmetic of weighted boxes fusion, compiled: one photo after another, each in time of boxes times groups.

It follows ensemble-boxes 1.0.9 to the last bit that matters: that package keeps the running sums of a group in single
precision and everything else in double, compares a box with the groups of its label in the order in which they were
opened, and lets the first of equal overlaps win. Only the order of boxes of *equal* score cannot be had from here:
it is whatever numpy's sort leaves, which differs between processors. Photos with such boxes are reported back, and
come again with their order given.

Legend: N boxes of all detectors, P photos, M detectors, G groups.

Source: R. Solovyev, W. Wang, T. Gabruseva 2021, "Weighted boxes fusion"; the arithmetic of ensemble-boxes 1.0.9.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from harness.detection.row_order import sort_rows
from harness.types import Bools, Floats, Ints

CONF_TYPES = ("avg", "max", "box_and_model_avg", "absent_model_aware_avg")
"""In the order of the numbers that `fuse_photos` takes."""

_AVG, _MAX, _BOX_AND_MODEL, _ABSENT_MODEL = range(4)

COLUMNS = 14
"""Rows of the table of groups that `fuse_label` works on."""


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def fuse_photos(
    starts: Ints,
    boxes: Floats,
    scores: Floats,
    labels: Ints,
    models: Ints,
    weights: Floats,
    iou_threshold: float,
    skip_threshold: float,
    conf_type: int,
    overflows: bool,
    out_boxes: Floats,
    out_scores: Floats,
    out_labels: Ints,
    out_counts: Ints,
    is_tied: Bools,
) -> None:
    """Fuse the boxes of each photo by itself.

    Args:
        starts: (P + 1,) int64, photo p has the rows ``starts[p]`` to ``starts[p + 1]``: first those of the first
            detector in their order, then those of the next.
        boxes: (N, 4) float64, units of the photo, within [0, 1], x1 <= x2 and y1 <= y2.
        scores: (N,) float64 in [0, 1], unweighted.
        labels: (N,) int64.
        models: (N,) int64, the detector of each row, 0 … M - 1.
        weights: (M,) float64.
        iou_threshold: boxes of one label with a larger IoU become one.
        skip_threshold: boxes of a lower score are left out.
        conf_type: place in `CONF_TYPES`.
        overflows: with ``avg``, whether scores may grow above 1.
        out_boxes: (N, 4) float64, is filled: the groups of photo p from row ``starts[p]`` on, labels in the order of
            their first box, groups in the order in which they were opened.
        out_scores: (N,) float64, is filled likewise.
        out_labels: (N,) int64, is filled likewise.
        out_counts: (P,) int64, is filled: groups of each photo.
        is_tied: (P,) bool, is filled: the photo has two boxes of one label and equal score, and was left out.
    """
    longest = 1
    for photo in range(len(starts) - 1):
        longest = max(longest, starts[photo + 1] - starts[photo])
    rows = np.empty(longest, np.int64)
    space = np.empty(longest, np.int64)
    weighted = np.empty(longest, np.float64)
    waiting = np.empty(longest, np.int64)
    groups = np.empty((COLUMNS, longest), np.float64)
    has_model = np.empty((longest, len(weights)), np.bool_)
    for photo in range(len(starts) - 1):
        start, end = starts[photo], starts[photo + 1]
        out_counts[photo] = 0
        is_tied[photo] = False
        num_waiting = 0
        for place in range(end - start):
            row = start + place
            area = (boxes[row, 2] - boxes[row, 0]) * (boxes[row, 3] - boxes[row, 1])
            weighted[place] = scores[row] * weights[models[row]]
            waiting[num_waiting] = place
            num_waiting += scores[row] >= skip_threshold and area != 0.0
        first_group = start
        while num_waiting > 0:
            label = labels[start + waiting[0]]
            count, num_others = 0, 0
            # Each is written to both lists, and stays in one: so the processor need not guess which.
            for number in range(num_waiting):
                place = waiting[number]
                is_label = labels[start + place] == label
                rows[count], waiting[num_others] = place, place
                count += is_label
                num_others += not is_label
            num_waiting = num_others
            if sort_rows(rows, weighted, count, space):
                is_tied[photo] = True
                break
            first_group = fuse_label(
                start, rows, count, weighted, boxes, models, weights, iou_threshold, conf_type, overflows,
                groups, has_model, first_group, label, out_boxes, out_scores, out_labels, space,
            )  # fmt: skip
        if not is_tied[photo]:
            out_counts[photo] = first_group - start


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def fuse_ordered(
    rows: Ints,
    bounds: Ints,
    boxes: Floats,
    weighted: Floats,
    labels: Ints,
    models: Ints,
    weights: Floats,
    iou_threshold: float,
    conf_type: int,
    overflows: bool,
    out_boxes: Floats,
    out_scores: Floats,
    out_labels: Ints,
) -> int:
    """Fuse one photo whose boxes are in order already.

    Args:
        rows: (K,) int64, rows of the boxes that take part, label after label, each by descending weighted score.
        bounds: (L + 1,) int64, label l has ``rows[bounds[l]:bounds[l + 1]]``.
        boxes: (N, 4) float64, as for `fuse_photos`, and so are those that follow.
        weighted: (N,) float64, scores times the weight of the detector.
        labels: (N,) int64.
        models: (N,) int64.
        weights: (M,) float64.
        iou_threshold: in [0, 1].
        conf_type: place in `CONF_TYPES`.
        overflows: with ``avg``, whether scores may grow above 1.
        out_boxes: (K, 4) float64, is filled from the first row on.
        out_scores: (K,) float64, is filled.
        out_labels: (K,) int64, is filled.

    Returns:
        The number of groups.
    """
    groups = np.empty((COLUMNS, len(rows)), np.float64)
    has_model = np.empty((len(rows), len(weights)), np.bool_)
    group_of = np.empty(len(rows), np.int64)
    first_group = 0
    for number in range(len(bounds) - 1):
        part = rows[bounds[number] : bounds[number + 1]]
        first_group = fuse_label(
            0, part, len(part), weighted, boxes, models, weights, iou_threshold, conf_type, overflows,
            groups, has_model, first_group, labels[part[0]], out_boxes, out_scores, out_labels, group_of,
        )  # fmt: skip
    return first_group


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def fuse_label(
    start: int,
    rows: Ints,
    count: int,
    weighted: Floats,
    boxes: Floats,
    models: Ints,
    weights: Floats,
    iou_threshold: float,
    conf_type: int,
    overflows: bool,
    groups: Floats,
    has_model: Bools,
    first_group: int,
    label: int,
    out_boxes: Floats,
    out_scores: Floats,
    out_labels: Ints,
    group_of: Ints,
) -> int:
    """Group boxes, write the groups from ``first_group`` on with the label given, and return where they end.

    The rows of ``groups`` are, for each group, its box, the area of that, the sums of weighted coordinates (single
    precision), of weighted scores and of weights, the largest weighted score, the number of boxes, and the overlap with
    the box at hand. ``group_of`` (count,) is filled with the group of each box, from 0.
    """
    gx1, gy1, gx2, gy2, areas = groups[0], groups[1], groups[2], groups[3], groups[4]
    sum_x1, sum_y1, sum_x2, sum_y2 = groups[5], groups[6], groups[7], groups[8]
    confidences, trusts, largest, sizes = groups[9], groups[10], groups[11], groups[12]
    ious = groups[13]
    num_groups = 0
    is_void = False
    for number in range(count):
        place = rows[number]
        row = start + place
        x1, y1, x2, y2 = boxes[row, 0], boxes[row, 1], boxes[row, 2], boxes[row, 3]
        area = (x2 - x1) * (y2 - y1)
        # Without a branch, and apart from the choice: so the compiler takes several groups at once.
        for group in range(num_groups):
            left = gx1[group] if gx1[group] > x1 else x1
            top = gy1[group] if gy1[group] > y1 else y1
            right = gx2[group] if gx2[group] < x2 else x2
            bottom = gy2[group] if gy2[group] < y2 else y2
            width, height = right - left, bottom - top
            shared = (width if width > 0.0 else 0.0) * (height if height > 0.0 else 0.0)
            ious[group] = shared / (areas[group] + area - shared)
        best, best_iou = -1, iou_threshold
        for group in range(num_groups):
            if ious[group] > best_iou:
                best, best_iou = group, ious[group]
        if is_void:
            for group in range(num_groups):
                if ious[group] != ious[group]:  # what is no number wins every comparison
                    best = group
                    break
        score, model = weighted[place], models[row]
        if best < 0:
            best = num_groups
            num_groups += 1
            group_of[number] = best
            gx1[best], gy1[best], gx2[best], gy2[best], areas[best] = x1, y1, x2, y2, area
            sum_x1[best], sum_y1[best] = np.float32(score * x1), np.float32(score * y1)
            sum_x2[best], sum_y2[best] = np.float32(score * x2), np.float32(score * y2)
            confidences[best], trusts[best], largest[best], sizes[best] = score, weights[model], score, 1
            for other in range(len(weights)):
                has_model[best, other] = other == model
            continue
        group_of[number] = best
        sum_x1[best], sum_y1[best] = np.float32(sum_x1[best] + score * x1), np.float32(sum_y1[best] + score * y1)
        sum_x2[best], sum_y2[best] = np.float32(sum_x2[best] + score * x2), np.float32(sum_y2[best] + score * y2)
        confidences[best] += score
        trusts[best] += weights[model]
        sizes[best] += 1
        has_model[best, model] = True
        conf = confidences[best]
        gx1[best], gy1[best] = np.float32(sum_x1[best] / conf), np.float32(sum_y1[best] / conf)
        gx2[best], gy2[best] = np.float32(sum_x2[best] / conf), np.float32(sum_y2[best] / conf)
        areas[best] = (gx2[best] - gx1[best]) * (gy2[best] - gy1[best])
        is_void |= conf == 0.0  # two boxes of score 0 have no mean
    total, heaviest = weights.sum(), weights.max()
    for group in range(num_groups):
        size, trust = sizes[group], trusts[group]
        score = largest[group] if conf_type == _MAX else confidences[group] / size
        if size > 1:
            score, trust = np.float64(np.float32(score)), np.float64(np.float32(trust))
        if conf_type == _MAX:
            score = score / heaviest
        elif conf_type == _AVG:
            score = score * (size if overflows else min(len(weights), size)) / total
        else:
            present = 0.0
            absent = 0.0
            for model in range(len(weights)):
                if has_model[group, model]:
                    present += weights[model]
                else:
                    absent += weights[model]
            if conf_type == _BOX_AND_MODEL:
                score = score * size / trust * present / total
            else:
                score = score * size / (trust + absent)
        where = first_group + group
        out_boxes[where, 0], out_boxes[where, 1] = gx1[group], gy1[group]
        out_boxes[where, 2], out_boxes[where, 3] = gx2[group], gy2[group]
        out_scores[where] = score
        out_labels[where] = label
    return first_group + num_groups


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def first_fault(boxes: Floats, scores: Floats, labels: Floats) -> tuple[int, int]:
    """The first row that cannot be fused, and a number that says why; (-1, 0) where there is none.

    1 not finite, 2 outside [0, 1], 3 inverted, 4 score outside [0, 1], 5 label no whole number of 53 bits.
    """
    for row in range(len(scores)):
        x1, y1, x2, y2 = boxes[row, 0], boxes[row, 1], boxes[row, 2], boxes[row, 3]
        if not (np.isfinite(x1) and np.isfinite(y1) and np.isfinite(x2) and np.isfinite(y2)):
            return row, 1
        if min(x1, y1, x2, y2) < 0 or max(x1, y1, x2, y2) > 1:
            return row, 2
        if x1 > x2 or y1 > y2:
            return row, 3
        if not 0 <= scores[row] <= 1:
            return row, 4
        if not (abs(labels[row]) < 2.0**53 and labels[row] == np.floor(labels[row])):
            return row, 5
    return -1, 0
