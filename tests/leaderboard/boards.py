"""Whole boards for the tests of pages: small ones to look at, large ones to measure, and one that means harm."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from harness.scoring.ledger import FATES
from harness.scoring.questions import Questions
from harness.types import Score
from leaderboard.entered import EnteredScore
from leaderboard.rows import Losses, Row, StageRecord
from leaderboard.store import Board
from leaderboard.timing_runs import TimingRun

MODELS = ("m0", "m1", "m4", "m9", "m12", "m1-16 (w/o m7)", "m4,m9,m12")
BOXES = ("WBF_5", "WBF_4", "ATSS", "CenterNet")
MACHINES = (
    {"cpu": "AMD EPYC 7B13", "cores": 2, "gpus": []},
    {"cpu": "Xeon", "cores": 16, "gpus": ["NVIDIA H100 80GB HBM3"]},
)
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)></script>&amp;"
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def questions(num_queries: int) -> Questions:
    """Queries of every category and attribute value in turn."""
    numbers = np.arange(num_queries)
    attributes = {
        name: numbers % base for name, base in (("scale", 4), ("occlusion", 3), ("zoom_in", 4), ("viewpoint", 4))
    }
    return Questions(numbers, numbers % 13 + 1, numbers % 8 + 1, attributes)


def many_rows(count: int, num_queries: int = 200, seed: int = 7, **changes: Any) -> list[Row]:
    """Rows that differ in outcome, boxes, models, machine and time; one in 25 does not count."""
    generator = np.random.default_rng(seed)
    difficulty = generator.random(num_queries)
    rows = []
    for number in range(count):
        strength = generator.uniform(0.45, 0.9)
        answers = difficulty + generator.normal(0, 0.12, num_queries) < strength
        ranks = np.where(answers, generator.integers(1, 16, num_queries), 0)
        models, boxes = MODELS[number % len(MODELS)], BOXES[number // len(MODELS) % len(BOXES)]
        spec = f"{models} + {boxes} | qe({number})" if number >= len(MODELS) * len(BOXES) else f"{models} + {boxes}"
        machine = MACHINES[number % 3 == 2]
        quick = 0.12 if machine["gpus"] else 1.0
        times = (("detect ATSS", 40), ("fuse WBF_5", 2), ("embed", 20 + 120 * strength**3), ("search", 1.5))
        stages = tuple(
            StageRecord(
                name, round(quick * base * generator.uniform(0.8, 1.25), 3), 0.01, name != "search", 1000, "photos"
            )
            for name, base in times
        )
        fates = np.where((ranks > 0), 0, generator.integers(1, len(FATES), num_queries)).astype(np.uint8)
        values: dict[str, Any] = {
            "spec": spec,
            "name": spec if number % 4 else f"trial {number}",
            "split": "validation",
            "fingerprint": "f" * 64,
            "rendered": True,
            "artifacts": (f"boxes:{number:064x}", "m4 is ResNet152-D, 1024 dimensions"),
            "code_version": "0.1.0-abc123",
            "hardware": machine,
            "stages": stages,
            "score": Score("official", num_queries, ranks),
            "created": START + timedelta(minutes=number),
            "contamination": "m7 was trained on validation" if number % 25 == 24 else None,
            "losses": Losses(fates, ("not in gallery",) if number % 2 else ()),
            "questions_id": questions(num_queries).id,
            "settings": {"ATSS": "mirrored too", "WBF_5": "IoU 0.6, skip 0.05"},
            "command": f"run.py score '{spec}' --data DIR --split validation",
        }
        rows.append(Row(**{**values, **changes}))
    return rows


def board_of(path: Path, rows: list[Row]) -> Board:
    """A board with these rows and their queries."""
    board = Board(path)
    for row in rows:
        known = questions(row.score.num_queries)
        board.add(row, known if row.questions_id == known.id else None)
    return board


def small_board(path: Path) -> Board:
    """Rendered rows and photographs, detected and given boxes, an entered score, a benchmark, and a row of old."""
    rows = many_rows(30)
    real = [replace(row, rendered=False, fingerprint="e" * 64) for row in many_rows(6, 300, seed=3)]
    given = [replace(row, spec=f"{row.spec.partition(' + ')[0]} + GT", name=f"{row.name} on GT") for row in rows[:3]]
    old = replace(
        rows[5],
        losses=None,
        questions_id=None,
        settings={},
        command=None,
        name="of old",
        stages=(),
        artifacts=("older boxes",),
    )
    board = board_of(path, [*rows, *real, *given, old])
    board.enter(EnteredScore("m4 + WBF_5", "our entry", "test", {1: 0.5, 10: 0.8541}, "the challenge server, by mail"))
    stage = {
        "stage": "search", "unit": "queries", "count": 1000, "median_s": 0.0123, "p95_s": 0.02, "p99_s": None,
        "per_second": 81300.8, "peak_host_gib": 1.5, "peak_gpu_gib": None, "energy_j": None, "batch_size": 64,
        "precision": "float32", "baseline": {"faiss": 1.7},
    }  # fmt: skip
    board.add_timing(
        TimingRun(rows[0].id, {"stages": [stage], "hardware": MACHINES[0], "code_version": "0.1.0"}, START)
    )
    return board


def evil_board(path: Path) -> Board:
    """Every text that a person or a file can choose is HTML that would run."""
    rows = [
        replace(
            row, spec=f"{EVIL} + {EVIL}{row.spec}", name=f"{EVIL}{row.name}", code_version=EVIL, artifacts=(EVIL,),
            hardware={"cpu": EVIL, EVIL: {EVIL: EVIL}}, settings={EVIL: EVIL}, command=EVIL,
            stages=(StageRecord(EVIL, 1.0, 0.5, True, 3, EVIL),),
            contamination=EVIL if row.contamination else None,
        )
        for row in many_rows(26, 40)
    ]  # fmt: skip
    board = board_of(path, rows)
    board.enter(EnteredScore(EVIL, EVIL, "test", {10: 0.5}, EVIL, EVIL))
    board.add_timing(
        TimingRun(rows[0].id, {"stages": [{"stage": EVIL, "unit": EVIL, "baseline": {EVIL: EVIL}}]}, START)
    )
    return board
