"""Writing a challenge file against Python's json on the same rows, both in one run.

A submission of the paper's size has 200,000 rows and 190 MB; it is written after every search, so it should cost
seconds. What is timed starts at the ranking and ends at the renamed file. The baseline gets its rows as plain lists for
nothing, and writes them with `json.dump`, as submissions usually are; it holds all of them, `write_submission` 128.
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from harness.types import Detections, Ranking
from submissions.writer import rows_from_ranking, write_submission

QUERIES, BOXES = 5000, 30_000
GROUP = f"writing {QUERIES:,} rows"


@pytest.fixture(scope="module")
def ranked() -> tuple[Detections, Ranking]:
    """Boxes of three decimals, so that the baseline writes the same numbers without rounding."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 250, (BOXES, 2))
    corners = np.round(np.concatenate([low, low + rng.uniform(80, 400, (BOXES, 2))], axis=1), 3)
    boxes = Detections(rng.integers(1, 32_154, BOXES), corners, rng.random(BOXES), rng.integers(1, 14, BOXES))
    rows = rng.integers(QUERIES, BOXES, (QUERIES, 20))
    return boxes, Ranking(np.arange(QUERIES), rows, np.zeros((QUERIES, 20), np.float32))


@pytest.mark.benchmark(group=GROUP)
@pytest.mark.parametrize("name", ["r.json", "r.zip"])
def test_write_submission(benchmark, ranked, name: str, tmp_path: Path) -> None:
    done = benchmark(lambda: write_submission(tmp_path / name, rows_from_ranking(*ranked)))
    assert done.num_rows == QUERIES


@pytest.mark.benchmark(group=GROUP)
def test_baseline_json_dump(benchmark, ranked, tmp_path: Path) -> None:
    rows = [
        {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in asdict(row).items()}
        for row in rows_from_ranking(*ranked)
    ]

    def dump() -> None:
        with open(tmp_path / "theirs.json", "w") as stream:
            json.dump(rows, stream)

    benchmark.pedantic(dump, rounds=5, warmup_rounds=1)
    write_submission(tmp_path / "ours.json", rows_from_ranking(*ranked))
    assert json.loads((tmp_path / "theirs.json").read_text()) == json.loads((tmp_path / "ours.json").read_text())
