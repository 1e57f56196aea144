"""How two result files differ, against a slow plain comparison."""

import copy
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.types import InputError
from submissions.difference import DEPTHS, Difference, compare_submissions
from tests.submissions.samples import make_row, make_rows


@pytest.fixture
def compare(tmp_path: Path) -> Any:
    def run(first: Any, second: Any) -> Difference:
        paths = tmp_path / "a.json", tmp_path / "b.json"
        for path, rows in zip(paths, (first, second), strict=True):
            path.write_text(json.dumps(rows))
        return compare_submissions(*paths)

    return run


def test_the_order_of_rows_is_no_difference(compare: Any) -> None:
    rows = make_rows(300)
    shuffled = random.Random(0).sample(rows, len(rows))
    found = compare(rows, shuffled)
    assert found.is_none
    assert (found.num_rows, found.num_matched, found.num_alone) == ((300, 300), 300, (0, 0))
    assert found.overlap == found.jaccard == dict.fromkeys(DEPTHS, 1.0)


def test_rows_of_one_file_alone_are_shown(compare: Any) -> None:
    rows = [make_row(1), make_row(2), make_row(3)]
    found = compare(rows, [make_row(4), make_row(3, query_cls=5), make_row(2), make_row(1, query_bbox=[0, 0, 5, 5])])
    assert not found.is_none
    assert (found.num_matched, found.num_alone) == (1, (2, 3))
    box = [1.5, 2, 30, 40.25]
    assert found.examples_alone[0] == [
        {"row": 0, "query_image_id": 1, "query_bbox": box, "query_cls": 3},
        {"row": 2, "query_image_id": 3, "query_bbox": box, "query_cls": 3},
    ]
    assert [one["row"] for one in found.examples_alone[1]] == [0, 1, 3]


def test_scores_and_galleries_of_matched_rows_are_compared(compare: Any) -> None:
    first = [make_row(1), make_row(2), make_row(3), make_row(4)]
    swapped = make_row(3)
    for field in ("gallery_image_id", "gallery_bbox"):
        swapped[field][4], swapped[field][5] = swapped[field][5], swapped[field][4]
    other_box = make_row(4)
    other_box["gallery_bbox"][0] = [50, 50, 60, 60]
    found = compare(first, [make_row(1), swapped, make_row(2, query_score=0.5), other_box])
    assert (found.num_scores, found.largest_score_change) == (1, 0.25)
    assert found.example_scores == [{"rows": [1, 2], "query_image_id": 2, "scores": [0.75, 0.5]}]
    assert found.num_galleries == 2
    assert found.example_galleries == [
        {"rows": [2, 1], "query_image_id": 3, "first_rank": 5},
        {"rows": [3, 3], "query_image_id": 4, "first_rank": 1},
    ]
    assert {rank: int(n) for rank, n in enumerate(found.first_ranks, 1) if n} == {1: 1, 5: 1}
    assert found.overlap == pytest.approx({1: 0.75, 5: (2 + 0.8 + 0.8) / 4, 10: 3.9 / 4, 20: 3.95 / 4})
    assert found.jaccard == pytest.approx(
        {1: 0.75, 5: (2 + 4 / 6 * 2) / 4, 10: (3 + 9 / 11) / 4, 20: (3 + 19 / 21) / 4}
    )


def test_rows_of_the_same_box_belong_together_in_their_order(compare: Any) -> None:
    first = [make_row(1, query_score=0.1), make_row(1, query_score=0.2), make_row(1, query_score=0.3)]
    found = compare(first, [make_row(1, query_score=0.1), make_row(1, query_score=0.4)])
    assert (found.num_matched, found.num_alone, found.num_scores) == (2, (1, 0), 1)
    assert found.examples_alone[0][0]["row"] == 2


def test_files_of_other_decimals_are_compared_at_the_fewer(compare: Any) -> None:
    rows = make_rows(50)
    fine = copy.deepcopy(rows)
    for row in fine:
        row["query_bbox"] = [value + 0.0012 for value in row["query_bbox"]]
        row["gallery_bbox"] = [[value - 0.0031 for value in box] for box in row["gallery_bbox"]]
    found = compare(rows, fine)
    assert found.is_none
    assert found.decimals == 2
    assert compare(rows, rows).decimals is None


def test_empty_files_are_compared(compare: Any) -> None:
    found = compare([], [make_row(1)])
    assert (found.num_rows, found.num_alone, found.overlap) == ((0, 1), (0, 1), None)
    assert compare([], []).is_none


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"query_image_id": "1"}, 'query_image_id: expected an integer, got "1"'),
        ({"gallery_image_id": [1]}, "gallery_image_id: expected 20 entries, got 1"),
        ({"query_image_id": 2**60}, f"query_image_id: expected an integer, got {2**60}"),
        ({"query_bbox": [1, 2, 3]}, "query_bbox: expected [x1, y1, x2, y2] in finite pixels, got [1, 2, 3]"),
    ],
)
def test_rows_that_cannot_be_compared_are_refused_by_number_and_field(compare: Any, change: Any, fault: str) -> None:
    with pytest.raises(InputError, match=r"a\.json: " + re.escape(f"[1].{fault}") + ".*such a row cannot be compared"):
        compare([make_row(1), make_row(2, **change)], [make_row(1)])


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda x1, y1, x2, y2: [x1, y1, x2 - x1, y2 - y1], "[x, y, width, height]"),
        (lambda x1, y1, x2, y2: [y1, x1, y2, x2], "[y1, x1, y2, x2]"),
        (lambda x1, y1, x2, y2: [x2, y2, x1, y1], "[x2, y2, x1, y1]"),
        (
            lambda x1, y1, x2, y2: [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1],
            "[centre x, centre y, width, height]",
        ),
    ],
)
def test_boxes_in_another_convention_are_told(compare: Any, spoil: Any, name: str) -> None:
    """They once were taken for those of other detectors."""
    rows = make_rows(50)
    wrong = [{**row, "query_bbox": spoil(*row["query_bbox"]), "query_cls": 1} for row in rows]
    for files in ((rows, wrong), (wrong, rows)):
        assert f"the boxes are the same if one of the files has {name}" in str(compare(*files).hint)


def test_other_categories_alone_are_told(compare: Any) -> None:
    rows = make_rows(50)
    other = [{**row, "query_cls": row["query_cls"] - 1} for row in rows]
    assert "only the categories" in str(compare(rows, other).hint)
    assert "other detectors?" in str(compare(rows, make_rows(50, seed=1)).hint)
    assert compare(rows, rows[:5]).hint is None


def _plainly(first: list[Any], second: list[Any]) -> tuple[Any, ...]:
    """The same with dictionaries and sets."""

    def by_key(rows: list[Any]) -> dict[Any, Any]:
        seen: Counter[Any] = Counter()
        found = {}
        for row in rows:
            key = (row["query_image_id"], tuple(row["query_bbox"]), row["query_cls"])
            found[key, seen[key]] = row
            seen[key] += 1
        return found

    def entries(row: Any) -> list[Any]:
        return [(one, tuple(box)) for one, box in zip(row["gallery_image_id"], row["gallery_bbox"], strict=True)]

    one, other = by_key(first), by_key(second)
    matched = [(one[key], other[key]) for key in one if key in other]
    overlap = {}
    for k in DEPTHS:
        pairs = [(set(entries(a)[:k]), set(entries(b)[:k])) for a, b in matched]
        overlap[k] = sum(len(a & b) / max(len(a), len(b)) for a, b in pairs) / len(matched) if matched else None
    return (
        len(matched),
        (len(one.keys() - other.keys()), len(other.keys() - one.keys())),
        sum(a["query_score"] != b["query_score"] for a, b in matched),
        sum(entries(a) != entries(b) for a, b in matched),
        overlap if matched else None,
    )


@st.composite
def small_files(draw: st.DrawFn) -> list[dict[str, Any]]:
    return [
        make_row(
            draw(st.integers(1, 2)),
            query_cls=draw(st.integers(1, 2)),
            query_score=draw(st.sampled_from([0.5, 1])),
            query_bbox=[0, 0, draw(st.integers(1, 2)), 0.0 if draw(st.booleans()) else -0.0],
            gallery_bbox=[[0, 0, 9, 9]] * 20,
            gallery_image_id=[draw(st.integers(1, 4))] * 10 + draw(st.permutations(range(10))),
        )
        for _ in range(draw(st.integers(0, 8)))
    ]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(small_files(), small_files())
def test_the_same_is_found_as_by_plain_comparison(compare: Any, first: Any, second: Any) -> None:
    found = compare(first, second)
    matched, alone, scores, galleries, overlap = _plainly(first, second)
    assert (found.num_matched, found.num_alone) == (matched, alone)
    assert (found.num_scores, found.num_galleries, int(found.first_ranks.sum())) == (scores, galleries, galleries)
    assert found.overlap == (overlap if overlap is None else pytest.approx(overlap))
