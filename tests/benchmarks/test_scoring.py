"""The official score against merely parsing the file with Python's json, and box AP against pycocotools."""

import json

import numpy as np
import pytest

from harness.scoring.boxes import ap50, box_ap
from harness.scoring.official import evaluate_files
from harness.types import Detections, Items

ROWS, SHOP_PHOTOS = 5000, 2000


def boxes(rng, num_boxes):
    corner = rng.uniform(0, 400, (num_boxes, 2))
    return np.round(np.concatenate([corner, corner + rng.uniform(20, 200, (num_boxes, 2))], axis=1), 3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A results file of 5,000 rows (5.6 MB) with its truth: one query a photo."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("scoring")
    query_boxes, shop_boxes = boxes(rng, ROWS).tolist(), boxes(rng, SHOP_PHOTOS).tolist()
    queries = [
        {"query_image_id": n + 1, "bbox": box, "cls": n % 13 + 1, "style": 1, "pair_id": n % SHOP_PHOTOS}
        for n, box in enumerate(query_boxes)
    ]
    gallery = [
        {"gallery_image_id": ROWS + n + 1, "bbox": box, "style": 1, "pair_id": n} for n, box in enumerate(shop_boxes)
    ]
    answers = rng.integers(0, SHOP_PHOTOS, (ROWS, 20))
    results = [
        {
            "query_image_id": n + 1,
            "query_bbox": query_boxes[n],
            "query_cls": n % 13 + 1,
            "query_score": 0.9,
            "gallery_image_id": (ROWS + answers[n] + 1).tolist(),
            "gallery_bbox": [shop_boxes[g] for g in answers[n]],
        }
        for n in range(ROWS)
    ]
    paths = [folder / f"{name}.json" for name in ("results", "query", "gallery")]
    for path, value in zip(paths, (results, queries, gallery), strict=True):
        path.write_text(json.dumps(value))
    return paths


@pytest.mark.benchmark(group="official score of 5,000 rows")
def test_evaluate_files(benchmark, files) -> None:
    assert benchmark(evaluate_files, *files).num_queries == ROWS


@pytest.mark.benchmark(group="official score of 5,000 rows")
def test_baseline_json_parses_the_results(benchmark, files) -> None:
    assert len(benchmark(lambda: json.loads(files[0].read_bytes()))) == ROWS


@pytest.fixture(scope="module")
def detections():
    """2,000 photos with 2 items and 10 boxes each, the boxes being items moved about."""
    rng = np.random.default_rng(1)
    image_ids = np.repeat(np.arange(1, 2001), 2)
    zeros = np.zeros(4000, np.int64)
    truth_boxes, categories = boxes(rng, 4000), rng.integers(1, 14, 4000)
    truth = Items(image_ids, zeros + 1, zeros > 0, truth_boxes, categories, *(zeros for _ in range(6)))
    rows = np.repeat(np.arange(4000), 5)
    moved = truth_boxes[rows] + rng.normal(0, 12, (20000, 4))
    moved = np.concatenate([np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])], axis=1)
    return truth, Detections(image_ids[rows], moved, rng.uniform(0, 1, 20000), categories[rows])


@pytest.mark.benchmark(group="box AP of 20,000 boxes")
def test_box_ap(benchmark, detections) -> None:
    assert benchmark(box_ap, *detections).ap > 0


@pytest.mark.benchmark(group="box AP of 20,000 boxes")
def test_ap50_alone(benchmark, detections) -> None:
    assert benchmark(ap50, *detections) == pytest.approx(box_ap(*detections).ap50, abs=1e-12)


@pytest.mark.benchmark(group="box AP of 20,000 boxes")
def test_baseline_pycocotools(benchmark, detections) -> None:
    found = benchmark.pedantic(box_ap, detections, {"engine": "pycocotools"}, rounds=2, iterations=1)
    assert found.ap == pytest.approx(box_ap(*detections).ap, abs=1e-9)
