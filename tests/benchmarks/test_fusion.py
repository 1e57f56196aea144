"""Weighted boxes fusion of five detectors with 100 boxes a photo each, beside ensemble-boxes in the same run.

Fusing a split and tuning that are nothing but this. The drop-in function gets one photo a call, as that package does;
``fuse`` gets 400 photos at once, on one core and on all of them. The batches differ in size, so each tells how many
``things`` it fuses.
"""

import warnings

import numpy as np
import pytest
from ensemble_boxes import weighted_boxes_fusion as original

from harness.detection.fusion import FusionSettings, fuse, weighted_boxes_fusion
from harness.types import CATEGORIES, Detections
from harness.workers import available_threads

DETECTORS, BOXES, SIDE_PX = 5, 100, 640
FEW, MANY = 20, 400


@pytest.fixture(scope="module")
def photos():
    """Half of the boxes are a garment moved about, half lie anywhere; scores and categories are drawn blindly."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(MANY):
        corner = rng.uniform(0.1, 0.6, (4, 2))
        garments = np.concatenate([corner, corner + rng.uniform(0.1, 0.35, (4, 2))], axis=1)
        lists = []
        for _ in range(DETECTORS):
            near = garments[rng.integers(0, 4, BOXES)] + rng.normal(0, 0.03, (BOXES, 4))
            far = rng.uniform(0, 0.7, (BOXES, 2))
            far = np.concatenate([far, far + rng.uniform(0.02, 0.3, (BOXES, 2))], axis=1)
            boxes = np.clip(np.where(rng.random((BOXES, 1)) < 0.5, near, far), 0, 1)
            boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], 1)
            lists.append((boxes, rng.random(BOXES), rng.integers(1, len(CATEGORIES) + 1, BOXES)))
        found.append(tuple(list(part) for part in zip(*lists, strict=True)))
    return found


@pytest.fixture(scope="module")
def detections(photos):
    image_ids = np.repeat(np.arange(1, MANY + 1), BOXES)
    return [
        Detections(
            image_ids,
            np.concatenate([boxes[m] for boxes, _, _ in photos]) * SIDE_PX,
            np.concatenate([scores[m] for _, scores, _ in photos]),
            np.concatenate([labels[m] for _, _, labels in photos]),
        )
        for m in range(DETECTORS)
    ]


def each(function, photos):
    for lists in photos:
        function(*lists)


@pytest.mark.benchmark(group="weighted boxes fusion, 5 x 100 boxes a photo")
def test_drop_in_function_20_photos(benchmark, photos) -> None:
    weighted_boxes_fusion(*photos[0])
    benchmark.extra_info["things"] = FEW
    benchmark(each, weighted_boxes_fusion, photos[:FEW])


@pytest.mark.benchmark(group="weighted boxes fusion, 5 x 100 boxes a photo")
def test_baseline_ensemble_boxes_20_photos(benchmark, photos) -> None:
    benchmark.extra_info["things"] = FEW
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        benchmark.pedantic(each, (original, photos[:FEW]), rounds=5)


@pytest.mark.benchmark(group="weighted boxes fusion, 5 x 100 boxes a photo")
@pytest.mark.parametrize("num_threads", sorted({1, available_threads()}))
def test_whole_split_400_photos(benchmark, detections, num_threads) -> None:
    benchmark.extra_info["things"] = MANY
    sizes = dict.fromkeys(range(1, MANY + 1), (SIDE_PX, SIDE_PX))
    assert len(benchmark(fuse, detections, sizes, FusionSettings(), num_threads=num_threads)) > MANY


@pytest.mark.benchmark(group="weighted boxes fusion, 5 x 100 boxes a photo")
@pytest.mark.parametrize("label_policy", ["best", "vote"])
def test_whole_split_400_photos_by_label_policy(benchmark, detections, label_policy) -> None:
    benchmark.extra_info["things"] = MANY
    sizes = dict.fromkeys(range(1, MANY + 1), (SIDE_PX, SIDE_PX))
    settings = FusionSettings(label_policy=label_policy)
    assert len(benchmark(fuse, detections, sizes, settings, num_threads=1)) > MANY
