import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.types import InputError, Photos, Split
from submissions.checker import Problem, Report, check_submission


def make_row(image_id: Any = 1, **change: Any) -> dict[str, Any]:
    row = {
        "query_image_id": image_id,
        "query_bbox": [1.5, 2, 30, 40.25],
        "query_cls": 3,
        "query_score": 0.75,
        "gallery_image_id": [100 + n for n in range(20)],
        "gallery_bbox": [[n, 2, n + 10, 40.5] for n in range(20)],
    }
    return {**row, **change}


@pytest.fixture
def check(tmp_path: Path) -> Any:
    def run(document: Any, split: Split | None = None) -> Report:
        path = tmp_path / "results.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return check_submission(path, split)

    return run


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Consumer photos 1 and 2, shop photos 100 to 119."""
    ids = np.array([1, 2, *range(100, 120)])
    return Split(tmp_path, "validation", Photos(ids, ids < 100), None, "0")


def _errors(report: Report) -> list[tuple[str, str]]:
    return [(one.where, one.what) for one in report.problems if one.severity == "error"]


def _warnings(report: Report) -> list[tuple[str, str]]:
    return [(one.where, one.what) for one in report.problems if one.severity == "warning"]


def test_a_sound_file_has_no_problem(check: Any, split: Split) -> None:
    report = check([make_row(1), make_row(2)], split)
    assert report.ok
    assert report.problems == ()
    assert (report.num_rows, report.num_hedged_boxes) == (2, 0)


def test_an_empty_list_answers_nothing(check: Any) -> None:
    assert check([]) == Report(check([]).path, 0, 0, (Problem("", "holds no entry, so every query is missed"),))


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        ({"query_image_id": "1"}, "query_image_id", 'expected an integer, got "1": the scorer would silently'),
        ({"query_image_id": 1.0}, "query_image_id", "expected an integer, got 1.0"),
        ({"query_image_id": True}, "query_image_id", "expected an integer, got true"),
        ({"query_image_id": None}, "query_image_id", "expected an integer, got null"),
        ({"query_bbox": [1, 2, 3]}, "query_bbox", "expected [x1, y1, x2, y2]"),
        ({"query_bbox": [1, 2, 3, "4"]}, "query_bbox", "expected [x1, y1, x2, y2]"),
        ({"query_bbox": [1, 2, float("nan"), 4]}, "query_bbox", "expected [x1, y1, x2, y2] in finite pixels"),
        ({"query_bbox": [1, 2, float("inf"), 4]}, "query_bbox", "expected [x1, y1, x2, y2] in finite pixels"),
        ({"query_bbox": [9, 2, 3, 4]}, "query_bbox", "is inverted"),
        ({"query_bbox": [1, 8, 3, 4]}, "query_bbox", "is inverted"),
        ({"query_cls": 0}, "query_cls", "expected an integer from 1 to 13, got 0"),
        ({"query_cls": 14}, "query_cls", "expected an integer from 1 to 13, got 14"),
        ({"query_cls": "3"}, "query_cls", "expected an integer from 1 to 13"),
        ({"query_cls": 3.0}, "query_cls", "expected an integer from 1 to 13"),
        ({"query_score": "0.5"}, "query_score", "expected a finite number"),
        ({"query_score": float("nan")}, "query_score", "expected a finite number, got NaN"),
        ({"gallery_image_id": 7}, "gallery_image_id", "expected a list of 20, got 7"),
        ({"gallery_image_id": list(range(19))}, "gallery_image_id", "expected 20 entries, got 19"),
        ({"gallery_image_id": ["x", *range(19)]}, "gallery_image_id[0]", 'expected an integer, got "x"'),
        ({"gallery_image_id": [*range(19), 19.5]}, "gallery_image_id[19]", "expected an integer, got 19.5"),
        ({"gallery_bbox": [[0, 0, 1, 1]] * 21}, "gallery_bbox", "expected 20 entries, got 21"),
        ({"gallery_bbox": [[0, 0, 1, 1]] * 19 + [[1, 0, 0, 1]]}, "gallery_bbox[19]", "is inverted"),
        ({"gallery_bbox": [[0, 0, 1, 1]] * 19 + [3]}, "gallery_bbox[19]", "expected [x1, y1, x2, y2]"),
    ],
)
def test_each_wrong_field_is_the_one_error(check: Any, change: dict[str, Any], where: str, what: str) -> None:
    report = check([make_row(1), make_row(2, **change)])
    assert not report.ok
    ((found_where, found_what),) = _errors(report)
    assert found_where == f"[1].{where}"
    assert found_what.startswith(what)


def test_all_problems_are_listed_in_the_order_of_the_file(check: Any) -> None:
    rows = [
        make_row("1", query_cls=99, gallery_image_id=["a", "b", *range(18)]),
        "no object",
        {key: value for key, value in make_row(2).items() if key != "query_score"},
        make_row(3, gallery_bbox=[[1, 1, 0, 0]] * 20),
    ]
    wheres = [where for where, _ in _errors(check(rows))]
    assert wheres == [
        "[0].query_image_id",
        "[0].query_cls",
        "[0].gallery_image_id[0]",
        "[0].gallery_image_id[1]",
        "[1]",
        "[2].query_score",
        *(f"[3].gallery_bbox[{n}]" for n in range(20)),
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "is not JSON"),
        ("[{", "is not JSON"),
        ("[1,]", "is not JSON"),
        ("{}", "expected a list of entries, got an object with 0 fields"),
        ("[" * 200_000, "is not JSON"),
    ],
)
def test_what_is_no_list_is_one_problem(check: Any, text: str, what: str) -> None:
    report = check(text)
    assert not report.ok
    assert report.num_rows is None
    (problem,) = report.problems
    assert problem.what.startswith(what)


def test_bytes_that_are_no_text_are_a_problem(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(b"\xff\xfe\x00[")
    assert check_submission(tmp_path / "r.json").problems[0].what.startswith("is not JSON")


def test_ids_must_be_of_the_right_kind_of_photo(check: Any, split: Split) -> None:
    ids = [100 + n for n in range(20)]
    report = check(
        [
            make_row(1),
            make_row(2),
            make_row(100),
            make_row(999),
            make_row(1, query_bbox=[0, 0, 1, 1], gallery_image_id=[1, 555, *ids[2:]]),
        ],
        split,
    )
    assert _errors(report) == [
        ("[2].query_image_id", "image 100 is a shop photo, expected a consumer photo"),
        ("[3].query_image_id", "image 999 is not in the split"),
        ("[4].gallery_image_id[0]", "image 1 is a consumer photo, expected a shop photo"),
        ("[4].gallery_image_id[1]", "image 555 is not in the split"),
    ]


def test_consumer_photos_without_an_entry_are_counted(check: Any, split: Split) -> None:
    report = check([make_row(1)], split)
    assert report.ok
    assert _warnings(report) == [("", "1 of the 2 consumer photos have no entry, the first is 2")]


def test_duplicates_are_errors(check: Any) -> None:
    report = check([make_row(1), make_row(2), make_row(1, query_score=0.1)])
    assert _errors(report) == [("[2]", "repeats [0]: same photo, box and category")]
    assert report.num_hedged_boxes == 0


def test_class_hedging_is_marked(check: Any) -> None:
    hedged = [make_row(1, query_cls=category) for category in range(1, 14)]
    report = check([*hedged, make_row(2), make_row(2, query_bbox=[1.5, 2, 30, 40], query_cls=4)])
    assert report.ok
    assert report.num_hedged_boxes == 1
    ((where, what),) = _warnings(report)
    assert where == "[0]"
    assert what.startswith("class hedging: box [1.5, 2, 30, 40.25] of photo 1 is entered under 13 categories (1, 2,")


def test_the_same_answer_twice_is_a_warning_but_filling_up_is_not(check: Any) -> None:
    ids, boxes = make_row()["gallery_image_id"], make_row()["gallery_bbox"]
    filled = make_row(1, gallery_image_id=ids[:5] + [ids[4]] * 15, gallery_bbox=boxes[:5] + [boxes[4]] * 15)
    same_photo = make_row(2, gallery_image_id=[7] * 20)
    twice = make_row(3, gallery_image_id=[ids[3], *ids[1:]], gallery_bbox=[boxes[3], *boxes[1:]])
    assert _warnings(check([filled, same_photo, twice])) == [("[2]", "1 of its gallery boxes are entered twice")]


def test_scores_outside_the_unit_interval_are_a_warning(check: Any) -> None:
    twice = make_row()["gallery_bbox"][0:1] * 2 + make_row()["gallery_bbox"][2:]
    report = check([make_row(1, query_score=7, gallery_image_id=[4] * 20, gallery_bbox=twice)])
    assert report.ok
    assert _warnings(report) == [
        ("[0].query_score", "is outside [0, 1]: 7"),
        ("[0]", "1 of its gallery boxes are entered twice"),
    ]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"r\.json: no such file"):
        check_submission(tmp_path / "r.json")
    with pytest.raises(InputError, match="cannot be read"):
        check_submission(tmp_path)


def test_problems_are_errors_unless_said_otherwise() -> None:
    assert Problem("[0]", "x").severity == "error"


def test_neither_reader_nor_checker_imports_torch() -> None:
    code = (
        "import sys, submissions.checker, submissions.writer, submissions.named\n"
        "import harness.data.deepfashion2, harness.data.doctor, harness.data.exports, harness.data.crops\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
