"""Crops of large photos: decoded no larger than they are needed, whichever of them a batch asks for."""

import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from harness.data.garments import Garments
from harness.data.photos import decode_rgb
from harness.retrieval.recipes import resolve
from harness.retrieval.training_crops import CropDataset, PhotoPaths, canvas_and_view, canvas_wh, collect, reductions
from harness.training.cards import TrainedOn

SETTINGS = resolve("m0", "tiny").model_copy(update={"input_wh": (64, 64), "margin": 0.0})  # a canvas of 77 px
WHOLE = [np.nan] * 4


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Two large photos of soft blobs, and a small one."""
    paths = []
    for number, wh in enumerate([(900, 1200), (1000, 700), (300, 400)]):
        small = np.random.default_rng(number).integers(0, 256, (13, 9, 3), dtype=np.uint8)
        paths.append(tmp_path / f"{number}.jpg")
        cv2.imwrite(str(paths[-1]), cv2.resize(small, wh, interpolation=cv2.INTER_CUBIC))
    return paths


def crops_of(photos, rows, boxes):
    record = TrainedOn(fingerprint="f", split="train", num_photos=3, image_ids_sha256="i", rendered=True)
    count = len(rows)
    garments = Garments(
        "Mine", photos, np.array(rows), np.array(boxes), np.arange(count) // 2, np.arange(count) % 2 == 0, record
    )
    return collect([garments])


def test_paths_are_one_block_of_memory():
    paths = [Path(f"/data/{name}.jpg") for name in ("a", "ü", "x y", "")] + [Path("b.jpg")]
    held = pickle.loads(pickle.dumps(PhotoPaths(paths)))
    assert list(held) == paths
    assert (len(held), len(PhotoPaths([]))) == (5, 0)
    many = PhotoPaths(Path(f"/data/train/image/{number:06d}.jpg") for number in range(10_000))
    assert len(pickle.dumps(many)) < 45 * 10_000
    assert many[9_999] == Path("/data/train/image/009999.jpg")


def test_photos_that_no_crop_needs_are_left_out(photos):
    crops = crops_of(photos, [2, 2, 0, 2], [[0, 0, 50, 50]] * 4)
    assert list(crops.photos) == [photos[0], photos[2]]
    assert crops.photo_rows.tolist() == [1, 1, 0, 1]


def test_the_smallest_crop_of_a_photo_decides():
    side = 77 / 1.2  # with a tenth of context on each side it is just a canvas
    crops = crops_of([Path("0"), Path("1"), Path("2")], [0, 0, 1, 1, 2, 2], [
        [0, 0, 4 * side, 9 * side], [9, 9, 9 + 3 * side, 9 + 8 * side], WHOLE, [0, 0, side, side], WHOLE, WHOLE,
    ])  # fmt: skip
    assert reductions(crops, SETTINGS) == pytest.approx([3, 1, np.inf])
    dataset = CropDataset(crops, SETTINGS, num_threads=0)
    cases = [(3, (2000, 2000), 2), (8, (2000, 2000), 8), (7.9, (2000, 2000), 4), (np.inf, (616, 700), 8)]
    cases += [(np.inf, (615, 700), 4), (1.9, (2000, 2000), 1), (9, (511, 400), 1)]
    for room, wh, factor in cases:
        assert dataset._reduction(room, *wh) == factor, (room, wh)


def test_canvases_of_reduced_photos_are_nearly_those_of_whole_ones(photos):
    boxes = [[100.5, 200.25, 700, 1100], [0, 0, 899, 500], WHOLE, [300, 50, 990, 690], WHOLE, [20, 30, 200, 300]]
    crops = crops_of(photos, [0, 0, 1, 1, 2, 2], boxes)
    dataset = CropDataset(crops, SETTINGS, num_threads=0)
    assert [dataset._photo(row)[1] for row in range(3)] == [4, 8, 1]
    batch = dataset.__getitems__([(0, row) for row in range(6)])
    for row, box in enumerate(crops.boxes_xyxy):
        whole, view = canvas_and_view(decode_rgb(crops.photos[crops.photo_rows[row]]), box, SETTINGS)
        gap = np.abs(batch["canvases"][row].numpy().astype(int) - whole)
        assert gap.mean() < 6, row  # blobs as bright and dark as can be; another region differs by some 60
        assert np.abs(batch["views"][row].numpy() - view).max() < 0.01
    for row in range(6):  # and whatever else is asked for
        alone = dataset.__getitems__([(0, row)])
        assert np.array_equal(alone["canvases"][0], batch["canvases"][row])
    assert batch["canvases"].shape[1:3] == canvas_wh(SETTINGS)[::-1]


def test_a_dataset_of_a_million_crops_is_small_to_send(photos):
    crops = crops_of(photos, [0, 0, 1, 1], [[0, 0, 90, 90]] * 4)
    many = replace(
        crops,
        photos=PhotoPaths(Path(f"/data/train/image/{number:06d}.jpg") for number in range(1000)),
        photo_rows=np.arange(5000) % 1000,
        boxes_xyxy=np.zeros((5000, 4)),
        labels=np.arange(5000) // 2,
        is_consumer=np.zeros(5000, bool),
    )
    assert len(pickle.dumps(CropDataset(many, SETTINGS, num_threads=0))) < 5000 * 60
