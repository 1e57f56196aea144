from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from drawn_photos import write_photos

from harness.data.deepfashion2 import read_split
from harness.detection.dataset import DetectionDataset, photos_with_items, read_polygons
from harness.detection.recipes import load_recipes
from harness.detection.settings import Augmentation
from harness.types import InputError

SCALE = load_recipes()["ATSS"].tiny.model_copy(
    update={"augmentation": Augmentation(flip=0.5, zoom=(0.8, 1.2), shift=True, colour=0.2)}
)
GREY = (124, 116, 104)


def test_an_example_depends_on_seed_step_and_row_alone(split):
    ids = split.photos.image_ids
    one = DetectionDataset(split, ids, SCALE, 7, GREY, True)
    other = DetectionDataset(split, ids, SCALE.model_copy(update={"keep_photos_in_memory": False}), 7, GREY, True)
    other[(0, 0)]
    first, second = one[(5, 3)], other[(5, 3)]
    assert (first.laid.photo == second.laid.photo).all()
    assert (first.laid.boxes_xyxy == second.laid.boxes_xyxy).all()
    assert (first.masks == second.masks).all()
    assert (one[(6, 3)].laid.photo != first.laid.photo).any()


def test_masks_lie_in_their_boxes(split):
    dataset = DetectionDataset(split, split.photos.image_ids, SCALE, 0, GREY, True)
    for row in range(len(dataset)):
        example = dataset[(0, row)]
        assert len(example.masks) == len(example.laid.boxes_xyxy) == len(example.category_ids)
        for mask, (x1, y1, x2, y2) in zip(example.masks, example.laid.boxes_xyxy, strict=True):
            ys, xs = np.nonzero(mask)
            assert x1 - 1.5 <= xs.min()
            assert y1 - 1.5 <= ys.min()
            assert xs.max() <= x2 + 1.5
            assert ys.max() <= y2 + 1.5


def test_a_batch_of_uneven_canvases_is_padded(split):
    scale = SCALE.model_copy(update={"input_px": (160, 96), "augmentation": Augmentation()})
    dataset = DetectionDataset(split, split.photos.image_ids, scale, 0, GREY, True)
    batch = dataset.collate([dataset[(2, row)] for row in range(4)])
    assert batch.step == 2
    assert tuple(batch.photos_BHW3.shape) == (4, 160, 160, 3)
    assert all(target.masks.shape[1:] == (160, 160) for target in batch.targets)


def test_photos_without_items_are_left_out(split):
    emptied = replace(split, items=split.items.take(split.items.image_ids != 3))
    assert photos_with_items(emptied, np.array([4, 3, 1])).tolist() == [1, 4]
    with pytest.raises(InputError, match="none of the 1 photos"):
        photos_with_items(emptied, np.array([3]))
    with pytest.raises(InputError, match="image id 999"):
        photos_with_items(split, np.array([1, 999]))
    with pytest.raises(InputError, match="no annotations"):
        photos_with_items(replace(split, items=None), np.array([1]))


@pytest.mark.parametrize("broken", [None, [], [[1, 2, 3]], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, "x"]], "no"])
def test_a_bad_polygon_is_named(tmp_path, broken):
    write_photos(tmp_path, "train", 2)
    split = read_split(tmp_path, "train")
    path = tmp_path / "train" / "annos" / "000001.json"
    annotation = json.loads(path.read_text())
    if broken is None:
        del annotation["item1"]["segmentation"]
    else:
        annotation["item1"]["segmentation"] = broken
    path.write_text(json.dumps(annotation))
    items = split.items.take(split.items.image_ids == 1)
    if broken == []:
        assert read_polygons(split, items)[0] == []
        return
    with pytest.raises(InputError, match=r"000001\.json: item1\.segmentation"):
        read_polygons(split, items)


def test_an_unreadable_annotation_is_named(tmp_path):
    write_photos(tmp_path, "train", 2)
    split = read_split(tmp_path, "train")
    (tmp_path / "train" / "annos" / "000002.json").write_text("{")
    with pytest.raises(InputError, match=r"000002\.json: cannot read"):
        read_polygons(split, split.items.take(split.items.image_ids == 2))


def test_a_damaged_photo_is_named(tmp_path):
    write_photos(tmp_path, "train", 2)
    split = read_split(tmp_path, "train")
    (tmp_path / "train" / "image" / "000002.jpg").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"000002\.jpg"):
        DetectionDataset(split, split.photos.image_ids, SCALE, 0, GREY, False)
