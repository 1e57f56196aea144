"""Columns of a whole split on their way into box fusion and out of it, compiled.

Detectors list boxes in pixels and in orders of their own; `harness.detection.wbf` wants them photo after photo in units
of the photo, and leaves groups in the order in which it opened them.

Legend: N boxes of all detectors, P photos, M detectors, K fused boxes.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from harness.detection.row_order import sort_rows
from harness.types import Floats, Ints


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def gather(
    starts: Ints,
    rows: Ints,
    first_row: int,
    boxes_xyxy: Floats,
    scores: Floats,
    labels: Ints,
    model: int,
    sizes_wh: Floats,
    tolerance_px: float,
    out_boxes: Floats,
    out_scores: Floats,
    out_labels: Ints,
    out_models: Ints,
) -> int:
    """Bring a detector's boxes to their places and into units of their photos; what sticks out a little is cut.

    Args:
        starts: (P + 1,) int64, photo p has the places ``starts[p]`` to ``starts[p + 1]``.
        rows: (N,) int64, the row of the box at each place, all detectors counted through.
        first_row: where the detector's R rows begin.
        boxes_xyxy: (R, 4) float64, pixels.
        scores: (R,) float64.
        labels: (R,) int64.
        model: the detector's number.
        sizes_wh: (P, 2) float64, pixels.
        tolerance_px: by how much a box may stick out.
        out_boxes: (N, 4) float64, is filled at the places of this detector, and so are the others.
        out_scores: (N,) float64.
        out_labels: (N,) int64.
        out_models: (N,) int64.

    Returns:
        The first place of a box that sticks out by more; -1 where there is none.
    """
    for photo in range(len(starts) - 1):
        for place in range(starts[photo], starts[photo + 1]):
            row = rows[place] - first_row
            if row < 0 or row >= len(scores):
                continue
            for side in range(4):
                value, end = boxes_xyxy[row, side], sizes_wh[photo, side % 2]
                if not -tolerance_px <= value <= end + tolerance_px:
                    return place
                out_boxes[place, side] = min(max(value / end, 0.0), 1.0)
            out_scores[place], out_labels[place], out_models[place] = scores[row], labels[row], model
    return -1


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def best_first(starts: Ints, counts: Ints, boxes: Floats, scores: Floats, labels: Ints, limit: int, rows: Ints) -> None:
    """Order the groups of each photo by descending score; of equal scores the smaller label, then box, is first.

    Args:
        starts: (P + 1,) int64, as for `fuse_photos`.
        counts: (P,) int64, groups of each photo, from row ``starts[p]`` on; becomes the number that is kept.
        boxes: (N, 4) float64; groups that are no numbers are left out.
        scores: (N,) float64.
        labels: (N,) int64.
        limit: most groups of a photo.
        rows: (N,) int64, is filled: the rows that are kept of photo p from place ``starts[p]`` on.
    """
    longest = 1
    for photo in range(len(counts)):
        longest = max(longest, counts[photo])
    space = np.empty(longest, np.int64)
    for photo in range(len(counts)):
        chosen = rows[starts[photo] : starts[photo + 1]]
        count = 0
        for row in range(starts[photo], starts[photo] + counts[photo]):
            total = boxes[row, 0] + boxes[row, 1] + boxes[row, 2] + boxes[row, 3] + scores[row]
            if np.isfinite(total):
                chosen[count] = row
                count += 1
        if sort_rows(chosen, scores, count, space):
            for place in range(1, count):
                row, left = chosen[place], place
                while left > 0 and _comes_before(row, chosen[left - 1], scores, labels, boxes):
                    chosen[left] = chosen[left - 1]
                    left -= 1
                chosen[left] = row
        counts[photo] = min(count, limit)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def to_pixels(
    starts: Ints,
    ends: Ints,
    rows: Ints,
    boxes: Floats,
    scores: Floats,
    labels: Ints,
    sizes_wh: Floats,
    out_boxes_xyxy: Floats,
    out_scores: Floats,
    out_labels: Ints,
) -> None:
    """Write the groups that are kept one after the other, in pixels of their photos.

    Args:
        starts: (P + 1,) int64, photo p has the rows from place ``starts[p]`` on.
        ends: (P + 1,) int64, photo p is written to ``ends[p]`` … ``ends[p + 1]``.
        rows: (N,) int64, see `best_first`.
        boxes: (N, 4) float64, units of the photo.
        scores: (N,) float64.
        labels: (N,) int64.
        sizes_wh: (P, 2) float64, pixels.
        out_boxes_xyxy: (K, 4) float64, pixels, is filled.
        out_scores: (K,) float64, at most 1, is filled.
        out_labels: (K,) int64, is filled.
    """
    for photo in range(len(starts) - 1):
        for number in range(ends[photo + 1] - ends[photo]):
            row, place = rows[starts[photo] + number], ends[photo] + number
            for side in range(4):
                out_boxes_xyxy[place, side] = min(max(boxes[row, side], 0.0), 1.0) * sizes_wh[photo, side % 2]
            out_scores[place] = min(scores[row], 1.0)
            out_labels[place] = labels[row]


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _comes_before(row: int, other: int, scores: Floats, labels: Ints, boxes: Floats) -> bool:
    if scores[row] != scores[other]:
        return bool(scores[row] > scores[other])
    if labels[row] != labels[other]:
        return bool(labels[row] < labels[other])
    for side in range(4):
        if boxes[row, side] != boxes[other, side]:
            return bool(boxes[row, side] < boxes[other, side])
    return False
