import json
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.types import Detections, InputError, Ranking
from submissions.checker import check_submission
from submissions.rows import SubmissionRow, encode_block
from submissions.writer import (
    REFUSED_BYTES,
    ZIPPED_SHARE,
    estimate_bytes,
    rows_from_ranking,
    size_warning,
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


@pytest.mark.parametrize("name", ["r.json", "r.zip"])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, name: str) -> None:
    """20,000 rows would fill 20 MB as text and more as objects; they take what 2,000 take."""
    import tracemalloc

    def peak(num_rows: int) -> int:
        tracemalloc.start()
        write_submission(tmp_path / name, (make_row(number) for number in range(num_rows)))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    few, many = peak(2_000), peak(20_000)
    assert few < 1_500_000
    assert many < few + 100_000


def test_a_row_that_fails_late_is_named_by_its_number_and_leaves_nothing(tmp_path: Path) -> None:
    rows = [make_row(number) for number in range(300)]
    rows[260] = make_row(260, query_cls=14)
    for name in ("r.json", "r.zip"):
        with pytest.raises(ValueError, match="row 260: query_cls: expected 1 to 13, got 14"):
            write_submission(tmp_path / name, rows)
    assert list(tmp_path.iterdir()) == []


def _drawn(rng: np.random.Generator, num_rows: int) -> list[SubmissionRow]:
    low = rng.uniform(0, 300, (num_rows, 21, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, 400, (num_rows, 21, 2))], axis=2)
    ids = rng.integers(1, 32_154, (num_rows, 21))
    return [
        SubmissionRow(int(i[20]), b[20], int(c), float(score), i[:20], b[:20])
        for i, b, c, score in zip(ids, boxes, rng.integers(1, 14, num_rows), rng.random(num_rows), strict=True)
    ]


@given(st.integers(0, 2**32), st.integers(1, 200), st.integers(0, 9))
def test_a_block_is_written_as_its_rows_alone_would_be(seed: int, num_rows: int, decimals: int) -> None:
    rows = _drawn(np.random.default_rng(seed), num_rows)
    plain = [
        {
            "query_image_id": row.query_image_id,
            "query_bbox": np.round(row.query_bbox, decimals).tolist(),
            "query_cls": row.query_cls,
            "query_score": row.query_score,
            "gallery_image_id": row.gallery_image_id.tolist(),
            "gallery_bbox": np.round(row.gallery_bbox, decimals).tolist(),
        }
        for row in rows
    ]
    assert encode_block(rows, 0, decimals) == b",\n".join(orjson.dumps(one) for one in plain)


def test_ids_of_different_integer_types_stay_integers() -> None:
    """NumPy makes floats of int64 and uint64 together."""
    rows = [make_row(), make_row(gallery_image_id=np.arange(100, 120).astype(np.uint64))]
    first, second = json.loads(b"[" + encode_block(rows, 0, 3) + b"]")
    assert first == second
    assert all(type(one) is int for one in second["gallery_image_id"])


def test_a_zip_holds_the_same_file(tmp_path: Path) -> None:
    rows = _drawn(np.random.default_rng(0), 500)
    plain = write_submission(tmp_path / "r.json", rows)
    zipped = write_submission(tmp_path / "r.zip", rows)
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["r.json"]
        assert archive.read("r.json") == (tmp_path / "r.json").read_bytes()
        assert archive.infolist()[0].compress_type == zipfile.ZIP_DEFLATED
    assert (zipped.num_rows, zipped.num_bytes) == (500, (tmp_path / "r.zip").stat().st_size)
    assert zipped.num_bytes == pytest.approx(ZIPPED_SHARE * plain.num_bytes, rel=0.15)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["r.json", "r.zip"]


def test_equal_rows_make_equal_zips_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _drawn(np.random.default_rng(0), 5)
    write_submission(tmp_path / "r.zip", rows)
    first = (tmp_path / "r.zip").read_bytes()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1e7)
    write_submission(tmp_path / "r.zip", rows)
    assert (tmp_path / "r.zip").read_bytes() == first


def test_the_member_of_a_zip_is_json_by_name(tmp_path: Path) -> None:
    for name, member in (("a.json.zip", "a.json"), ("B.ZIP", "B.json"), ("c.d.zip", "c.d.json")):
        write_submission(tmp_path / name, [make_row()])
        assert zipfile.ZipFile(tmp_path / name).namelist() == [member]


@pytest.mark.parametrize("decimals", [0, 1, 3, 6])
def test_the_estimate_is_within_a_tenth(tmp_path: Path, decimals: int) -> None:
    rows = _drawn(np.random.default_rng(5), 300)
    written = write_submission(tmp_path / "r.json", rows, decimals)
    assert estimate_bytes(300, decimals) == pytest.approx(written.num_bytes, rel=0.1)


@pytest.mark.parametrize("scale", [0.05, 1, 20])
def test_the_estimate_from_known_boxes_is_within_a_hundredth(tmp_path: Path, scale: float) -> None:
    """Of photos of any size, where an estimate without the boxes would be wrong."""
    boxes = _boxes(2000)
    boxes = Detections(boxes.image_ids * 1000, boxes.boxes_xyxy * scale, boxes.scores, boxes.category_ids)
    rng = np.random.default_rng(0)
    ranking = Ranking(np.arange(400), rng.integers(400, 2000, (400, 20)), np.zeros((400, 20), np.float32))
    written = write_submission(tmp_path / "r.json", rows_from_ranking(boxes, ranking))
    assert estimate_bytes(400, boxes=boxes) == pytest.approx(written.num_bytes, rel=0.01)


def test_the_estimate_of_no_rows_is_the_empty_list(tmp_path: Path) -> None:
    assert estimate_bytes(0) == write_submission(tmp_path / "r.json", []).num_bytes
    assert estimate_bytes(10, boxes=Detections.empty()) == estimate_bytes(10)
    with pytest.raises(ValueError, match="decimals: expected 0 to 9"):
        estimate_bytes(1, 10)


def test_a_large_file_is_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert REFUSED_BYTES == 300_000_000
    size = write_submission(tmp_path / "r.json", [make_row()]).num_bytes
    monkeypatch.setattr("submissions.writer.REFUSED_BYTES", size)
    warning = write_submission(tmp_path / "r.json", [make_row()]).warning
    assert warning is not None
    assert "refused" in warning
    monkeypatch.setattr("submissions.writer.REFUSED_BYTES", size + 1)
    assert write_submission(tmp_path / "r.json", [make_row()]).warning is None


def test_a_large_file_is_warned_about_before_it_is_written() -> None:
    enough = next(rows for rows in range(100_000, 1_000_000, 1000) if estimate_bytes(rows) >= REFUSED_BYTES)
    assert size_warning(enough - 1000) is None
    warning = size_warning(enough)
    assert warning is not None
    assert warning.startswith("the file will be about 300 MB: ")
    assert "--out FILE.zip" in warning
    assert size_warning(enough, decimals=0) is None
    assert size_warning(enough, zipped=True) is None
    zipped = size_warning(3 * enough, zipped=True)
    assert zipped is not None
    assert "FILE.zip" not in zipped
    short = Detections(np.array([1]), np.array([[0.0, 0, 9, 9]]), np.ones(1), np.array([1]))
    assert size_warning(enough, boxes=short) is None


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
