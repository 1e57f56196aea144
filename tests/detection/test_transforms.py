from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.detection.dataset import DetectionDataset, has_area, photos_with_items
from harness.detection.recipes import load_recipes
from harness.detection.transforms import Transforms
from harness.types import InputError

GREY = (124, 116, 104)
RESIZE = {"type": "RandomChoiceResize", "scales": [[133, 64], [133, 80]], "keep_ratio": True}
FLIP = {"type": "RandomFlip", "prob": 0.5}
COLOURS = {"type": "PhotoMetricDistortion"}
NO_BOX_LEFT = {"type": "FilterAnnotations", "min_gt_bbox_wh": [10_000, 10_000], "keep_empty": True}


def scale(*transforms, **more):
    return load_recipes()["ATSS"].tiny.model_copy(update={"transforms": transforms, "input_px": (128, 96), **more})


def dataset(split, *transforms, seed=7, masks=True, **more):
    return DetectionDataset(split, split.photos.image_ids, scale(*transforms, **more), seed, GREY, masks)


def generator(seed=0):
    return np.random.default_rng(seed)


def one_box(width=100, height=80):
    photo = np.full((height, width, 3), 200, np.uint8)
    photo[20:60, 10:30] = (250, 10, 20)
    return photo, np.array([[10.0, 20, 30, 60]]), [[np.array([[10.0, 20], [30, 20], [30, 60], [10, 60]])]]


def test_boxes_masks_and_pixels_stay_together():
    photo, boxes, polygons = one_box()
    chain = Transforms([{**RESIZE, "scales": [[200, 160]]}, {**FLIP, "prob": 1.0}])
    changed = chain(photo, boxes, polygons, generator())
    assert changed.laid.photo.shape == (160, 200, 3)
    np.testing.assert_allclose(changed.laid.boxes_xyxy, [[140, 40, 180, 120]])  # twice as large, then mirrored
    assert changed.laid.photo[80, 160].tolist() == [250, 10, 20]  # red is still the first channel
    assert changed.laid.photo[80, 40].tolist() == [200, 200, 200]
    ys, xs = np.nonzero(changed.masks[0])
    assert (xs.min(), ys.min(), xs.max(), ys.max()) == (140, 40, 179, 119)


def test_colours_change_and_stay_bytes():
    photo, boxes, _ = one_box()
    changed = Transforms([COLOURS])(photo, boxes, None, generator(1))
    assert changed.laid.photo.dtype == np.uint8
    assert (changed.laid.photo != photo).any()
    assert changed.masks is None


def test_an_example_depends_on_seed_step_and_row_alone(split):
    chain = (COLOURS, RESIZE, FLIP)
    one, other = dataset(split, *chain), dataset(split, *chain, keep_photos_in_memory=False)
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    other[(0, 0)]
    first, second = one[(5, 3)], other[(5, 3)]
    assert (first.laid.photo == second.laid.photo).all()
    assert (first.laid.boxes_xyxy == second.laid.boxes_xyxy).all()
    assert (first.masks == second.masks).all()
    assert any((one[(step, 3)].laid.photo.shape != first.laid.photo.shape) for step in range(6, 12))


def test_the_global_streams_are_left_as_they_were(split):
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    torch.manual_seed(5)
    expected = random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    torch.manual_seed(5)
    dataset(split, COLOURS, RESIZE, FLIP)[(0, 0)]
    assert (random.random(), np.random.random(), torch.rand(1)) == expected  # noqa: NPY002


def test_masks_lie_in_their_boxes(split):
    examples = dataset(split, RESIZE, FLIP)
    for row in range(len(examples)):
        example = examples[(row, row)]
        assert len(example.masks) == len(example.laid.boxes_xyxy) == len(example.category_ids)
        for mask, (x1, y1, x2, y2) in zip(example.masks, example.laid.boxes_xyxy, strict=True):
            ys, xs = np.nonzero(mask)
            assert x1 - 1.5 <= xs.min() <= xs.max() <= x2 + 1.5
            assert y1 - 1.5 <= ys.min() <= ys.max() <= y2 + 1.5


def test_categories_follow_their_boxes(split):
    """The first item of photo 1 is filtered out: the box that is left must keep its own category."""
    row = int(np.searchsorted(split.photos.image_ids, 1))
    items = split.items.take(split.items.image_ids == 1)
    assert len(items) == 2
    boxes = np.array([[10.0, 10, 12, 12], [20, 20, 60, 80]])
    changed_items = split.items.take(slice(0, 2))
    small = replace(split, items=replace(changed_items, boxes_xyxy=boxes, category_ids=np.array([3, 9])))
    filtered = {"type": "FilterAnnotations", "min_gt_bbox_wh": [5, 5]}
    example = DetectionDataset(small, np.array([1]), scale(filtered), 0, GREY, False)[(0, row)]
    assert example.category_ids.tolist() == [9]
    np.testing.assert_allclose(example.laid.boxes_xyxy, boxes[1:])


def test_a_photo_whose_transforms_leave_no_box_is_shown_plainly(split):
    empties = dataset(split, COLOURS, NO_BOX_LEFT)
    plain = DetectionDataset(
        split, split.photos.image_ids, scale().model_copy(update={"transforms": None}), 7, GREY, True
    )
    plain._scale = plain._scale.model_copy(update={"augmentation": type(plain._scale.augmentation)()})
    one, other = empties[(3, 4)], plain[(9, 4)]
    assert (one.laid.photo == other.laid.photo).all()
    assert (one.laid.boxes_xyxy == other.laid.boxes_xyxy).all()
    assert (one.masks == other.masks).all()


def test_batches_are_padded_to_multiples_of_32_and_know_their_photos(split):
    examples = dataset(split, RESIZE)
    batch = examples.collate([examples[(0, row)] for row in range(3)])
    assert batch.photos_BHW3.shape[1] % 32 == batch.photos_BHW3.shape[2] % 32 == 0
    for photo, target in zip(batch.photos_BHW3, batch.targets, strict=True):
        height, width = target.photo_hw
        assert target.masks.shape[1:] == photo.shape[:2]
        assert (photo[height:] == torch.tensor(GREY, dtype=torch.uint8)).all()
        assert (photo[:, width:] == torch.tensor(GREY, dtype=torch.uint8)).all()
        assert target.boxes_xyxy[:, 2].max() <= width


def test_an_item_without_a_polygon_has_no_mask():
    photo, boxes, _ = one_box()
    changed = Transforms([RESIZE, FLIP])(photo, boxes, [[]], generator())
    assert changed.masks.sum() <= 1


def test_a_transform_that_fails_names_the_photo(split):
    examples = dataset(split, RESIZE, {"type": "FixShapeResize", "width": -5, "height": 9})
    with pytest.raises(InputError, match=r"000001\.jpg: transforms\[1\] \(FixShapeResize\) of a photo of .* fails"):
        examples[(0, 0)]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([RESIZE, {"type": "Mosaic"}], r"transforms\[1\] \(Mosaic\): mixes several photos"),
        ([{"type": "NoSuchTransform"}], r"transforms\[0\] \(NoSuchTransform\): mmdet cannot make it"),
        ([{"type": "RandomFlip", "probability": 1}], r"transforms\[0\] \(RandomFlip\): mmdet cannot make it"),
        ([{"prob": 1}], r"transforms\[0\]: expected a 'type'"),
    ],
)
def test_what_is_no_transform_is_named(steps, message):
    with pytest.raises(InputError, match=message):
        Transforms(steps)


@pytest.mark.parametrize("transforms", [None, (RESIZE, FLIP)])
def test_items_that_cannot_be_learnt_are_not_shown(split, transforms):
    """Photo 1: one box without width, one outside; photo 2: one box that sticks out; photo 3: only outside."""
    some = split.items.take([0, 1, 2, 3])
    boxes = np.array([[10.0, 10, 10, 40], [500, 500, 600, 600], [-50, -50, 40, 50], [0, -90, 50, -20]])
    items = replace(some, image_ids=np.array([1, 1, 2, 3]), boxes_xyxy=boxes, category_ids=np.array([1, 2, 3, 4]))
    odd = replace(split, items=items)
    assert has_area(items).tolist() == [False, True, True, True]
    ids = photos_with_items(odd, np.array([1, 2, 3]))
    assert ids.tolist() == [1, 2, 3]
    settings = scale().model_copy(update={"transforms": transforms})
    examples = DetectionDataset(odd, ids, settings, 0, GREY, False)
    for row in range(3):  # photos 1 and 3 hold none of their boxes: photo 2 takes their place
        example = examples[(row, row)]
        assert example.category_ids.tolist() == [3]
        assert (example.laid.boxes_xyxy >= 0).all()
    nothing = DetectionDataset(odd, np.array([1, 3]), settings, 0, GREY, False)
    with pytest.raises(InputError, match="boxes of all 2 training photos lie outside"):
        nothing[(0, 0)]


def test_a_photo_of_boxes_without_area_is_left_out(split):
    flat = replace(
        split.items.take([0, 1]), image_ids=np.array([1, 2]), boxes_xyxy=np.array([[5.0, 5, 9, 5], [0, 0, 9, 9]])
    )
    assert photos_with_items(replace(split, items=flat), np.array([1, 2])).tolist() == [2]


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", ["ATSS", "CascadeMaskRCNN"])
def test_a_killed_training_with_transforms_goes_on_to_the_same_weights(name, split, tmp_path, monkeypatch):
    from harness.detection.module import DetectorModule
    from harness.detection.training import train

    recipe = load_recipes()[name]
    short = {"batch_size": 2, "num_steps": 3, "pretraining": None, "num_workers": 2, "input_px": (128, 96)}
    settings = recipe.tiny.model_copy(update={**short, "transforms": (COLOURS, RESIZE, FLIP)})
    recipe = recipe.changed("tiny", settings)
    arguments = (recipe, "tiny", split, split.photos.image_ids)
    straight = train(*arguments, tmp_path / "straight", seed=3)
    step_of = DetectorModule.training_step

    def dies(self, batch, batch_idx):
        if batch.step == 2:
            raise Killed
        return step_of(self, batch, batch_idx)

    monkeypatch.setattr(DetectorModule, "training_step", dies)
    with pytest.raises(Killed):
        train(*arguments, tmp_path / "again", seed=3, checkpoint_every=1)
    monkeypatch.undo()
    resumed = train(*arguments, tmp_path / "again", seed=3, checkpoint_every=1)
    assert resumed.resumed_at == 2
    assert resumed.weights_sha256 == straight.weights_sha256


def test_a_flip_may_have_several_directions():
    # mmcv takes the probabilities of several directions as a list alone, and sizes as tuples alone.
    photo = np.zeros((40, 40, 3), np.uint8)
    photo[:10, :20] = 255
    flip = {"type": "RandomFlip", "prob": [0.5, 0.5], "direction": ["horizontal", "vertical"]}
    transforms = Transforms([flip, {"type": "Resize", "scale": [40, 40]}])
    boxes = np.array([[0.0, 0, 20, 10]])
    found = set()
    for seed in range(12):
        changed = transforms(photo, boxes, None, np.random.default_rng(seed))
        assert changed is not None
        found.add(tuple(changed.laid.boxes_xyxy[0].tolist()))
    assert found == {(20, 0, 40, 10), (0, 30, 20, 40)}
