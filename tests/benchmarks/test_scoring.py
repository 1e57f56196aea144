"""Scoring a result file of the size of the validation set, beside merely parsing it with Python's json.

56,000 rows of 10,844 consumer photos against 20,681 shop photos, 59 MB. The whole process counts: starting Python,
reading the ground truth, both protocols, ledger, ladder and slices. The baseline is what every scorer that uses
``json`` pays before it begins.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.scoring.examination import examine
from harness.scoring.official import evaluate_files
from harness.scoring.results import Results
from harness.scoring.truth import read_truth

ROOT = Path(__file__).parents[2]
ROWS, QUERIES, SHOP_ITEMS, PAIRS = 56_000, 12_550, 37_183, 3_000
CONSUMER_PHOTOS, SHOP_PHOTOS = 10_844, 20_681


def boxes(rng, num_boxes):
    corner = rng.uniform(0, 400, (num_boxes, 2))
    return np.round(np.concatenate([corner, corner + rng.uniform(20, 200, (num_boxes, 2))], axis=1), 3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Result file, query file and gallery file; most rows are of a query's category, every second has a right entry."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("scoring")
    query_boxes, shop_boxes = boxes(rng, QUERIES), boxes(rng, SHOP_ITEMS)
    query_photos = np.arange(QUERIES) % CONSUMER_PHOTOS + 1
    shop_photos = np.arange(SHOP_ITEMS) % SHOP_PHOTOS + CONSUMER_PHOTOS + 1
    categories = rng.integers(1, 14, QUERIES)
    query_pairs, shop_pairs = query_photos * 7919 % PAIRS, np.arange(SHOP_ITEMS) % PAIRS
    queries = [
        {"query_image_id": photo, "bbox": box, "cls": category, "style": 1, "pair_id": pair}
        for photo, box, category, pair in zip(
            query_photos.tolist(), query_boxes.tolist(), categories.tolist(), query_pairs.tolist(), strict=True
        )
    ]
    gallery = [
        {"gallery_image_id": photo, "bbox": box, "style": 1, "pair_id": pair}
        for photo, box, pair in zip(shop_photos.tolist(), shop_boxes.tolist(), shop_pairs.tolist(), strict=True)
    ]
    asked = np.arange(ROWS) % QUERIES
    answers = rng.integers(0, SHOP_ITEMS, (ROWS, 20))
    right = np.flatnonzero(rng.random(ROWS) < 0.5)
    answers[right, rng.integers(0, 20, len(right))] = query_pairs[asked[right]] + PAIRS * rng.integers(
        0, SHOP_ITEMS // PAIRS, len(right)
    )
    found = np.round(query_boxes[asked] + rng.normal(0, 8, (ROWS, 4)), 3)
    named = np.where(rng.random(ROWS) < 0.8, categories[asked], rng.integers(1, 14, ROWS))
    results = [
        {
            "query_image_id": photo,
            "query_bbox": box,
            "query_cls": category,
            "query_score": score,
            "gallery_image_id": shown,
            "gallery_bbox": shown_boxes,
        }
        for photo, box, category, score, shown, shown_boxes in zip(
            query_photos[asked].tolist(),
            found.tolist(),
            named.tolist(),
            rng.random(ROWS).tolist(),
            shop_photos[answers].tolist(),
            shop_boxes[answers].tolist(),
            strict=True,
        )
    ]
    paths = [folder / f"{name}.json" for name in ("results", "query", "gallery")]
    for path, value in zip(paths, (results, queries, gallery), strict=True):
        path.write_text(json.dumps(value))
    return paths


def parse(path):
    with open(path) as file:
        return json.load(file)


@pytest.mark.benchmark(group="score 56,000 rows", warmup=True)
def test_evaluate_as_a_whole_process(benchmark, files) -> None:
    results, query, gallery = map(str, files)
    command = [sys.executable, "run.py", "evaluate", results, "--query", query, "--gallery", gallery, "--json"]
    done = benchmark(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["num_queries"] == QUERIES


@pytest.mark.benchmark(group="score 56,000 rows", warmup=True)
def test_evaluate_files(benchmark, files) -> None:
    assert 0.1 < benchmark(evaluate_files, *files).acc[10] < 0.5


@pytest.mark.benchmark(group="score 56,000 rows", warmup=True)
def test_examine_what_is_read(benchmark, files) -> None:
    truth, results = read_truth(*files[1:]), Results.from_json(files[0])
    assert benchmark(examine, results, *truth).score.num_queries == QUERIES


@pytest.mark.benchmark(group="score 56,000 rows", warmup=True)
def test_baseline_json_parses_the_results(benchmark, files) -> None:
    assert files[0].stat().st_size > 58_000_000
    assert len(benchmark(parse, files[0])) == ROWS
