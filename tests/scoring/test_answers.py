"""Which boxes are right, by hand and against the ranks of the official protocol."""

import numpy as np

from harness.scoring.answers import right_boxes
from harness.scoring.hearing import Hearing
from harness.scoring.results import Results
from harness.scoring.truth import Gallery, Queries
from harness.types import GALLERY_LENGTH

BOX = [0.0, 0.0, 10.0, 10.0]


def truth(styles=(1, 0, 2)) -> tuple[Queries, Gallery]:
    queries = Queries(
        np.array([1, 1, 2]), np.array([BOX] * 3), np.array([1, 2, 1]), np.array(styles), np.array([7, 7, 8])
    )
    gallery = Gallery(
        np.array([11, 11, 12, 13]), np.array([BOX, [20.0, 0, 30, 10], BOX, BOX]), np.array([1, 1, 1, 2]),
        np.array([7, 7, 7, 8]),
    )  # fmt: skip
    return queries, gallery


def test_right_boxes_by_hand() -> None:
    images = np.array([11, 11, 12, 13, 13, 14])
    boxes = np.array([BOX, [0.0, 0, 10, 4.9], [0.0, 0, 10, 5], BOX, [50.0, 0, 60, 10], BOX])
    numbers, rows = right_boxes(*truth(), images, boxes)
    # Query 1 has style 0 and is not asked, so the third row of the file is query number 1.
    assert list(zip(numbers.tolist(), rows.tolist(), strict=True)) == [(0, 0), (0, 2), (1, 3)]


def test_a_box_on_two_items_of_the_query_counts_once() -> None:
    queries, _ = truth()
    gallery = Gallery(np.array([11, 11, 13]), np.array([BOX] * 3), np.array([1, 1, 2]), np.array([7, 7, 8]))
    numbers, rows = right_boxes(queries, gallery, np.array([11]), np.array([BOX]))
    assert (numbers.tolist(), rows.tolist()) == ([0], [0])


def test_no_box_is_right_where_there_is_none() -> None:
    numbers, rows = right_boxes(*truth(), np.zeros(0, np.int64), np.zeros((0, 4)))
    assert (len(numbers), len(rows)) == (0, 0)


def test_the_official_protocol_finds_the_same_boxes_right() -> None:
    rng = np.random.default_rng(0)
    num_items, num_boxes, num_queries = 30, 80, 25
    corners = rng.integers(0, 12, (num_items + num_boxes, 2)).astype(float)
    boxes = np.concatenate([corners, corners + rng.integers(5, 12, corners.shape)], axis=1)
    pairs = rng.integers(0, 5, num_items)
    gallery = Gallery(rng.integers(100, 110, num_items), boxes[:num_items], rng.integers(1, 3, num_items), pairs)
    asked = rng.integers(0, num_items, num_queries)
    queries = Queries(
        np.arange(num_queries), np.tile(BOX, (num_queries, 1)), np.ones(num_queries, np.int64), gallery.styles[asked],
        gallery.pair_ids[asked],
    )  # fmt: skip
    images, searched = rng.integers(100, 110, num_boxes), boxes[num_items:]
    numbers, rows = right_boxes(queries, gallery, images, searched)
    found = set(zip(numbers.tolist(), rows.tolist(), strict=True))
    assert 0 < len(found) < num_queries * num_boxes
    for box in range(num_boxes):
        results = Results(
            np.arange(num_queries), np.tile(BOX, (num_queries, 1)),
            np.ones(num_queries), np.ones(num_queries, np.int64),
            np.full((num_queries, GALLERY_LENGTH), images[box]),
            np.broadcast_to(searched[box], (num_queries, GALLERY_LENGTH, 4)),
        )  # fmt: skip
        is_right = Hearing.of(results, queries, gallery).hit_ranks > 0
        assert {number for number, row in found if row == box} == set(np.flatnonzero(is_right).tolist())
