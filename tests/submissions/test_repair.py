"""The mended copy: what is changed, what is left, and that a sound file keeps its score and its bytes."""

import copy
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.scoring.official import evaluate_files
from harness.types import InputError, Photos
from submissions.checker import check_submission
from submissions.photos import KnownPhotos
from submissions.repair import Repaired, repair_submission
from tests.submissions.samples import as_xywh, make_photos, make_row, make_rows

SIZE = (400, 600)


@pytest.fixture
def mend(tmp_path: Path) -> Any:
    def run(document: Any, photos: KnownPhotos | None = None) -> tuple[Repaired, Any]:
        path, out = tmp_path / "r.json", tmp_path / "out.json"
        if isinstance(document, bytes):
            path.write_bytes(document)
        else:
            path.write_text(document if isinstance(document, str) else json.dumps(document))
        before = path.read_bytes()
        found = repair_submission(path, out, photos)
        assert path.read_bytes() == before
        assert {one.name for one in tmp_path.iterdir()} == {"r.json", "out.json"}
        assert found.after == check_submission(out, photos)
        return found, json.loads(out.read_bytes())

    return run


def _done(found: Repaired) -> list[tuple[str, int, tuple[int, ...]]]:
    return [(one.what, one.num, one.first_rows) for one in found.repairs]


@pytest.mark.parametrize(
    ("change", "expected", "what", "num"),
    [
        ({"query_image_id": "000001"}, {"query_image_id": 1}, "whole number that was a text", 1),
        ({"query_image_id": 1.0}, {"query_image_id": 1}, "whole number that had a fraction of 0", 1),
        ({"query_cls": "3"}, {"query_cls": 3}, "whole number that was a text", 1),
        ({"query_score": "0.75"}, {"query_score": 0.75}, "number that was a text", 1),
        ({"query_bbox": ["1.5", 2, "3e1", 40.25]}, {"query_bbox": [1.5, 2, 30, 40.25]}, "number that was a text", 2),
        (
            {"query_bbox": [30, 40.25, -1.5, 2]},
            {"query_bbox": [-1.5, 2, 30, 40.25]},
            "box with its corners put in order",
            1,
        ),
        (
            {"gallery_image_id": [str(100 + n) for n in range(20)]},
            {"gallery_image_id": [100 + n for n in range(20)]},
            "whole number that was a text",
            20,
        ),
        (
            {"gallery_image_id": [*range(25)], "gallery_bbox": [[0, 0, n + 1, 9] for n in range(22)]},
            {"gallery_image_id": [*range(20)], "gallery_bbox": [[0, 0, n + 1, 9] for n in range(20)]},
            "gallery list cut to 20",
            1,
        ),
        (
            {"gallery_image_id": [7, 8], "gallery_bbox": [[0, 0, 1, 9], [0, 0, 2, 9]]},
            {"gallery_image_id": [7] + [8] * 19, "gallery_bbox": [[0, 0, 1, 9]] + [[0, 0, 2, 9]] * 19},
            "gallery list filled up to 20 with its last entry",
            1,
        ),
    ],
)
def test_what_has_one_right_reading_is_mended(mend: Any, change: Any, expected: Any, what: str, num: int) -> None:
    found, rows = mend([make_row(9), make_row(1, **change)])
    assert rows == [make_row(9), make_row(1, **expected)]
    assert [type(value) for value in rows[1].values()] == [type(value) for value in make_row(1, **expected).values()]
    assert _done(found) == [(what, num, (1,))]
    assert found.before is not None
    assert not found.before.ok
    assert found.after.ok


@pytest.mark.parametrize(
    "change",
    [
        {"query_score": float("nan")},
        {"query_image_id": "shirt 7"},
        {"query_image_id": 1.5},
        {"query_image_id": True},
        {"query_cls": 14},
        {"query_bbox": [1, 2, 3]},
        {"query_bbox": [-9, 2, -3, 4]},
        {"query_bbox": [30, 40.25, 1.5, 2]},
        {"gallery_image_id": []},
        {"gallery_image_id": [*range(19)]},
        {"gallery_bbox": []},
    ],
)
def test_what_has_none_is_left_and_said(mend: Any, change: Any) -> None:
    document = json.dumps([make_row(9), make_row(1, **change)])
    found, _ = mend(document)
    assert found.repairs == ()
    assert not found.after.ok


@pytest.mark.parametrize(
    ("change", "is_mended"),
    [
        ({"query_image_id": "000001"}, True),
        ({"query_image_id": 7.0}, True),
        ({"query_image_id": "shirt 7"}, False),
        ({"query_image_id": 7.5}, False),
        ({"gallery_image_id": [*range(19), "19"]}, True),
        ({"query_cls": "3"}, True),
        ({"query_cls": "14"}, False),
        ({"query_cls": 3.5}, False),
        ({"query_score": "0.5"}, True),
        ({"query_score": "high"}, False),
        ({"query_bbox": ["1", "2", 3, "4"]}, True),
        ({"query_bbox": ["1", "2", 3, "x"]}, False),
        ({"query_bbox": ["1", "2", "3"]}, False),
    ],
)
def test_an_error_says_that_fix_mends_it_where_it_does(mend: Any, change: Any, is_mended: bool) -> None:
    found, _ = mend([make_row(1, **change)])
    assert found.after.ok == is_mended
    assert found.before is not None
    assert [one.what.endswith("; --fix mends this") for one in found.before.problems] == [is_mended]


def test_a_missing_field_is_left_while_the_rest_of_the_row_is_mended(mend: Any) -> None:
    row = make_row("4")
    del row["query_score"]
    found, rows = mend([row])
    assert rows == [{**row, "query_image_id": 4}]
    assert [one.where for one in found.after.problems] == ["[0].query_score"]


def test_copies_are_left_out_even_if_mending_made_them_so(mend: Any) -> None:
    rows = [make_row(1), make_row(2), make_row(1), make_row("2"), make_row(1, query_score=0.1)]
    found, mended = mend(rows)
    assert mended == [make_row(1), make_row(2), make_row(1, query_score=0.1)]
    assert ("exact copy of an earlier row left out", 2, (2, 3)) in _done(found)
    assert [one.kind for one in found.after.problems] == ["repeat"]


def test_boxes_that_stick_out_a_little_are_clipped_where_the_photos_are_known(mend: Any) -> None:
    row = make_row(1, query_bbox=[-5, 10, 101.5, 202], gallery_bbox=[[20, 30, 102.5, 205]] * 20)
    untouched = [row, make_row(2, query_bbox=[90, 10, 101, 50])]
    assert mend(untouched)[1] == untouched
    found, mended = mend(untouched, make_photos(2, size=(100, 200)))
    assert mended[0] == {**row, "query_bbox": [0, 10, 100, 200], "gallery_bbox": [[20, 30, 100, 200]] * 20}
    assert mended[1] == untouched[1]
    assert _done(found) == [("box clipped to its photo", 21, (0,))]
    beside = [make_row(1, query_bbox=[100, 10, 104, 50])]
    assert mend(beside, make_photos(1, size=(100, 200)))[1] == beside


def test_boxes_are_not_clipped_where_many_reach_far_out_of_their_photos(mend: Any) -> None:
    """Resized photos, y before x or ids off by one once were clipped until nothing was left to notice."""
    rows = make_rows(99)
    for row in rows[:4]:
        row["query_bbox"] = [10, 10, 300, 700]
    rows[9]["query_bbox"] = [10, 10, 300, 604]
    found, mended = mend(rows, make_photos(99, SIZE))
    assert _done(found) == [("box clipped to its photo", 1, (9,))]
    assert mended[:4] == rows[:4]
    rows[5]["query_bbox"] = rows[6]["query_bbox"] = [10, 10, 300, 606]
    found, mended = mend(rows, make_photos(99, SIZE))
    assert mended == rows
    assert {one.kind: one.what for one in found.after.problems}["far-outside"] == (
        "query_bbox: 6.1% of the boxes reach out of their photos by more than 5 px: resized photos? y1, x1, y2, x2? "
        "ids off by one? --fix leaves them"
    )


def _centred(box: list[float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [round((x1 + x2) / 2, 2), round((y1 + y2) / 2, 2), round(x2 - x1, 2), round(y2 - y1, 2)]


@pytest.mark.parametrize("photos", [None, make_photos(60, SIZE)])
@pytest.mark.parametrize("num", [60, 30, 6])
def test_centres_are_not_taken_for_xywh(mend: Any, photos: Any, num: int) -> None:
    """They once were converted as if they were left upper corners, with a clean bill."""
    rows = make_rows(60)
    for row in rows[:num]:
        row["query_bbox"], row["gallery_bbox"] = _centred(row["query_bbox"]), [*map(_centred, row["gallery_bbox"])]
    found, mended = mend(rows, photos)
    assert mended == rows
    assert not found.after.ok
    if num == 60:
        whats = [one.what for one in found.after.problems if one.kind == "looks-like-xywh"]
        assert len(whats) == 2
        assert all("or [centre x, centre y, width, height], as which 100.0% are possible" in what for what in whats)


@pytest.mark.parametrize("photos", [None, make_photos(99, SIZE)])
@pytest.mark.parametrize("part", ["1 %", "half", "first entries"])
def test_rows_of_xywh_are_not_taken_for_corners_in_the_wrong_order(mend: Any, photos: Any, part: str) -> None:
    rows = make_rows(99)
    for row in rows[: {"1 %": 1, "half": 50, "first entries": 99}[part]]:
        if part == "first entries":
            row["gallery_bbox"][0] = as_xywh(row["gallery_bbox"][0])
        else:
            row["gallery_bbox"] = [*map(as_xywh, row["gallery_bbox"])]
    found, mended = mend(rows, photos)
    assert mended == rows
    (what,) = [one.what for one in found.after.problems if one.kind in ("ambiguous-corners", "looks-like-xywh")]
    if photos is not None and part != "half":
        assert what.startswith("gallery_bbox: ")
        assert "100.0% lie in their photos if read as [x, y, width, height]: these rows look like it" in what


@pytest.mark.parametrize("fields", ["query_bbox", "query_bbox gallery_bbox"])
@pytest.mark.parametrize("convert", [as_xywh, _centred])
def test_every_other_row_in_another_convention_is_left_without_photos(mend: Any, fields: str, convert: Any) -> None:
    """Converting the field would spoil the rows between."""
    rows = make_rows(98)
    for row in rows[::2]:
        row["query_bbox"] = convert(row["query_bbox"])
        if "gallery" in fields:
            row["gallery_bbox"] = [*map(convert, row["gallery_bbox"])]
    assert mend(rows)[1] == rows


@pytest.mark.parametrize("num", [3, 50])
def test_photos_tell_corners_in_the_wrong_order(mend: Any, num: int) -> None:
    rows = make_rows(99)
    wrong = copy.deepcopy(rows)
    for row in wrong[:num]:
        row["gallery_bbox"] = [[box[n] for n in (2, 3, 0, 1)] for box in row["gallery_bbox"]]
    found, mended = mend(wrong, make_photos(99, SIZE))
    assert mended == rows
    assert _done(found) == [("box with its corners put in order", 20 * num, tuple(range(min(num, 20))))]
    found, mended = mend(wrong)
    assert mended == wrong
    (what,) = [one.what for one in found.after.problems if one.kind == "ambiguous-corners"]
    assert "either corners in the wrong order or [x, y, width, height] in these rows; the photo sizes of --data" in what


def test_corners_of_a_whole_field_in_the_wrong_order_need_no_photos(mend: Any) -> None:
    rows = make_rows(60)
    wrong = [{**row, "query_bbox": [row["query_bbox"][n] for n in (2, 3, 0, 1)]} for row in rows]
    assert mend(wrong)[1] == rows


@pytest.mark.parametrize("photos", [None, make_photos(60, SIZE)])
def test_xywh_is_converted_as_a_whole(mend: Any, photos: Any) -> None:
    rows = make_rows(60)
    wrong = copy.deepcopy(rows)
    for row in wrong:
        row["gallery_bbox"] = [as_xywh(box) for box in row["gallery_bbox"]]
    found, mended = mend(wrong, photos)
    assert mended == rows
    assert _done(found)[0][:2] == ("box converted from [x, y, width, height]", 1200)


def test_boxes_that_only_may_be_xywh_are_left(mend: Any) -> None:
    rows = make_rows(60)
    for number, row in enumerate(rows):
        x1, y1, x2, y2 = row["query_bbox"]
        row["query_bbox"] = [[x2, y1, x1, y2], [x1, y2, x2, y1], *[row["query_bbox"]] * 38][number % 40]
    found, mended = mend(rows)
    assert mended == rows
    assert "may look like" in found.after.problems[-1].what
    found, mended = mend(rows, make_photos(60, SIZE))  # with the photos it is plain that the field is not
    assert mended == rows
    assert "ambiguous-corners" in {one.kind for one in found.after.problems}


def test_too_few_boxes_to_tell_are_converted_with_those_of_the_other_field(mend: Any) -> None:
    rows = make_rows(10)
    wrong = [
        {
            **row,
            "query_image_id": str(row["query_image_id"]),
            "query_bbox": as_xywh(row["query_bbox"]),
            "gallery_bbox": [as_xywh(box) for box in row["gallery_bbox"]],
        }
        for row in rows
    ]
    assert mend(wrong)[1] == rows


def test_boxes_in_doubt_are_left_in_rows_that_are_mended(mend: Any) -> None:
    """The gallery is surely xywh, but only one of 20 query boxes is inverted: neither is touched."""
    rows = make_rows(20)
    for row in rows:
        row["gallery_bbox"] = [as_xywh(box) for box in row["gallery_bbox"]]
    rows[7]["query_bbox"] = [rows[7]["query_bbox"][n] for n in (2, 1, 0, 3)]
    found, mended = mend([{**row, "query_image_id": str(row["query_image_id"])} for row in rows])
    assert mended == rows
    assert [what for what, *_ in _done(found)] == ["whole number that was a text"]
    rows[7]["query_bbox"] = [rows[7]["query_bbox"][n] for n in (2, 1, 0, 3)]
    assert mend(rows)[1][0]["gallery_bbox"] == make_rows(20)[0]["gallery_bbox"]


def test_normalised_boxes_are_left(mend: Any) -> None:
    """They may be corners or centres, so not even what looks like width and height is added up."""
    rows = make_rows(60)
    for row in rows:
        row["gallery_bbox"] = [[round(value / 600, 4) for value in as_xywh(box)] for box in row["gallery_bbox"]]
    found, mended = mend(rows)
    assert mended == rows
    assert "looks-normalised" in {one.kind for one in found.after.problems}


def test_a_row_nested_too_deep_for_python_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_deep(_: Any) -> Any:
        raise RecursionError

    (tmp_path / "r.json").write_text(json.dumps([make_row("1")]))
    monkeypatch.setattr("submissions.repair.walk_rows", too_deep)
    with pytest.raises(InputError, match=r"r\.json: has a row that is nested too deep"):
        repair_submission(tmp_path / "r.json", tmp_path / "out.json")


def test_categories_from_0_are_left(mend: Any) -> None:
    rows = [{**row, "query_cls": row["query_cls"] - 1} for row in make_rows(26)]
    found, mended = mend(rows)
    assert mended == rows
    assert {one.kind for one in found.after.problems} == {"no-category", "looks-like-from-0"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings_become_utf_8(mend: Any, encoding: str) -> None:
    found, rows = mend(json.dumps([make_row(1)]).encode(encoding))
    assert rows == [make_row(1)]
    assert found.before is None
    assert _done(found) == [("file written as plain UTF-8", 1, ())]
    assert found.after.ok


def test_a_field_given_twice_is_given_once_if_it_says_the_same(mend: Any) -> None:
    text = json.dumps([make_row(1)])
    found, rows = mend(text.replace('"query_cls": 3,', '"query_cls": 3, "query_cls": 3,'))
    assert rows == [make_row(1)]
    assert _done(found) == [("field given twice with the same value, now once", 1, (0,))]
    found, _ = mend(text.replace('"query_cls": 3,', '"query_cls": 4, "query_cls": 3,'))
    assert found.repairs == ()
    assert not found.after.ok


def test_an_archive_is_mended_into_a_plain_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
        archive.writestr("r.json", json.dumps([make_row("1")]))
    repair_submission(tmp_path / "r.zip", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == [make_row(1)]


def test_a_row_that_differs_by_minus_one_and_minus_two_is_no_copy(mend: Any) -> None:
    """Python's hash of -1 is that of -2, so the second row was left out as an exact copy of the first."""
    rows = [make_row(1), make_row(1)]
    rows[0]["gallery_bbox"][4], rows[1]["gallery_bbox"][4] = [-1, 5, 90, 100], [-2, 5, 90, 100]
    found, mended = mend(rows)
    assert (found.repairs, mended) == ((), rows)
    assert [one.kind for one in found.after.problems if one.severity == "error"] == ["repeat"]


def test_an_archive_with_nothing_to_mend_becomes_a_plain_file_too(tmp_path: Path) -> None:
    """It once was copied as it is, a zip by the name of .json."""
    text = json.dumps([make_row(1)], indent=1)
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
        archive.writestr("r.json", text)
    assert repair_submission(tmp_path / "r.zip", tmp_path / "out.json").repairs == ()
    assert (tmp_path / "out.json").read_text() == text


def test_the_copy_replaces_no_other_input(tmp_path: Path) -> None:
    path, query, data = tmp_path / "r.json", tmp_path / "query.json", tmp_path / "data"
    data.mkdir()
    kept = [query, data / "information.json"]
    for one in (path, *kept):
        one.write_text(json.dumps([make_row("1")]))
    (tmp_path / "link.json").symlink_to(query)
    (tmp_path / "folder").symlink_to(data)
    for out in (query, tmp_path / "link.json", kept[1], tmp_path / "folder" / "information.json"):
        with pytest.raises(InputError, match=r"json: is .*name another file for the copy"):
            repair_submission(path, out, None, [query, data])
    assert all(json.loads(one.read_text()) == [make_row("1")] for one in kept)
    repair_submission(path, data / "mended.json", None, [query, data])
    assert json.loads((data / "mended.json").read_text()) == [make_row(1)]


def test_a_file_of_another_split_is_not_held_against_photos_that_are_not_its_own(tmp_path: Path) -> None:
    """Boxes once were clipped to whatever photos had their numbers, and the copy passed."""

    def other_splits() -> Any:
        ids = np.array([*range(1, 40), *range(1000, 1020)])
        yield "test", Photos(ids, ids < 40)

    path, out = tmp_path / "r.json", tmp_path / "out.json"
    rows = make_rows(30)
    for number, row in enumerate(rows):
        row["gallery_image_id"] = [n + 900 for n in row["gallery_image_id"]]
        row["query_bbox"] = [10, 10, 101, 100] if number else [10, 10, 104, 100]
    photos = make_photos(30, (100, 150), other_splits=other_splits)
    path.write_text(json.dumps(rows))
    with pytest.raises(InputError, match=r"r\.json: only 50\.0%.*--split test\? Nothing was written"):
        repair_submission(path, out, photos)
    for row in rows:
        row["gallery_image_id"] = [str(n) for n in row["gallery_image_id"]]
    path.write_text(json.dumps(rows))
    with pytest.raises(InputError, match="--split test"):
        repair_submission(path, out, photos)
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_mended_at_all_leaves_nothing_behind(tmp_path: Path) -> None:
    path, out = tmp_path / "r.json", tmp_path / "out.json"
    path.write_text(json.dumps([make_row("1"), make_row(2)])[:-9])
    with pytest.raises(InputError, match=r"r\.json: ends in the middle of row 1.*cannot be mended"):
        repair_submission(path, out)
    path.write_bytes(b"\xff\xfe[")
    with pytest.raises(InputError, match="begins as utf-16, but is not"):
        repair_submission(path, out)
    with pytest.raises(InputError, match="is the file to mend"):
        repair_submission(path, path)
    with pytest.raises(InputError, match="plain JSON"):
        repair_submission(path, tmp_path / "out.zip")
    with pytest.raises(InputError, match="no such folder"):
        repair_submission(path, tmp_path / "nowhere" / "out.json")
    with pytest.raises(InputError, match="no such file"):
        repair_submission(tmp_path / "nowhere.json", out)
    assert list(tmp_path.iterdir()) == [path]


WRONG = st.sampled_from(
    [
        {},
        {"query_image_id": "1"},
        {"query_image_id": 2.0},
        {"query_image_id": "x"},
        {"query_cls": 3.0},
        {"query_cls": 0},
        {"query_bbox": [30, 2, 1, 40]},
        {"query_bbox": [-30, 2, 900, 40]},
        {"query_bbox": ["1", "2", "3", "4"]},
        {"query_bbox": [5, 5, "1", 1]},
        {"query_score": float("nan")},
        {"query_score": "1e400"},
        {"gallery_image_id": ["100", 101.0, *range(102, 120)]},
        {"gallery_image_id": [100] * 25, "gallery_bbox": [[9, 9, -3, 1]] * 25},
        {"gallery_image_id": [100], "gallery_bbox": [[1, 2, 3000, 4]]},
        {"gallery_bbox": None},
        {"note": 1},
    ]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 3), WRONG, WRONG), min_size=1, max_size=12),
    st.sampled_from([None, (100, 200)]),
    st.integers(0, 60),
    st.sampled_from(["", "query_bbox", "gallery_bbox", "query_bbox gallery_bbox"]),
)
def test_mending_what_was_mended_changes_nothing(
    tmp_path: Path, changes: Any, size: Any, num_sound: int, xywh: str
) -> None:
    rows = [
        make_row(image_id, **one, **{k: v for k, v in other.items() if k not in one})
        for image_id, one, other in changes
    ]
    rows[1:1] = make_rows(num_sound)
    for row in rows[1 : 1 + num_sound]:
        for name in xywh.split():
            row[name] = as_xywh(row[name]) if name == "query_bbox" else [as_xywh(box) for box in row[name]]
    photos = make_photos(60, size)
    first, second, third = (tmp_path / f"{n}.json" for n in range(3))
    first.write_text(json.dumps(rows))
    done = repair_submission(first, second, photos)
    again = repair_submission(second, third, photos)
    assert again.repairs == ()
    assert third.read_bytes() == second.read_bytes()
    assert again.after.problems == done.after.problems
    mended = {one.kind for one in done.after.problems}
    assert "copy" not in mended
    assert "inverted-box" not in mended or mended & {"looks-like-xywh", "ambiguous-corners", "looks-normalised"}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.integers(1, 40), st.integers(0, 1000), st.data())
def test_a_file_without_errors_keeps_its_score(tmp_path: Path, num_rows: int, seed: int, data: st.DataObject) -> None:
    """And its bytes: without photos nothing but errors is mended."""
    rows = make_rows(num_rows, seed)
    for row in rows:
        row["query_score"] = data.draw(st.sampled_from([0.5, 3, -1, 0.25]))
        row["query_image_id"] = data.draw(st.integers(1, 3))
        row["query_cls"] = data.draw(st.integers(1, 3))
        repeated = data.draw(st.integers(0, 19))
        row["gallery_bbox"][repeated], row["gallery_image_id"][repeated] = row["gallery_bbox"][0], 100
    query = [{"query_image_id": n, "bbox": [9, 9, 300, 400], "cls": n, "style": 1, "pair_id": n} for n in (1, 2, 3)]
    gallery = [{"gallery_image_id": 99 + n, "bbox": [80, 90, 300, 400], "style": 1, "pair_id": n} for n in range(1, 4)]
    paths = [tmp_path / name for name in ("r.json", "query.json", "gallery.json")]
    for path, value in zip(paths, (rows, query, gallery), strict=True):
        path.write_text(json.dumps(value))
    assert check_submission(paths[0]).ok
    found = repair_submission(paths[0], tmp_path / "out.json")
    assert found.repairs == ()
    assert (tmp_path / "out.json").read_bytes() == paths[0].read_bytes()
    before, after = (evaluate_files(path, *paths[1:]) for path in (paths[0], tmp_path / "out.json"))
    assert before.hit_ranks.tolist() == after.hit_ranks.tolist()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.integers(2, 12), st.integers(0, 1000), st.data())
def test_mending_a_sound_file_that_was_spoilt_restores_its_score(
    tmp_path: Path, num_rows: int, seed: int, data: st.DataObject
) -> None:
    rows = make_rows(num_rows, seed)
    for row in rows:
        row["query_image_id"], row["query_cls"] = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    spoilt = copy.deepcopy(rows)
    for row in spoilt:
        match data.draw(st.integers(0, 4)):
            case 0:
                row["query_image_id"] = str(row["query_image_id"])
            case 1:
                row["gallery_image_id"] = [float(one) for one in row["gallery_image_id"]]
            case 2:
                row["gallery_image_id"].append(7)
                row["gallery_bbox"].append([0, 0, 1, 1])
    spoilt += [
        copy.deepcopy(spoilt[number]) for number in data.draw(st.lists(st.integers(0, num_rows - 1), max_size=3))
    ]
    path, out = tmp_path / "r.json", tmp_path / "out.json"
    path.write_text(json.dumps(spoilt))
    assert repair_submission(path, out).after.ok
    assert json.loads(out.read_text()) == rows
