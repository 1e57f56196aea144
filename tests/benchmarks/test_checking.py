"""Checking a result file against merely parsing it with Python's json, each as a whole process and within one.

What is checked is a clean file of 5,000 rows (5.6 MB), and one where every id is a text, so that every row is walked.
As whole processes at 56,000 rows (59 MB), and the memory for 600 MB: `python tests/benchmarks/test_checking.py FILE`.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from submissions.checker import check_submission
from submissions.difference import compare_submissions
from submissions.repair import repair_submission

ROWS, SHOP_PHOTOS = 5000, 2000
ROOT = Path(__file__).parents[2]
GROUP = "checking 5,000 rows"


def boxes(rng, num_boxes):
    corner = rng.uniform(0, 400, (num_boxes, 2))
    return np.round(np.concatenate([corner, corner + rng.uniform(20, 200, (num_boxes, 2))], axis=1), 3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The clean file, and the one of text ids."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("checking")
    query_boxes, shop_boxes = boxes(rng, ROWS).tolist(), boxes(rng, SHOP_PHOTOS).tolist()
    rows = [
        {
            "query_image_id": n + 1,
            "query_bbox": query_boxes[n],
            "query_cls": n % 13 + 1,
            "query_score": float(rng.uniform()),
            "gallery_image_id": (ROWS + answers + 1).tolist(),
            "gallery_bbox": [shop_boxes[g] for g in answers],
        }
        for n, answers in enumerate(rng.integers(0, SHOP_PHOTOS, (ROWS, 20)))
    ]
    clean, texts = folder / "clean.json", folder / "texts.json"
    clean.write_text(json.dumps(rows))
    texts.write_text(json.dumps([{**row, "query_image_id": str(row["query_image_id"])} for row in rows]))
    return clean, texts


@pytest.mark.benchmark(group=GROUP)
def test_check_a_clean_file(benchmark, files) -> None:
    assert benchmark(check_submission, files[0]).ok


@pytest.mark.benchmark(group=GROUP)
def test_check_a_file_that_is_wrong_everywhere(benchmark, files) -> None:
    assert benchmark(check_submission, files[1]).groups[0].num_problems == ROWS


@pytest.mark.benchmark(group=GROUP)
def test_mend_a_file_that_is_wrong_everywhere(benchmark, files, tmp_path) -> None:
    found = benchmark.pedantic(repair_submission, (files[1], tmp_path / "out.json"), rounds=3, iterations=1)
    assert found.after.ok


@pytest.mark.benchmark(group=GROUP)
def test_compare_two_files(benchmark, files) -> None:
    assert benchmark(compare_submissions, files[0], files[0]).is_none


@pytest.mark.benchmark(group=GROUP)
def test_baseline_json_parses_the_clean_file(benchmark, files) -> None:
    def load():
        with open(files[0]) as stream:
            return json.load(stream)

    assert len(benchmark(load)) == ROWS


def measure(path: str, rounds: int = 5) -> dict[str, object]:
    """Median seconds of whole processes, taking turns, and the most memory that any took."""
    commands = {
        "check": [sys.executable, str(ROOT / "run.py"), "check", path, "--json"],
        "json.load": [sys.executable, "-c", "import json, sys; json.load(open(sys.argv[1]))", path],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    gigabytes = {}
    for _ in range(rounds):
        for name, command in commands.items():
            start = time.perf_counter()
            probe = (
                "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL); "
                "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
            )
            done = subprocess.run([sys.executable, "-c", probe, *command], capture_output=True, text=True, check=True)
            seconds[name].append(time.perf_counter() - start)
            gigabytes[name] = max(gigabytes.get(name, 0), int(done.stdout) / 1e6)
    medians = {name: round(float(np.median(values)), 3) for name, values in seconds.items()}
    return {
        "seconds": medians,
        "check over json.load": round(medians["check"] / medians["json.load"], 2),
        "gigabytes": {name: round(value, 2) for name, value in gigabytes.items()},
        "rounds": rounds,
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))  # noqa: T201
