"""COCO files of other people: ground truth, and what is conspicuous about detections."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.data.coco import box_warnings, read_coco_results, read_coco_truth, refuse_foreign_photos
from harness.data.deepfashion2 import read_split
from harness.data.exports import write_exports
from harness.types import Detections, InputError

ITEM = {"id": 1, "image_id": 4, "category_id": 2, "bbox": [1, 2, 30, 40], "area": 1200, "iscrowd": 0}
PHOTOS = [{"id": 9, "width": 100, "height": 200}, {"id": 4, "width": 300, "height": 400}]


def truth(folder: Path, **change: Any) -> Path:
    path = folder / "truth.json"
    path.write_text(json.dumps({"images": PHOTOS, "annotations": [ITEM], "categories": [], **change}))
    return path


def boxes(image_ids: list[int], boxes_xywh: Any) -> Detections:
    boxes_xyxy = np.array(boxes_xywh, float).reshape(-1, 4)
    boxes_xyxy[:, 2:] += boxes_xyxy[:, :2]
    count = len(image_ids)
    return Detections(np.array(image_ids, int), boxes_xyxy, np.ones(count), np.ones(count, int))


def test_the_export_is_read_back(dataset: Path, tmp_path: Path) -> None:
    split = read_split(dataset, "validation")
    path = write_exports(split, tmp_path)[2]
    found = read_coco_truth(path)
    assert split.items is not None
    for name in ("image_ids", "boxes_xyxy", "category_ids"):
        assert np.array_equal(getattr(found.items, name), getattr(split.items, name))
    assert found.image_ids.tolist() == split.photos.image_ids.tolist()
    assert found.sizes_px[0].tolist() == [41, 48]
    assert found.description == "DeepFashion2 validation"
    assert found.warnings == ()


def test_photos_come_in_order_and_need_neither_item_nor_size(tmp_path: Path) -> None:
    found = read_coco_truth(truth(tmp_path, images=[PHOTOS[0], {"id": 4}], annotations=[]))
    assert found.image_ids.tolist() == [4, 9]
    assert found.sizes_px.tolist() == [[0, 0], [100, 200]]
    assert len(found.items) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"annotations": [ITEM, {**ITEM, "category_id": 14}]},
            r"annotations\[1\]: category_id: expected 1 to 13, got .*14",
        ),
        ({"annotations": [{**ITEM, "category_id": 0}]}, r"annotations\[0\]: category_id"),
        ({"annotations": [ITEM, {**ITEM, "bbox": [5, 5, -1, 2]}]}, r"annotations\[1\]: bbox: .* >= 0, got"),
        (
            {"annotations": [{**ITEM, "image_id": 5}]},
            r"annotations\[0\]: image_id: expected a photo that stands",
        ),
        ({"annotations": [{**ITEM, "iscrowd": 1}]}, r"annotations\[0\]: iscrowd: expected 0"),
        (
            {"annotations": [{"image_id": 4, "category_id": 2}]},
            r"missing required field `bbox` - at .*annotations",
        ),
        ({"annotations": [{**ITEM, "bbox": [1, 2, 3]}]}, "is no COCO ground truth: .* length 4"),
        ({"annotations": [{**ITEM, "image_id": 1 << 70}]}, "more than 64 bits"),
        ({"images": [*PHOTOS, PHOTOS[0]]}, "images: id 9 stands there twice"),
        ({"images": None}, "is no COCO ground truth"),
    ],
)
def test_a_wrong_truth_is_named(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_coco_truth(truth(tmp_path, **change))


@pytest.mark.parametrize(("text", "message"), [("[]", "is no COCO ground truth"), ("{", "is not JSON")])
def test_what_is_no_truth_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_coco_truth(tmp_path / "t.json")
    with pytest.raises(InputError, match="no such file; give the path of a JSON file"):
        read_coco_truth(tmp_path / "nowhere.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_coco_truth(tmp_path)


def test_areas_of_segments_are_warned_about(tmp_path: Path) -> None:
    (warning,) = read_coco_truth(truth(tmp_path, annotations=[ITEM, {**ITEM, "area": 900}])).warnings
    assert "1 of 2 annotations have an area other than width times height" in warning
    assert read_coco_truth(truth(tmp_path, annotations=[{**ITEM, "area": 1200.4}])).warnings == ()


def test_boxes_of_other_photos_are_refused(tmp_path: Path) -> None:
    known = read_coco_truth(truth(tmp_path))
    refuse_foreign_photos(boxes([4, 9, 4], [[0, 0, 1, 1]] * 3), known, "found.json")
    with pytest.raises(InputError, match=r"found\.json: \[1\]: image_id: 5 is not among the 2 photos .*2 of 3 boxes"):
        refuse_foreign_photos(boxes([4, 5, 6], [[0, 0, 1, 1]] * 3), known, "found.json")


def test_corners_written_as_width_and_height_are_noticed(tmp_path: Path) -> None:
    known = read_coco_truth(truth(tmp_path))
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 60, (50, 2))
    high = low + rng.uniform(1, [40, 100], (50, 2))
    (warning,) = box_warnings(boxes([9] * 50, np.concatenate([low, high], axis=1)), known)
    assert "look like x1, y1, x2, y2" in warning
    assert box_warnings(boxes([9] * 50, np.concatenate([low, high - low], axis=1)), known) == []
    large = np.tile([1.0, 1, 98, 198], (50, 1))  # whole photos: every width above x, but none reaches beyond
    assert box_warnings(boxes([9] * 50, large), known) == []
    unknown = read_coco_truth(truth(tmp_path, images=[{"id": 9}, {"id": 4}]))
    assert box_warnings(boxes([9] * 50, np.concatenate([low, high], axis=1)), unknown) == []


def test_no_detections_are_noticed(tmp_path: Path) -> None:
    assert box_warnings(Detections.empty(), read_coco_truth(truth(tmp_path))) == ["there are no detections at all"]


@pytest.mark.parametrize("image_id", [1 << 53, 1 << 63, 1 << 70, -1])
def test_ids_beyond_the_integers_of_json_are_refused(tmp_path: Path, image_id: int) -> None:
    row = {"image_id": image_id, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}
    (tmp_path / "r.json").write_text(json.dumps([row]))
    with pytest.raises(InputError, match=r"r\.json: \[0\]: image_id: expected an integer"):
        read_coco_results(tmp_path / "r.json")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("bbox", "more", "message"),
    [
        ("[1e308, 0, 1e308, 1]", "", "bbox: expected"),
        ("[1, 2, 3, 4]", ', "more": ' + "[" * 5000 + "]" * 5000, "nested hundreds of brackets deep"),
    ],
    ids=["overflow", "deep"],
)
def test_what_no_column_can_hold_is_refused_in_both_files(tmp_path: Path, bbox: str, more: str, message: str) -> None:
    """Either was a traceback."""
    row = f'{{"image_id": 4, "category_id": 2, "score": 0.5, "bbox": {bbox}{more}}}'
    path = tmp_path / "coco.json"
    path.write_text(f"[{row}]")
    with pytest.raises(InputError, match=message):
        read_coco_results(path)
    path.write_text(f'{{"images": [{{"id": 4}}], "annotations": [{row}]}}')
    with pytest.raises(InputError, match=message):
        read_coco_truth(path)


def test_a_field_given_twice_is_refused_where_only_its_last_value_is_right(tmp_path: Path) -> None:
    """It was an AssertionError: no row looked wrong to the second look, which takes the last value."""
    path = tmp_path / "coco.json"
    path.write_text('[{"score": "a", "image_id": 4, "category_id": 2, "score": 0.5, "bbox": [1, 2, 3, 4]}]')
    with pytest.raises(InputError, match="has a field twice"):
        read_coco_results(path)
