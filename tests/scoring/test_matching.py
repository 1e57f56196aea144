from __future__ import annotations

import numpy as np
import pytest

from harness.scoring.matching import hits
from harness.types import Detections, Items


def items(*rows):
    """Items from rows of (image id, x1, y1, x2, y2, category)."""
    table = np.array(rows, float).reshape(-1, 6).astype(int)
    zeros = np.zeros(len(table), int)
    return Items(
        table[:, 0], zeros + 1, zeros == 1, table[:, 1:5].astype(float), table[:, 5], zeros, zeros, zeros, zeros, zeros,
        zeros,
    )  # fmt: skip


def found(*rows):
    """Detections from rows of (image id, x1, y1, x2, y2, score, category)."""
    table = np.array(rows, float).reshape(-1, 7)
    return Detections(table[:, 0].astype(int), table[:, 1:5], table[:, 5], table[:, 6].astype(int))


GARMENT = (4, 0, 0, 10, 10)


def test_the_best_scored_box_takes_the_garment():
    boxes = found((*GARMENT, 0.6, 2), (4, 0, 0, 10, 8, 0.9, 2), (4, 0, 0, 10, 9, 0.9, 2))
    assert hits(items((*GARMENT, 2)), boxes).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("box", "is_hit"),
    [
        ((4, 0, 0, 10, 5, 0.9, 2), True),  # exactly .5
        ((4, 0, 0, 10, 4.9, 0.9, 2), False),
        ((4, 0, 0, 10, 10, 0.9, 3), False),
        ((5, 0, 0, 10, 10, 0.9, 2), False),
    ],
)
def test_place_category_and_photo_must_fit(box, is_hit):
    assert hits(items((*GARMENT, 2)), found(box)).tolist() == [is_hit]


def test_without_garments_or_boxes():
    assert hits(items(), found((*GARMENT, 0.5, 1))).tolist() == [False]
    assert hits(items((*GARMENT, 1)), found()).tolist() == []


def plain_hits(truth, boxes, min_iou):
    """Box after box, by descending score and then row, each against every garment."""
    taken, answer = set(), [False] * len(boxes)
    for row in sorted(range(len(boxes)), key=lambda row: (-boxes[row][5], row)):
        image_id, x1, y1, x2, y2, _, category = boxes[row]
        best, best_item = min_iou, None
        for number, (item_image, a1, b1, a2, b2, item_category) in enumerate(truth):
            if (item_image, item_category) != (image_id, category) or number in taken:
                continue
            width, height = min(x2, a2) - max(x1, a1), min(y2, b2) - max(y1, b1)
            if width <= 0 or height <= 0:
                continue
            shared = width * height
            overlap = shared / ((x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - shared)
            if overlap >= best:
                best, best_item = overlap, number
        if best_item is not None:
            taken.add(best_item)
            answer[row] = True
    return answer


@pytest.mark.parametrize("seed", range(5))
def test_as_a_plain_loop_has_it(seed):
    """Coarse boxes and scores, so that overlaps and scores are often equal; photos in any order."""
    rng = np.random.default_rng(seed)
    num_hits = 0
    for _ in range(40):

        def drawn(count):
            corners = rng.integers(0, 3, (count, 2))
            return np.column_stack([rng.integers(1, 3, count), corners, corners + rng.choice([0, 2, 2, 3], (count, 2))])

        truth = [(*row, int(rng.integers(1, 3))) for row in drawn(int(rng.integers(0, 25))).tolist()]
        boxes = [
            (*row, float(rng.integers(0, 4)) / 4, int(rng.integers(1, 3)))
            for row in drawn(int(rng.integers(0, 60))).tolist()
        ]
        min_iou = float(rng.choice([0.3, 0.5, 0.75]))
        ours = hits(items(*truth), found(*boxes), min_iou).tolist()
        assert ours == plain_hits(truth, boxes, min_iou)
        num_hits += sum(ours)
    assert num_hits > 50
