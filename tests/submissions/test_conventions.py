"""What a file as a whole says of its conventions, and that sound files are not suspected."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.scoring.truth import Gallery, Queries
from harness.types import Photos
from submissions.checker import check_submission
from submissions.coordinates import Coordinates
from submissions.photos import KnownPhotos
from tests.submissions.samples import as_xywh, make_photos, make_rows

SIZE = (400, 600)


@pytest.fixture
def diagnoses(tmp_path: Path) -> Any:
    def run(rows: list[dict[str, Any]], photos: KnownPhotos | None = None) -> dict[str, str]:
        (tmp_path / "r.json").write_text(json.dumps(rows))
        found = check_submission(tmp_path / "r.json", photos).problems
        return {one.kind: one.what for one in found if one.kind.startswith("looks")}

    return run


def _with_boxes(rows: list[dict[str, Any]], change: Any, fields: str = "query_bbox gallery_bbox") -> Any:
    for row in rows:
        if "query_bbox" in fields:
            row["query_bbox"] = change(row["query_bbox"])
        if "gallery_bbox" in fields:
            row["gallery_bbox"] = [change(box) for box in row["gallery_bbox"]]
    return rows


@pytest.mark.parametrize("photos", [None, make_photos(99, SIZE)])
def test_sound_files_are_not_suspected(diagnoses: Any, photos: KnownPhotos | None) -> None:
    assert diagnoses(make_rows(99), photos) == {}


@pytest.mark.parametrize("photos", [None, make_photos(99, SIZE)])
@pytest.mark.parametrize("swap", [(2, 3, 0, 1), (2, 1, 0, 3)])
def test_corners_in_the_wrong_order_are_not_taken_for_xywh(diagnoses: Any, photos: Any, swap: Any) -> None:
    assert diagnoses(_with_boxes(make_rows(99), lambda box: [box[n] for n in swap]), photos) == {}


def test_xywh_shows_in_boxes_that_are_inverted_in_one_axis(diagnoses: Any) -> None:
    found = diagnoses(_with_boxes(make_rows(99), as_xywh))
    assert found.keys() == {"looks-like-xywh"}
    assert "the boxes look like [x, y, width, height], but [x1, y1, x2, y2] is due" in found["looks-like-xywh"]
    assert "query_bbox" in diagnoses(_with_boxes(make_rows(99), as_xywh, "query_bbox"))["looks-like-xywh"]


def test_photos_tell_xywh_where_hardly_a_box_is_inverted(diagnoses: Any) -> None:
    """Boxes in the upper left corner: x < width, y < height, and only the size of the photo tells."""

    def widen(box: list[float]) -> list[float]:
        return as_xywh([box[0] / 5, box[1] / 5, box[2], box[3]])

    rows = _with_boxes(make_rows(99), widen)
    assert diagnoses(rows) == {}
    assert diagnoses(rows, make_photos(99, SIZE)) == {}  # both readings lie in the photos
    rows = _with_boxes(make_rows(99), as_xywh)
    assert "read so, 100.0% lie in their photos" in diagnoses(rows, make_photos(99, SIZE))["looks-like-xywh"]


@pytest.mark.parametrize(
    ("num_in_x", "num_in_y", "num_in_both", "certainty"),
    [
        (0, 0, 0, "no"),
        (100, 0, 0, "no"),
        (0, 0, 90, "no"),
        (5, 5, 0, "surely"),
        (3, 3, 4, "surely"),
        (3, 3, 3, "perhaps"),
        (2, 20, 0, "perhaps"),
        (2, 2, 0, "no"),
        (0, 50, 20, "no"),
    ],
)
def test_how_sure_it_is_without_photos(num_in_x: int, num_in_y: int, num_in_both: int, certainty: str) -> None:
    sound = 100 - num_in_x - num_in_y - num_in_both
    rows = [[5, 1, 2, 3]] * num_in_x + [[1, 5, 2, 3]] * num_in_y + [[5, 5, 2, 3]] * num_in_both + [[1, 1, 2, 3]] * sound
    counts = Coordinates()
    boxes = np.array(rows, np.float64) * 100
    counts.add(boxes[np.arange(100) * 37 % 100], None)
    assert counts.are_xywh == certainty
    if certainty == "surely":  # all in the first rows: a part of the file, and the rest would be spoilt
        patchy = Coordinates()
        patchy.add(boxes, None)
        assert patchy.are_xywh == "perhaps"
    few = Coordinates()
    few.add(np.array(rows[::3], np.float64) * 100, None)
    assert few.are_xywh == "no"


def test_normalised_coordinates_are_an_error(diagnoses: Any) -> None:
    rows = _with_boxes(make_rows(20), lambda box: [round(value / 600, 4) for value in box])
    assert "all 400 boxes lie in [0, 1]" in diagnoses(rows)["looks-normalised"]


def test_categories_from_0_are_diagnosed_unless_13_is_there(diagnoses: Any) -> None:
    rows = make_rows(26)
    shifted = [{**row, "query_cls": row["query_cls"] - 1} for row in rows]
    assert "2 rows say 0 and none says 13" in diagnoses(shifted)["looks-like-from-0"]
    assert diagnoses([*shifted, *rows]) == {}
    assert diagnoses([*shifted, {**rows[0], "query_cls": 40}]) == {}


def test_galleries_sorted_by_id_are_diagnosed(diagnoses: Any) -> None:
    rows = make_rows(120)
    ordered = [{**row, "gallery_image_id": sorted(row["gallery_image_id"])} for row in rows]
    assert "120 of 120 gallery lists are sorted by image id" in diagnoses(ordered)["looks-sorted-by-id"]
    assert diagnoses(ordered[:20]) == {}
    assert diagnoses([*rows[:60], *ordered[60:]]) == {}


def test_ids_of_another_split_are_told_with_its_name(diagnoses: Any) -> None:
    asked = []

    def other_splits() -> Any:
        for name, first in (("test", 1000), ("train", 5000)):
            asked.append(name)
            ids = np.array([*range(1, 40), *range(first, first + 20)])
            yield name, Photos(ids, ids < 40)

    rows = make_rows(30)
    assert diagnoses(rows, make_photos(30, other_splits=other_splits)) == {}
    assert asked == []
    moved = [{**row, "gallery_image_id": [n + 900 for n in row["gallery_image_id"]]} for row in rows]
    found = diagnoses(moved, make_photos(30, other_splits=other_splits))["looks-like-other-split"]
    assert found.startswith("only 50.0% of the ids are photos of the right kind in the validation split")
    assert found.endswith("but 100.0% in the test split: --split test?")
    assert asked == ["test"]
    strange = [{**row, "gallery_image_id": [n + 90_000 for n in row["gallery_image_id"]]} for row in rows]
    found = diagnoses(strange, make_photos(30, other_splits=other_splits))["looks-like-other-split"]
    assert found.endswith("is the file of another split (train, validation, test)?")


def test_one_field_of_ids_that_are_mostly_unknown_is_an_error_with_truth_files_too(diagnoses: Any) -> None:
    """A gallery of another split once was no error at all, since unlisted photos may be meant."""
    boxes, ones = np.zeros((20, 4)), np.ones(20, np.int64)
    queries = Queries(np.arange(1, 21), boxes, ones, ones, ones)
    gallery = Gallery(np.arange(100, 120), boxes, ones, ones)
    truth = KnownPhotos.of_truth(queries, gallery)
    rows = make_rows(20)
    assert diagnoses(rows, truth) == {}
    moved = [{**row, "gallery_image_id": [n + 900 for n in row["gallery_image_id"]]} for row in rows]
    found = diagnoses(moved, truth)["looks-like-other-split"]
    assert found == (
        "only 50.0% of the ids are photos of the right kind in the ground truth (of gallery_image_id 0.0%); "
        "is the file of another split (train, validation, test)?"
    )
    consumers = [{**row, "gallery_image_id": [*range(1, 21)]} for row in rows]
    assert diagnoses(consumers, truth)["looks-like-other-split"].endswith("the ids are those of consumer photos")
    half = [{**row, "gallery_image_id": [*range(100, 110), *range(1000, 1010)]} for row in rows]
    assert diagnoses(half, truth) == {}
