import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.types import Detections, InputError, Ranking
from submissions.checker import check_submission
from submissions.writer import (
    REFUSED_BYTES,
    SubmissionRow,
    estimate_bytes,
    rows_from_ranking,
    write_submission,
)


def make_row(image_id: int = 1, **change: Any) -> SubmissionRow:
    row = SubmissionRow(
        query_image_id=image_id,
        query_bbox=np.array([1.23456, 2, 30, 40.5]),
        query_cls=3,
        query_score=0.123456789012,
        gallery_image_id=np.arange(100, 120),
        gallery_bbox=np.tile([0.00049, 1.0006, 100, 200], (20, 1)),
    )
    return replace(row, **change)


def test_the_file_has_exactly_the_challenge_fields(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    written = write_submission(path, [make_row(7), make_row(8)])
    assert json.loads(path.read_text()) == [
        {
            "query_image_id": image_id,
            "query_bbox": [1.235, 2, 30, 40.5],
            "query_cls": 3,
            "query_score": 0.123456789012,
            "gallery_image_id": list(range(100, 120)),
            "gallery_bbox": [[0.0, 1.001, 100, 200]] * 20,
        }
        for image_id in (7, 8)
    ]
    assert (written.path, written.num_rows, written.warning) == (path, 2, None)
    assert written.num_bytes == path.stat().st_size
    assert check_submission(path).ok


@pytest.mark.parametrize(("decimals", "expected"), [(0, 1.0), (1, 1.2), (5, 1.23456)])
def test_decimals(tmp_path: Path, decimals: int, expected: float) -> None:
    write_submission(tmp_path / "r.json", [make_row()], decimals)
    assert json.loads((tmp_path / "r.json").read_text())[0]["query_bbox"][0] == expected


@pytest.mark.parametrize("decimals", [-1, 10])
def test_decimals_are_limited(tmp_path: Path, decimals: int) -> None:
    with pytest.raises(ValueError, match="decimals: expected 0 to 9"):
        write_submission(tmp_path / "r.json", [], decimals)


def test_no_rows_make_an_empty_list(tmp_path: Path) -> None:
    assert write_submission(tmp_path / "r.json", []).num_rows == 0
    assert json.loads((tmp_path / "r.json").read_text()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gallery_image_id": np.arange(19)}, "row 1: gallery_image_id: expected 20 integers"),
        ({"gallery_image_id": np.arange(20.0)}, "row 1: gallery_image_id: expected 20 integers, got float64"),
        ({"gallery_bbox": np.ones((19, 4))}, r"row 1: gallery_bbox: expected shape \(20, 4\)"),
        ({"gallery_bbox": np.full((20, 4), np.nan)}, "row 1: gallery_bbox: is not finite"),
        ({"query_bbox": np.array([4, 0, 3, 9])}, "row 1: query_bbox: is inverted"),
        ({"query_bbox": np.ones(3)}, r"row 1: query_bbox: expected shape \(4,\)"),
        ({"query_cls": 0}, "row 1: query_cls: expected 1 to 13"),
        ({"query_score": float("inf")}, "row 1: query_score: expected a finite number"),
    ],
)
def test_a_wrong_row_leaves_the_old_file_and_nothing_else(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "r.json"
    path.write_text("old")
    with pytest.raises(ValueError, match=message):
        write_submission(path, [make_row(), make_row(**change)])
    assert [one.name for one in tmp_path.iterdir()] == ["r.json"]
    assert path.read_text() == "old"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder"):
        write_submission(tmp_path / "nowhere" / "r.json", [make_row()])


def test_rows_are_taken_one_by_one(tmp_path: Path) -> None:
    """Memory stays level: the peak of 4,000 rows is that of a few, not the 30 MB that they would fill."""
    import tracemalloc

    def rows() -> Iterator[SubmissionRow]:
        for number in range(4000):
            yield make_row(number)

    write_submission(tmp_path / "warm.json", [make_row()])
    tracemalloc.start()
    write_submission(tmp_path / "r.json", rows())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize("decimals", [0, 1, 3, 6])
def test_the_estimate_is_near(tmp_path: Path, decimals: int) -> None:
    rng = np.random.default_rng(0)

    def rows() -> Iterator[SubmissionRow]:
        for _ in range(200):
            low = rng.uniform(100, 500, (21, 2))
            boxes = np.concatenate([low, low + rng.uniform(1, 499, (21, 2))], axis=1)
            ids = rng.integers(10_000, 32_000, 21)
            yield SubmissionRow(int(ids[20]), boxes[20], 5, float(rng.random()), ids[:20], boxes[:20])

    written = write_submission(tmp_path / "r.json", rows(), decimals)
    assert estimate_bytes(200, decimals) == pytest.approx(written.num_bytes, rel=0.2)
    assert estimate_bytes(0) == 0


def test_a_large_file_is_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert REFUSED_BYTES == 300_000_000
    size = write_submission(tmp_path / "r.json", [make_row()]).num_bytes
    monkeypatch.setattr("submissions.writer.REFUSED_BYTES", size)
    warning = write_submission(tmp_path / "r.json", [make_row()]).warning
    assert warning is not None
    assert "refused" in warning
    monkeypatch.setattr("submissions.writer.REFUSED_BYTES", size + 1)
    assert write_submission(tmp_path / "r.json", [make_row()]).warning is None


def _boxes(count: int) -> Detections:
    rng = np.random.default_rng(count)
    low = rng.uniform(0, 50, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, 50, (count, 2))], axis=1)
    return Detections(np.arange(count) + 100, boxes, rng.random(count), rng.integers(1, 14, count))


def _ranking(query_rows: list[int], gallery_rows: list[list[int]]) -> Ranking:
    width = len(gallery_rows[0]) if gallery_rows else 20
    rows = np.array(gallery_rows, np.int64).reshape(len(query_rows), width)
    return Ranking(np.array(query_rows, np.int64), rows, -np.cumsum(np.ones(rows.shape, np.float32), axis=1))


def test_rows_from_a_ranking_speak_of_its_boxes() -> None:
    boxes = _boxes(30)
    (row,) = rows_from_ranking(boxes, _ranking([29], [list(range(25))]))
    assert row.query_image_id == 129
    assert row.query_cls == boxes.category_ids[29]
    assert row.query_score == boxes.scores[29]
    assert row.query_bbox.tolist() == boxes.boxes_xyxy[29].tolist()
    assert row.gallery_image_id.tolist() == list(range(100, 120))
    assert row.gallery_bbox.tolist() == boxes.boxes_xyxy[:20].tolist()


@given(st.integers(1, 30), st.integers(0, 5))
def test_short_galleries_are_filled_with_the_last_entry(length: int, num_queries: int) -> None:
    boxes = _boxes(length + num_queries)
    order = np.random.default_rng(length).permutation(length).tolist()
    queries = [length + n for n in range(num_queries)]
    rows = list(rows_from_ranking(boxes, _ranking(queries, [order] * num_queries)))
    expected = [100 + one for one in (order + [order[-1]] * 20)[:20]]
    assert [row.gallery_image_id.tolist() for row in rows] == [expected] * num_queries
    assert [row.query_image_id for row in rows] == [100 + one for one in queries]


def test_more_queries_than_a_block_keep_their_order() -> None:
    boxes = _boxes(3000)
    queries = list(range(2999, 499, -1))
    rows = rows_from_ranking(boxes, _ranking(queries, [[one % 400, one % 300] for one in queries]))
    for query, row in zip(queries, rows, strict=True):
        assert row.query_image_id == 100 + query
        assert row.gallery_image_id[:2].tolist() == [100 + query % 400, 100 + query % 300]


def test_an_empty_gallery_is_refused() -> None:
    ranking = Ranking(np.array([0]), np.zeros((1, 0), np.int64), np.zeros((1, 0), np.float32))
    with pytest.raises(InputError, match="the gallery is empty"):
        list(rows_from_ranking(_boxes(1), ranking))


def test_no_queries_make_no_rows() -> None:
    assert list(rows_from_ranking(_boxes(3), _ranking([], []))) == []
