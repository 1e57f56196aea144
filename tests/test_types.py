"""Values that pass between stages refuse what cannot be."""

import numpy as np
import pytest

from harness.types import Detections, Embeddings, Photos, Ranking, Score


def boxes(**changes):
    fields = {
        "image_ids": np.array([1, 2]),
        "boxes_xyxy": np.array([[0.0, 0, 2, 2], [1, 1, 1, 1]]),
        "scores": np.array([0.5, 1.0]),
        "category_ids": np.array([1, 13]),
    }
    return Detections(**(fields | changes))


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"image_ids": np.array([1.0, 2.0])}, "image_ids: ids and categories are integers"),
        ({"scores": np.array([0.5])}, "scores: expected 2 rows, got 1"),
        ({"scores": np.array([0.5, np.nan])}, "scores: row 1 is not finite"),
        ({"scores": np.array([0.5, 1.5])}, r"scores: row 1 is outside \[0, 1\]"),
        ({"boxes_xyxy": np.array([[0, 0, 2, 2], [3, 0, 1, 1]])}, "boxes_xyxy: row 1 is inverted"),
        ({"boxes_xyxy": np.zeros((2, 3))}, r"boxes_xyxy: expected shape \(N, 4\)"),
        ({"category_ids": np.array([0, 1])}, "category_ids: row 0 is outside 1–13"),
    ],
)
def test_boxes_that_cannot_be(changes, says) -> None:
    with pytest.raises(ValueError, match=says):
        boxes(**changes)


def test_rows_are_taken_and_joined() -> None:
    both = Detections.concatenate([boxes().take([1]), boxes().take(boxes().scores < 1), Detections.empty()])
    assert both.image_ids.tolist() == [2, 1]
    assert len(Detections.concatenate([])) == 0


def test_columns_cannot_be_changed_behind_the_validation() -> None:
    with pytest.raises(ValueError, match="read-only"):
        boxes().scores[0] = 7


def test_a_photo_knows_its_side() -> None:
    photos = Photos(np.array([1, 3, 9]), np.array([True, False, False]))
    assert photos.consumer_mask(np.array([9, 1])).tolist() == [False, True]
    for foreign in (2, 10):
        with pytest.raises(KeyError, match=f"image id {foreign} "):
            photos.consumer_mask(np.array([1, foreign]))
    with pytest.raises(ValueError, match="ascending"):
        Photos(np.array([3, 1]), np.array([True, False]))


@pytest.mark.parametrize(
    "vectors, says",
    [
        (np.ones((2, 4), np.float32), "expected float16"),
        (np.array([[1, 0], [0, 0]], np.float16), "embeddings of m4: row 1 is zero"),
        (np.array([[1, 0], [0.5, 0]], np.float16), r"embeddings of m4: row 1 is not of unit length \(0.5\)"),
        (np.array([[1, 0], [np.nan, 0]], np.float16), "row 1 is not finite"),
        (np.array([[1, 0], [np.inf, 0]], np.float16), "row 1 is not finite"),
    ],
)
def test_embeddings_that_cannot_be(vectors, says) -> None:
    with pytest.raises(ValueError, match=says):
        Embeddings("m4", vectors)


def test_a_ranking_descends() -> None:
    ids = np.zeros((1, 2), np.int64)
    Ranking(np.array([0]), ids, np.array([[0.5, 0.5]], np.float32))
    with pytest.raises(ValueError, match="descend"):
        Ranking(np.array([0]), ids, np.array([[0.4, 0.5]], np.float32))
    with pytest.raises(ValueError, match="shape"):
        Ranking(np.array([0, 1]), ids, np.array([[0.5, 0.4]], np.float32))


def test_accuracy_counts_hits_at_each_rank() -> None:
    score = Score("official", 5, np.array([1, 0, 5, 11, 20]))
    assert score.acc == {1: 0.2, 5: 0.4, 10: 0.4, 15: 0.6, 20: 0.8}
    with pytest.raises(ValueError, match="no ground-truth query"):
        Score("official", 0, np.array([], np.int64))
