import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.scoring.truth import Gallery, Queries
from harness.types import InputError
from submissions.checker import _check_answers, check_submission
from submissions.photos import KnownPhotos
from submissions.problems import MOST_KEPT, Problem, Report, Tally
from tests.submissions.samples import make_photos, make_row, make_rows


@pytest.fixture
def check(tmp_path: Path) -> Any:
    def run(document: Any, photos: KnownPhotos | None = None) -> Report:
        path = tmp_path / "results.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return check_submission(path, photos)

    return run


@pytest.fixture
def split() -> KnownPhotos:
    return make_photos()


def _errors(report: Report) -> list[tuple[str, str]]:
    return [(one.where, one.what) for one in report.problems if one.severity == "error"]


def _warnings(report: Report) -> list[tuple[str, str]]:
    return [(one.where, one.what) for one in report.problems if one.severity == "warning"]


def test_a_sound_file_has_no_problem(check: Any, split: KnownPhotos) -> None:
    report = check([make_row(1), make_row(2)], split)
    assert report.ok
    assert report.problems == ()
    assert (report.num_rows, report.num_hedged_boxes) == (2, 0)


def test_an_empty_list_answers_nothing(check: Any) -> None:
    report = check([])
    assert (report.ok, report.num_rows) == (False, 0)
    assert report.problems == (Problem("", "holds no entry, so every query is missed", "error", "no-entry"),)


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
        ({"query_image_id": -1}, "query_image_id", "expected an integer from 0 on, got -1"),
        ({"query_image_id": 2**53}, "query_image_id", "expected an integer, got 9007199254740992"),
        ({"query_image_id": 10**30}, "query_image_id", "expected an integer, got 10000000"),
        ({"query_cls": True}, "query_cls", "expected an integer from 1 to 13, got true"),
        ({"query_score": True}, "query_score", "expected a finite number, got true"),
        ({"query_score": -float("inf")}, "query_score", "expected a finite number, got -Infinity"),
        ({"query_bbox": {"x": 1}}, "query_bbox", "expected [x1, y1, x2, y2] in finite pixels, got an object with 1"),
        ({"query_bbox": [-9, 2, -3, 4]}, "query_bbox", "lies outside its photo"),
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
        ("[{", "ends in the middle of row 0"),
        ("{}", "expected a JSON list with one object a row, got '{}'"),
        ("[" * 200_000, "row 0: is nested more than"),
    ],
)
def test_what_is_no_list_is_one_problem(check: Any, text: str, what: str) -> None:
    report = check(text)
    assert not report.ok
    assert report.num_rows is None
    (problem,) = report.problems
    assert problem.what.startswith(what)


def test_a_file_that_ends_early_shows_the_problems_of_the_rows_before(check: Any, split: KnownPhotos) -> None:
    report = check(json.dumps([make_row(1), make_row(2, query_cls=99), make_row(3)])[:-20], split)
    assert report.num_rows == 2
    assert [(one.where, one.kind) for one in report.problems] == [
        ("[1].query_cls", "no-category"),
        ("", "not-readable"),
    ]


def test_bytes_that_are_no_text_are_a_problem(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(b"\xff\xfe\x00[")
    assert "UTF-16" in check_submission(tmp_path / "r.json").problems[0].what


def test_ids_must_be_of_the_right_kind_of_photo(check: Any, split: KnownPhotos) -> None:
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
        ("[3].query_image_id", "image 999 is not in the validation split"),
        ("[4].gallery_image_id[0]", "image 1 is a consumer photo, expected a shop photo"),
        ("[4].gallery_image_id[1]", "image 555 is not in the validation split"),
    ]


def test_consumer_photos_without_an_entry_are_counted(check: Any, split: KnownPhotos) -> None:
    report = check([make_row(1)], split)
    assert report.ok
    assert _warnings(report) == [("", "1 of the 2 consumer photos have no entry, the first is 2")]


def test_photos_without_an_entry_are_not_counted_where_rows_cannot_be_read(check: Any, split: KnownPhotos) -> None:
    """356 of 356 photos once had no entry, because every box was given in another way."""
    boxless = [make_row(1, query_bbox={"x": 1}), make_row(2, query_bbox=None)]
    assert "unanswered" not in {one.kind for one in check(boxless, split).problems}
    assert "unanswered" not in {one.kind for one in check([make_row("1"), make_row("2")], split).problems}
    groups = check([make_row(1, query_bbox=None), make_row(1, query_score=3)], make_photos(2)).groups
    assert [one.kind.name for one in groups] == ["not-a-box", "odd-score", "unanswered"]


def test_duplicates_are_errors(check: Any) -> None:
    rows = [make_row(1), make_row(2), make_row(1, query_score=0.1), make_row(1), make_row(1, query_score=0.1)]
    report = check([*rows, make_row(1, query_score=float("nan")), make_row(2) | {"query_bbox": [1.5, 2.0, 30, 40.25]}])
    assert _errors(report) == [
        ("[2]", "repeats [0]: same photo, box and category"),
        ("[3]", "is an exact copy of [0]"),
        ("[4]", "is an exact copy of [2]"),
        ("[5]", "repeats [0]: same photo, box and category"),
        ("[5].query_score", "expected a finite number, got NaN"),
        ("[6]", "is an exact copy of [1]"),
    ]
    assert report.num_hedged_boxes == 0


def test_a_field_given_twice_is_an_error_and_one_that_nobody_reads_a_warning(check: Any) -> None:
    text = json.dumps([make_row(1), make_row(2, note="x", more=1)])
    report = check(text.replace('"query_cls": 3,', '"query_cls": 4, "query_cls": 3,', 1))
    assert _errors(report) == [("[0].query_cls", '"query_cls" is given 2 times')]
    assert _warnings(report) == [("[1]", 'has fields that nobody reads: "note", "more"')]


def test_class_hedging_is_marked(check: Any) -> None:
    hedged = [make_row(1, query_cls=category) for category in range(1, 14)]
    report = check([*hedged, make_row(2), make_row(2, query_bbox=[1.5, 2, 30, 40], query_cls=4)])
    assert report.ok
    assert report.num_hedged_boxes == 1
    (where, what), (_, overall) = _warnings(report)
    assert where == "[0]"
    assert overall.startswith(
        "class hedging: the boxes of 86.7% of the rows stand under at least 7 of the 13 categories"
    )
    assert what.startswith("class hedging: box [1.5, 2, 30, 40.25] of photo 1 is entered under 13 categories (1, 2,")


def test_hedging_with_boxes_that_are_moved_a_little_is_noticed(check: Any) -> None:
    """No two of these boxes are equal, and only equal ones were counted once."""
    rows = [
        {**row, "query_cls": category, "query_bbox": [value + (category % 5) - 2 for value in row["query_bbox"]]}
        for row in make_rows(20)
        for category in range(1, 14)
    ]
    kinds = {one.kind: one.what for one in check(rows).problems}
    assert kinds["much-class-hedging"].startswith("class hedging: the boxes of 100.0% of the rows stand under at least")
    assert "much-class-hedging" not in {one.kind for one in check(rows[::3]).problems}


def test_thousands_of_boxes_on_top_of_each_other_are_an_error(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.scoring.hedging.MAX_STACKED", 3)
    report = check([make_row(1, query_bbox=[10, 10, 300 + n, 400]) for n in range(6)])
    assert _errors(report) == [
        (
            "",
            "photo 1: has thousands of boxes on top of each other, which no detector finds; keep the best of them",
        )
    ]


def test_a_gallery_of_one_entry_in_most_rows_is_a_warning(check: Any) -> None:
    """It once was taken for filling up."""
    rows = make_rows(9)
    for row in rows[:5]:
        row["gallery_image_id"], row["gallery_bbox"] = [7] * 20, [[1, 2, 3, 4]] * 20
    (found,) = _warnings(check(rows))
    assert found[1].startswith("5 of 9 gallery lists name the same entry 20 times")
    rows[4]["gallery_bbox"] = [[1, 2, 3, 4]] * 19 + [[1, 2, 3, 5]]
    assert "same-entry" not in {one.kind for one in check(rows).problems}


def test_the_same_answer_twice_is_a_warning_but_filling_up_is_not(check: Any) -> None:
    ids, boxes = make_row()["gallery_image_id"], make_row()["gallery_bbox"]
    filled = make_row(1, gallery_image_id=ids[:5] + [ids[4]] * 15, gallery_bbox=boxes[:5] + [boxes[4]] * 15)
    same_photo = make_row(2, gallery_image_id=[7] * 20)
    twice = make_row(3, gallery_image_id=[ids[3], *ids[1:]], gallery_bbox=[boxes[3], *boxes[1:]])
    found = _warnings(check([filled, same_photo, twice]))
    assert found == [("[2]", "repeats 1 of its gallery boxes; each repeat wastes a rank")]


def _num_repeated(answers: list[Any]) -> int:
    """How many entries are wasted, one by one: repeats, but not the last entry's that fill up the end."""
    answers = list(answers)
    while len(answers) > 1 and answers[-1] == answers[-2]:
        answers.pop()
    return len(answers) - len(set(answers))


@given(st.lists(st.lists(st.integers(0, 3), min_size=20, max_size=20), min_size=1, max_size=6))
def test_repeated_answers_are_counted_as_one_by_one(lists: list[list[int]]) -> None:
    tally = Tally()
    boxes = np.array([[[value // 2, 0, 9, 9] for value in one] for one in lists], np.float64)
    ids = np.array(lists) % 2
    _check_answers(np.arange(len(lists)), ids, boxes, tally)
    expected = [(f"[{row}]", _num_repeated(one)) for row, one in enumerate(lists) if _num_repeated(one)]
    problems = tally.report(Path(), 0, 0).problems
    assert [(one.where, int(one.what.split()[1])) for one in problems] == expected


def test_scores_outside_the_unit_interval_are_a_warning(check: Any) -> None:
    twice = make_row()["gallery_bbox"][0:1] * 2 + make_row()["gallery_bbox"][2:]
    report = check([make_row(1, query_score=7, gallery_image_id=[4] * 20, gallery_bbox=twice)])
    assert report.ok
    assert _warnings(report) == [
        ("[0]", "repeats 1 of its gallery boxes; each repeat wastes a rank"),
        ("[0].query_score", "is outside [0, 1]: 7"),
    ]


def test_fields_that_nobody_reads_are_noticed_in_rows_that_are_sound_otherwise(check: Any) -> None:
    assert _warnings(check([make_row(1), make_row(2, note="x")])) == [("[1]", 'has fields that nobody reads: "note"')]


def test_rows_are_counted_once_a_kind(check: Any) -> None:
    ids = [-1, "x", "y", 1.5, *range(4, 20)]
    groups = check([make_row(n, gallery_image_id=ids) for n in range(300)]).groups
    assert [(one.kind.name, one.num_problems, one.num_rows) for one in groups] == [
        ("negative-id", 300, 300),
        ("text-id", 600, 300),
        ("not-an-id", 300, 300),
    ]


def test_a_row_nested_too_deep_for_python_is_told(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_deep(_: Any) -> Any:
        raise RecursionError

    monkeypatch.setattr("submissions.entries.walk_rows", too_deep)
    assert _errors(check([make_row("1")])) == [("", "among the rows 0 to 0 is one that is nested too deep")]


def test_of_many_problems_of_a_kind_the_first_are_kept_and_all_are_counted(check: Any) -> None:
    rows = [make_row(n, query_cls=99, gallery_image_id=["7"] * 20) for n in range(200)]
    report = check(rows)
    groups = {(group.kind.name, group.field_name): group for group in report.groups}
    assert groups.keys() == {("no-category", "query_cls"), ("text-id", "gallery_image_id")}
    texts = groups["text-id", "gallery_image_id"]
    assert (texts.num_problems, texts.num_rows, len(texts.problems)) == (4000, 200, MOST_KEPT)
    assert texts.summary().startswith('[0].gallery_image_id[0]: expected an integer, got "7": the scorer')
    assert texts.summary().endswith("(and 3,999 more like it, in 200 rows: [0], [1], [2], …)")
    assert len(report.problems) == MOST_KEPT + 200


def test_places_are_right_in_every_block_of_a_long_file(check: Any) -> None:
    rows = [make_row(n) for n in range(1000)]
    rows[700] = make_row(700, gallery_bbox=[[5, 5, 1, 1]] * 20)
    rows[900] = make_row(900, query_score="x")
    report = check(rows)
    assert report.num_rows == 1000
    wheres = [where for where, _ in _errors(report)]
    assert wheres == [*(f"[700].gallery_bbox[{n}]" for n in range(20)), "[900].query_score"]


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ([10, 10, 100, 200], None),
        ([-0.9, 10, 100.9, 200.9], None),
        ([10, 10, 10, 50], "empty-box"),
        ([-2, 10, 50, 50], "outside-box"),
        ([10, 10, 102, 50], "outside-box"),
        ([10, 10, 50, 202], "outside-box"),
        ([100, 10, 150, 50], "beside-box"),
        ([10, 200, 50, 250], "beside-box"),
        ([-20, 10, 0, 50], "beside-box"),
    ],
)
@pytest.mark.parametrize("field", ["query_bbox", "gallery_bbox"])
def test_boxes_are_held_against_their_photos(check: Any, box: list[float], kind: str | None, field: str) -> None:
    row = make_row(1)
    row[field] = box if field == "query_bbox" else [*row[field][:19], box]
    report = check([row], make_photos(1, size=(100, 200)))
    assert [one.kind for one in report.problems] == ([] if kind is None else [kind])
    assert report.ok == (kind != "beside-box")


def test_boxes_in_photos_that_are_not_known_are_not_held_against_others(check: Any) -> None:
    row = make_row(1, gallery_image_id=[7, *range(101, 120)], gallery_bbox=[[0, 0, 500, 500], *[[0, 0, 90, 90]] * 19])
    kinds = [one.kind for one in check([row], make_photos(1, size=(100, 200))).problems]
    assert kinds == ["foreign-photo"]


def test_photos_of_the_ground_truth_need_not_be_all(check: Any) -> None:
    boxes = np.zeros((2, 4))
    ones = np.ones(2, np.int64)
    queries = Queries(np.array([1, 2]), boxes, ones, np.array([1, 0]), ones)
    gallery = Gallery(np.array([100, 101]), boxes, ones, ones)
    row = make_row(2, gallery_image_id=[100, 101] * 9 + [1, 555])
    report = check([row], KnownPhotos.of_truth(queries, gallery))
    assert _errors(report) == [("[0].gallery_image_id[18]", "image 1 is a consumer photo, expected a shop photo")]
    assert _warnings(report) == [
        ("[0].gallery_image_id[19]", "image 555 is not in the ground truth, so it counts nothing"),
        ("", "1 of the 1 consumer photos have no entry, the first is 1"),
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
