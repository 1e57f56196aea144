"""What becomes of a garment that was seen in two categories, compiled: the vote of its boxes, or the best one alone.

`harness.detection.fusion_settings.FusionSettings` says what the policies are.

Legend: N boxes of all detectors, P photos, M detectors.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from harness.detection.row_order import sort_rows
from harness.detection.wbf import COLUMNS, fuse_label
from harness.types import Floats, Ints

_ANY_OVERLAP = -1.0


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def vote_photos(
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
) -> None:
    """Fuse the boxes of each photo whatever their labels, and let each group's boxes vote for its label.

    Arguments as for `harness.detection.wbf.fuse_photos`. Of equal scores the earlier row comes first; boxes whose
    weighted score is 0 have no say and are left out.
    """
    longest = 1
    for photo in range(len(starts) - 1):
        longest = max(longest, starts[photo + 1] - starts[photo])
    rows, space, group_of = np.empty(longest, np.int64), np.empty(longest, np.int64), np.empty(longest, np.int64)
    ends, members, winners = np.empty(longest + 1, np.int64), np.empty(longest, np.int64), np.empty(longest, np.int64)
    weighted = np.empty(longest, np.float64)
    groups = np.empty((COLUMNS, longest), np.float64)
    has_model = np.empty((longest, len(weights)), np.bool_)
    for photo in range(len(starts) - 1):
        start = starts[photo]
        count = 0
        for place in range(starts[photo + 1] - start):
            row = start + place
            area = (boxes[row, 2] - boxes[row, 0]) * (boxes[row, 3] - boxes[row, 1])
            weighted[place] = scores[row] * weights[models[row]]
            if scores[row] >= skip_threshold and area > 0.0 and weighted[place] > 0.0:
                rows[count] = place
                count += 1
        sort_rows(rows, weighted, count, space)
        num_groups = (
            fuse_label(
                start, rows, count, weighted, boxes, models, weights, iou_threshold, conf_type, overflows,
                groups, has_model, start, 0, out_boxes, out_scores, out_labels, group_of,
            )
            - start
        )  # fmt: skip
        ends[: num_groups + 1] = 0
        for number in range(count):
            ends[group_of[number] + 1] += 1
        for group in range(num_groups):
            ends[group + 1] += ends[group]
        for number in range(count - 1, -1, -1):
            ends[group_of[number] + 1] -= 1
            members[ends[group_of[number] + 1]] = rows[number]
        # Now ends[g + 1] is where group g begins; the last group's end is the count.
        for group in range(num_groups):
            low = ends[group + 1]
            high = ends[group + 2] if group + 1 < num_groups else count
            label = _elected(start, members, low, high, labels, weighted)
            num_winners = 0
            for number in range(low, high):
                if labels[start + members[number]] == label:
                    winners[num_winners] = members[number]
                    num_winners += 1
            fuse_label(
                start, winners, num_winners, weighted, boxes, models, weights, _ANY_OVERLAP, conf_type, overflows,
                groups, has_model, start + group, label, out_boxes, out_scores, out_labels, group_of,
            )  # fmt: skip
        out_counts[photo] = num_groups


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _elected(start: int, members: Ints, low: int, high: int, labels: Ints, weighted: Floats) -> int:
    """The label of the largest sum of weighted scores; of equal sums the one whose first member comes first."""
    best, largest = labels[start + members[low]], -1.0
    for number in range(low, high):
        label = labels[start + members[number]]
        earlier = low
        while labels[start + members[earlier]] != label:
            earlier += 1
        if earlier < number:
            continue
        total = 0.0
        for other in range(number, high):
            if labels[start + members[other]] == label:
                total += weighted[members[other]]
        if total > largest:
            best, largest = label, total
    return int(best)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def keep_best_label(
    starts: Ints, counts: Ints, rows: Ints, boxes: Floats, labels: Ints, iou_threshold: float, limit: int
) -> None:
    """Leave out the groups of a photo that overlap a better one of another label.

    Args:
        starts: (P + 1,) int64, photo p has the places from ``starts[p]`` on.
        counts: (P,) int64, groups of each photo; becomes the number that stays.
        rows: (N,) int64, rows of the groups of photo p from place ``starts[p]`` on, best first; those that stay move
            to the front.
        boxes: (N, 4) float64.
        labels: (N,) int64.
        iou_threshold: groups of two labels with a larger IoU do not both stay.
        limit: most groups of a photo.
    """
    longest = 1
    for photo in range(len(counts)):
        longest = max(longest, counts[photo])
    columns, names = np.empty((5, longest), np.float64), np.empty(longest, np.int64)
    lefts, tops, rights, bottoms, areas = columns[0], columns[1], columns[2], columns[3], columns[4]
    for photo in range(len(counts)):
        chosen = rows[starts[photo] : starts[photo + 1]]
        kept = 0
        for number in range(counts[photo]):
            if kept == limit:
                break
            row = chosen[number]
            x1, y1, x2, y2, label = boxes[row, 0], boxes[row, 1], boxes[row, 2], boxes[row, 3], labels[row]
            area = (x2 - x1) * (y2 - y1)
            num_close = 0
            # To the end and without a branch: so the compiler takes several boxes at once.
            for place in range(kept):
                left = lefts[place] if lefts[place] > x1 else x1
                top = tops[place] if tops[place] > y1 else y1
                right = rights[place] if rights[place] < x2 else x2
                bottom = bottoms[place] if bottoms[place] < y2 else y2
                width, height = right - left, bottom - top
                shared = (width if width > 0.0 else 0.0) * (height if height > 0.0 else 0.0)
                is_close = shared > iou_threshold * (areas[place] + area - shared)
                num_close += is_close & (names[place] != label)
            if num_close == 0:
                lefts[kept], tops[kept], rights[kept], bottoms[kept], areas[kept] = x1, y1, x2, y2, area
                names[kept] = label
                chosen[kept] = row
                kept += 1
        counts[photo] = kept
