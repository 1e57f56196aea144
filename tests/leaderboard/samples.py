"""Rows with chosen outcomes."""

from datetime import UTC, datetime
from typing import Any

import numpy as np

from harness.types import Score
from leaderboard.rows import Row, StageRecord

RANKS = [1, 0, 3, 12, 1, 6, 0, 20, 2, 11]


def sample(name: str = "m4", ranks: list[int] | None = None, protocol: str = "official", **changes: Any) -> Row:
    ranks = RANKS if ranks is None else ranks
    values: dict[str, Any] = {
        "spec": f"{name} with WBF_5",
        "name": name,
        "split": "validation",
        "fingerprint": "f" * 64,
        "rendered": True,
        "artifacts": ("a" * 64, "b" * 64),
        "code_version": "0.1.0+abc",
        "hardware": {"cpu": "some", "cores": 2, "gpu": None},
        "stages": (StageRecord("detect", 40.0), StageRecord("embed", 20.0)),
        "score": Score(protocol, len(ranks), np.array(ranks)),
        "created": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    }
    return Row(**{**values, **changes})


def with_hits(name: str, hits: int, n: int = 100, first_miss: int = 0, **changes: Any) -> Row:
    """The first hits queries right at rank 1, rotated by first_miss."""
    ranks = [1] * hits + [0] * (n - hits)
    return sample(name, ranks[first_miss:] + ranks[:first_miss], **changes)
