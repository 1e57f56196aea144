"""What rounding and writing do to a score: nothing to rounded boxes, next to nothing to others."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.scoring.official import evaluate
from harness.scoring.overlap import iou
from harness.scoring.results import Results
from harness.scoring.truth import Gallery, Queries
from harness.types import Detections, Ranking
from submissions.writer import rows_from_ranking, write_submission

PHOTOS = 30


def world(seed: int) -> tuple[Detections, Ranking, Queries, Gallery]:
    """A query and two detected boxes on each of 30 photos, 40 shop items, shop boxes whose overlaps lie around 0.5."""
    rng = np.random.default_rng(seed)
    shop = np.arange(100, 140)
    low = rng.uniform(0, 50, (40, 2))
    items = np.concatenate([low, low + rng.uniform(4, 60, (40, 2))], axis=1)
    queries = Queries(
        np.arange(PHOTOS),
        np.tile([10.0, 10, 60, 90], (PHOTOS, 1)),
        np.ones(PHOTOS, np.int64),
        np.ones(PHOTOS, np.int64),
        rng.integers(0, 40, PHOTOS),
    )
    gallery = Gallery(shop, items, np.ones(40, np.int64), np.arange(40))
    width = (items[:, 2] - items[:, 0])[:, None] * rng.uniform(0.45, 0.55, (40, 1))  # what is left of the item's width
    found = np.concatenate([items[:, :2], items[:, :1] + width, items[:, 3:]], axis=1)
    asking = np.repeat(queries.boxes_xyxy, 2, axis=0) + rng.normal(0, 2, (2 * PHOTOS, 4))
    boxes = Detections(
        np.concatenate([np.repeat(np.arange(PHOTOS), 2), shop]),
        np.concatenate([asking, found]),
        rng.random(2 * PHOTOS + 40),
        np.ones(2 * PHOTOS + 40, np.int64),
    )
    places = np.argsort(rng.random((2 * PHOTOS, 40)), axis=1)[:, :20]
    return (
        boxes,
        Ranking(np.arange(2 * PHOTOS), 2 * PHOTOS + places, np.zeros((2 * PHOTOS, 20), np.float32)),
        queries,
        gallery,
    )


def rounded(boxes: Detections, decimals: int) -> Detections:
    return Detections(boxes.image_ids, np.round(boxes.boxes_xyxy, decimals), boxes.scores, boxes.category_ids)


def written(boxes: Detections, ranking: Ranking, path: Path, decimals: int) -> Results:
    write_submission(path, rows_from_ranking(boxes, ranking), decimals)
    return Results.from_json(path)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_rounded_boxes_score_exactly_the_same(
    tmp_path_factory: pytest.TempPathFactory, seed: int, decimals: int
) -> None:
    boxes, ranking, queries, gallery = world(seed)
    boxes = rounded(boxes, decimals)
    back = written(boxes, ranking, tmp_path_factory.mktemp("written") / "r.json", decimals)
    straight = Results.from_ranking(ranking, boxes)
    for column in vars(straight):
        assert np.array_equal(getattr(back, column), getattr(straight, column)), column
    score = evaluate(straight, queries, gallery)
    assert np.array_equal(evaluate(back, queries, gallery).hit_ranks, score.hit_ranks)


def changed_and_safe(seed: int, decimals: int, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(Q,) whether the outcome of a query changes by writing, and whether it cannot.

    Coordinates move by e <= half a unit of the last decimal, so width and height by 2 e, and an overlap by less than
    4 e (1 / width + 1 / height) of the smaller box.
    """
    boxes, ranking, queries, gallery = world(seed)
    before = evaluate(Results.from_ranking(ranking, boxes), queries, gallery)
    after = evaluate(written(boxes, ranking, folder / "r.json", decimals), queries, gallery)
    shop_boxes = boxes.boxes_xyxy[2 * PHOTOS :]
    margin = 4 * 0.5 * 10.0**-decimals * (1 / (shop_boxes[:, 2:] - shop_boxes[:, :2])).sum(axis=1)
    is_safe = np.abs(iou(shop_boxes, gallery.boxes_xyxy) - 0.5) > margin
    return before.hit_ranks != after.hit_ranks, is_safe[queries.pair_ids]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 2, 3]))
def test_only_overlaps_within_rounding_of_a_half_can_change_an_outcome(
    tmp_path_factory: pytest.TempPathFactory, seed: int, decimals: int
) -> None:
    changed, is_safe = changed_and_safe(seed, decimals, tmp_path_factory.mktemp("written"))
    assert not (changed & is_safe).any()


def test_the_worlds_hold_queries_of_both_kinds(tmp_path: Path) -> None:
    found = [changed_and_safe(seed, 1, tmp_path) for seed in range(40)]
    assert sum(changed.sum() for changed, _ in found) > 10
    assert np.mean([is_safe.mean() for _, is_safe in found]) > 0.3


def test_an_overlap_within_rounding_of_a_half_does_change(tmp_path: Path) -> None:
    """Hand-worked: 5.0004 of 10 pixels is more than a half, 5.000 a half that still counts, 4.9996 none, 5.000 one."""
    for width, before, after in ((5.0004, 1, 1), (4.9996, 0, 1), (4.9994, 0, 0)):
        boxes = Detections(
            np.array([1, 2]), np.array([[0.0, 0, 9, 9], [0, 0, width, 10]]), np.ones(2), np.ones(2, np.int64)
        )
        ranking = Ranking(np.array([0]), np.ones((1, 20), np.int64), np.zeros((1, 20), np.float32))
        one = np.ones(1, np.int64)
        queries = Queries(one, np.array([[0.0, 0, 9, 9]]), one, one, one)
        gallery = Gallery(one + 1, np.array([[0.0, 0, 10, 10]]), one, one)
        assert evaluate(Results.from_ranking(ranking, boxes), queries, gallery).acc[1] == before
        assert evaluate(written(boxes, ranking, tmp_path / "r.json", 3), queries, gallery).acc[1] == after


@pytest.mark.parametrize("length", [1, 7, 20])
def test_a_short_ranking_is_filled_up_as_the_writer_does(tmp_path: Path, length: int) -> None:
    boxes, ranking, _, _ = world(3)
    short = Ranking(ranking.query_rows, ranking.gallery_rows_QK[:, :length], ranking.similarities_QK[:, :length])
    boxes = rounded(boxes, 2)
    back, straight = written(boxes, short, tmp_path / "r.json", 2), Results.from_ranking(short, boxes)
    for column in vars(straight):
        assert np.array_equal(getattr(back, column), getattr(straight, column)), column


def test_a_ranking_of_nothing_is_a_result_of_no_rows_and_one_without_a_gallery_is_refused() -> None:
    empty = np.zeros(0, np.int64)
    nothing = Ranking(empty, np.zeros((0, 0), np.int64), np.zeros((0, 0), np.float32))
    assert len(Results.from_ranking(nothing, Detections.empty())) == 0
    boxes, _, _, _ = world(3)
    with pytest.raises(ValueError, match="no gallery rows"):
        Results.from_ranking(Ranking(np.zeros(1, np.int64), np.zeros((1, 0), np.int64), np.zeros((1, 0))), boxes)
