"""Benchmarks of the stages of a row, run beside its scoring."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from leaderboard.times import refuse_time

BUSY = 0.5
"""Processes that wanted a core, on average over the minute before a benchmark; from here on its seconds say little."""


@dataclass(frozen=True)
class TimingRun:
    """What `run.py bench` measured of the stages of a row.

    Attributes:
        row_id: of the row whose ensemble was timed.
        result: JSON values; ``stages``, a list of objects with ``stage``, ``unit``, ``count``, ``median_s``, ``p95_s``,
            ``p99_s``, ``per_second``, ``peak_host_gib``, ``peak_gpu_gib``, ``energy_j``, ``batch_size``, ``precision``,
            ``baseline``; ``hardware``; ``code_version``; ``load_per_core``. What could not be measured is None.
        created: when, with a time zone.

    Raises:
        ValueError: no row, no list of stages, or a time without zone.
    """

    row_id: str
    result: Mapping[str, Any]
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        if not self.row_id:
            raise ValueError("row_id: expected the id of a row, got nothing")
        if not isinstance(self.result.get("stages"), list):
            raise ValueError("result: expected an object with a list of stages")
        refuse_time(self.created)

    @property
    def id(self) -> str:
        """SHA-256 of all of it."""
        content = [self.row_id, dict(self.result), self.created.isoformat()]
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
