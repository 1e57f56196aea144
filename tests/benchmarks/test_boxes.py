"""Box AP against pycocotools, both in one run on the same boxes.

Box AP is asked after every training, for every ``WBF_n``, and by teams that tune a detector. What is timed starts at
columns in memory and ends at the six averages, so the pycocotools side pays for the objects that it needs, as anyone
who calls it does. The full size is that of the paper's fusion on validation (590,000 boxes of 32,000 photos with 52,000
items in 13 categories) and takes minutes: ``BOX_AP_BENCHMARK=full``.
"""

import os

import numpy as np
import pytest

from harness.scoring.boxes import ap50, box_ap, per_category
from harness.types import Detections, Items

NUM_BOXES, NUM_PHOTOS, NUM_ITEMS = (
    (590_000, 32_000, 52_000) if os.environ.get("BOX_AP_BENCHMARK") == "full" else (20_000, 1_085, 1_763)
)
GROUP = f"box AP of {NUM_BOXES:,} boxes on {NUM_PHOTOS:,} photos"


def inside_out(boxes):
    """Corners in order again after they were moved."""
    return np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)


@pytest.fixture(scope="module")
def world() -> tuple[Items, Detections]:
    """Items of all three sizes; boxes are items moved about, one in four under another category, good ones scored
    higher, scores of three digits so that many are equal."""
    rng = np.random.default_rng(1)
    image_ids = np.sort(rng.integers(1, NUM_PHOTOS + 1, NUM_ITEMS))
    corner, size = rng.uniform(0, 400, (NUM_ITEMS, 2)), np.exp(rng.uniform(2.5, 6, (NUM_ITEMS, 2)))
    boxes, categories = np.concatenate([corner, corner + size], axis=1), rng.integers(1, 14, NUM_ITEMS)
    zeros = np.zeros(NUM_ITEMS, np.int64)
    truth = Items(image_ids, zeros + 1, zeros > 0, boxes, categories, *(zeros for _ in range(6)))
    rows = rng.integers(0, NUM_ITEMS, NUM_BOXES)
    noise = rng.exponential(0.1, NUM_BOXES)
    moved = inside_out(boxes[rows] + rng.normal(0, 1, (NUM_BOXES, 4)) * noise[:, None] * np.tile(size[rows], 2))
    found = np.where(rng.random(NUM_BOXES) < 0.25, rng.integers(1, 14, NUM_BOXES), categories[rows])
    scores = np.round(np.clip(np.exp(-4 * noise) * rng.uniform(0.5, 1, NUM_BOXES), 0, 1), 3)
    return truth, Detections(image_ids[rows], moved, scores, found)


def values(averages) -> list[float]:
    return [-1 if value is None else value for value in vars(averages).values()]


@pytest.mark.benchmark(group=GROUP)
def test_box_ap(benchmark, world) -> None:
    assert benchmark.pedantic(box_ap, world, rounds=3, warmup_rounds=1).ap > 0


@pytest.mark.benchmark(group=GROUP)
def test_ap50_alone(benchmark, world) -> None:
    assert benchmark.pedantic(ap50, world, rounds=3, warmup_rounds=1) == pytest.approx(box_ap(*world).ap50, abs=1e-12)


@pytest.mark.benchmark(group=GROUP)
@pytest.mark.timeout(1200)
def test_baseline_pycocotools(benchmark, world) -> None:
    """Also the proof that the figures are the same: all six averages, over all categories and for each alone."""
    full = NUM_BOXES > 100_000
    found = benchmark.pedantic(box_ap, world, {"engine": "pycocotools"}, rounds=1 if full else 3)
    ours, theirs = per_category(*world), per_category(*world, engine="pycocotools")
    np.testing.assert_allclose(values(box_ap(*world)), values(found), rtol=0, atol=1e-9)
    for category in range(1, 14):
        np.testing.assert_allclose(values(ours[category]), values(theirs[category]), rtol=0, atol=1e-9)
