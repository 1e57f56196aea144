"""The official score against merely parsing the file with Python's json."""

import json

import numpy as np
import pytest

from harness.scoring.examination import examine
from harness.scoring.official import evaluate_files
from harness.scoring.results import Results
from harness.scoring.truth import read_truth

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
def test_whole_examination(benchmark, files) -> None:
    """Both protocols, ledger, ladder, slices and doubts: what that costs beside reading the files."""

    def examined():
        return examine(Results.from_json(files[0]), *read_truth(*files[1:]))

    assert benchmark(examined).score.num_queries == ROWS


@pytest.mark.benchmark(group="official score of 5,000 rows")
def test_baseline_json_parses_the_results(benchmark, files) -> None:
    assert len(benchmark(lambda: json.loads(files[0].read_bytes()))) == ROWS
