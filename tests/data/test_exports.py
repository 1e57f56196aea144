import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.coco import read_coco_results
from harness.data.deepfashion2 import read_split
from harness.data.exports import (
    coco_ground_truth,
    gallery_records,
    query_records,
    write_coco_results,
    write_exports,
)
from harness.types import CATEGORIES, Detections, InputError, Items, Photos, Split


def test_query_records_hold_every_consumer_item(dataset: Path) -> None:
    shown = {"scale": 2, "occlusion": 1, "zoom_in": 1, "viewpoint": 2}
    assert query_records(read_split(dataset, "validation")) == [
        {"query_image_id": 1, "bbox": [4, 6, 24, 36], "cls": 1, "style": 1, "pair_id": 7} | shown,
        {"query_image_id": 1, "bbox": [5, 20, 30, 45.5], "cls": 8, "style": 2, "pair_id": 7} | shown,
        {"query_image_id": 2, "bbox": [4, 6, 24, 36], "cls": 1, "style": 0, "pair_id": 7} | shown,
    ]


def test_gallery_records_hold_every_shop_item_without_class(dataset: Path) -> None:
    assert gallery_records(read_split(dataset, "validation")) == [
        {"gallery_image_id": 3, "bbox": [4, 6, 24, 36], "style": 1, "pair_id": 7},
        {"gallery_image_id": 3, "bbox": [4, 6, 24, 36], "style": 2, "pair_id": 7},
        {"gallery_image_id": 10, "bbox": [4, 6, 24, 36], "style": 1, "pair_id": 8},
    ]


def test_coco_ground_truth(dataset: Path) -> None:
    document = coco_ground_truth(read_split(dataset, "validation"))
    assert [category["name"] for category in document["categories"]] == list(CATEGORIES)
    assert [category["id"] for category in document["categories"]] == list(range(1, 14))
    assert document["images"][0] == {"id": 1, "file_name": "000001.jpg", "width": 41, "height": 48}
    assert [image["id"] for image in document["images"]] == [1, 2, 3, 10]
    assert document["annotations"][1] == {
        "id": 2,
        "image_id": 1,
        "category_id": 8,
        "bbox": [5, 20, 25, 25.5],
        "area": 25 * 25.5,
        "iscrowd": 0,
        "source": "user",
        "item": 2,
        "style": 2,
        "pair_id": 7,
        "scale": 2,
        "occlusion": 1,
        "zoom_in": 1,
        "viewpoint": 2,
    }
    assert all(type(one[key]) is int for one in document["annotations"] for key in ("id", "image_id", "category_id"))


def test_pycocotools_takes_the_ground_truth(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    split = read_split(dataset, "validation")
    paths = write_exports(split, tmp_path / "out")
    assert split.items is not None
    write_coco_results(tmp_path / "results.json", split.items.as_detections())
    truth = coco.COCO(str(paths[2]))
    evaluation = cocoeval.COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    capsys.readouterr()
    assert evaluation.stats[1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("validation", ["val_query.json", "val_gallery.json", "validation_coco.json"]),
        ("train", ["train_query.json", "train_gallery.json", "train_coco.json"]),
    ],
)
def test_exports_are_named_after_the_split(dataset: Path, tmp_path: Path, name: Any, expected: list[str]) -> None:
    (dataset / "validation").rename(dataset / name)
    split = read_split(dataset, name)
    paths = write_exports(split, tmp_path / "deep" / "out")
    assert [path.name for path in paths] == expected
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(expected)
    assert json.loads(paths[0].read_text()) == query_records(split)
    assert json.loads(paths[2].read_text())["annotations"][0]["bbox"] == [4, 6, 20, 30]


def test_an_unreadable_photo_leaves_nothing_half_written(dataset: Path, tmp_path: Path) -> None:
    split = read_split(dataset, "validation")
    split.photo_path(3).write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"000003\.jpg: is not an image"):
        write_exports(split, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("export", [query_records, gallery_records, coco_ground_truth])
def test_a_split_without_annotations_has_no_truth(tmp_path: Path, export: Any) -> None:
    split = Split(tmp_path, "test", Photos(np.array([1]), np.array([True])), None, "0")
    with pytest.raises(InputError, match="test: has no annotations"):
        export(split)


def test_a_split_without_items_exports_empty_lists(tmp_path: Path) -> None:
    empty = Items(*(np.zeros((0, 4)) if n == 3 else np.zeros(0, bool if n == 2 else np.int64) for n in range(11)))
    split = Split(tmp_path, "train", Photos(np.zeros(0, np.int64), np.zeros(0, bool)), empty, "0")
    assert query_records(split) == gallery_records(split) == []
    assert coco_ground_truth(split)["annotations"] == []


def test_the_published_example_is_read_as_xywh() -> None:
    """The first row of the published example, shortened to two rows."""
    rows = [
        {"image_id": 1, "category_id": 1, "bbox": [199.376404, 179.645523, 91.256927, 93.557541], "score": 0.888266},
        {"image_id": 5, "category_id": 13, "bbox": [0, 1, 2, 3], "score": 1},
    ]
    detections = _read(rows)
    assert detections.boxes_xyxy[0].tolist() == [199.376404, 179.645523, 199.376404 + 91.256927, 179.645523 + 93.557541]
    assert detections.boxes_xyxy[1].tolist() == [0, 1, 2, 4]
    assert detections.image_ids.tolist() == [1, 5]
    assert detections.category_ids.tolist() == [1, 13]
    assert detections.scores.tolist() == [0.888266, 1.0]


def _read(rows: Any) -> Detections:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
        return read_coco_results(path)


COORDINATE = st.floats(0, 5000)
ROWS = st.lists(
    st.tuples(
        st.integers(1, 10**6), COORDINATE, COORDINATE, COORDINATE, COORDINATE, st.floats(0, 1), st.integers(1, 13)
    ),
    max_size=20,
)


@given(ROWS)
def test_results_come_back(rows: list[tuple[Any, ...]]) -> None:
    import tempfile

    boxes = np.array([[min(a, c), min(b, d), max(a, c), max(b, d)] for _, a, b, c, d, _, _ in rows]).reshape(-1, 4)
    detections = Detections(
        np.array([row[0] for row in rows], np.int64),
        boxes,
        np.array([row[5] for row in rows], np.float64),
        np.array([row[6] for row in rows], np.int64),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        write_coco_results(path, detections)
        back = read_coco_results(path)
        assert [entry.name for entry in Path(folder).iterdir()] == ["results.json"]
    assert np.array_equal(back.image_ids, detections.image_ids)
    assert np.array_equal(back.category_ids, detections.category_ids)
    assert np.array_equal(back.scores, detections.scores)
    np.testing.assert_allclose(back.boxes_xyxy, boxes, rtol=1e-12, atol=1e-9)


def test_results_longer_than_a_chunk_come_back(tmp_path: Path) -> None:
    count = 9000
    ids = np.arange(count)
    write_coco_results(
        tmp_path / "r.json", Detections(ids, np.tile([1.0, 2, 3, 4], (count, 1)), np.ones(count), ids % 13 + 1)
    )
    assert np.array_equal(read_coco_results(tmp_path / "r.json").image_ids, ids)


GOOD = {"image_id": 4, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": "4"}, 'image_id: expected an integer >= 0, got "4"'),
        ({"image_id": 4.0}, r"image_id: expected an integer >= 0, got 4\.0"),
        ({"image_id": True}, "image_id: expected"),
        ({"category_id": 0}, "category_id: expected an integer from 1 to 13, got 0"),
        ({"category_id": 14}, "category_id: expected"),
        ({"bbox": [1, 2, 3]}, r"bbox: expected \[x, y, width, height\]"),
        ({"bbox": [1, 2, 3, "4"]}, r"bbox: expected \[x, y, width, height\]"),
        ({"bbox": [1, 2, -3, 4]}, "bbox: expected width and height >= 0"),
        ({"score": 1.5}, r"score: expected a number from 0 to 1, got 1\.5"),
        ({"score": None}, "score: expected"),
    ],
)
def test_a_wrong_result_is_named_by_row(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"results\.json: \[1\]: {message}"):
        _read([GOOD, {**GOOD, **change}])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": []}', "expected a list of detections"),
        ("[", "is not JSON"),
        ('[{"image_id": 4, "category_id": 2, "bbox": [1, 2, 3, NaN], "score": 0.5}]', "is not JSON"),
        ("[3]", r"\[0\]: expected an object"),
        ('[{"image_id": 4}]', r"\[0\]: has no category_id"),
    ],
)
def test_what_is_no_results_file_is_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _read(text)


def test_a_missing_results_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_coco_results(tmp_path / "r.json")


def test_a_consumer_item_that_nothing_answers_is_written_with_style_0(dataset: Path) -> None:
    """The official scorer stops with an AssertionError at a query without any gallery counterpart."""
    path = dataset / "validation" / "annos" / "000003.json"
    annotation = json.loads(path.read_text())
    annotation["item2"]["style"] = 5
    path.write_text(json.dumps(annotation))
    assert [record["style"] for record in query_records(read_split(dataset, "validation"))] == [1, 0, 0]
