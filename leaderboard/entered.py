"""Scores that a challenge server or a paper told, entered by hand: no outcome per query stands behind them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from harness.types import RANKS, SPLITS, SplitName
from leaderboard.times import refuse_time


@dataclass(frozen=True)
class EnteredScore:
    """An official score that a team got elsewhere, such as on the test split, whose truth only a server knows.

    Attributes:
        spec: the ensemble in its canonical form.
        name: what people call it.
        split: the split that was scored.
        acc: Acc@k in [0, 1] for some k of `RANKS`, 10 among them.
        source: who said so: a server, a mail, an address.
        submission_sha256: of the file that was handed in; None where nobody knows.
        rendered: whether it was scored on rendered data.
        created: when it was entered, with a time zone.

    Raises:
        ValueError: an empty text, an unknown split or k, an accuracy outside [0, 1], or none at 10.
    """

    spec: str
    name: str
    split: SplitName
    acc: Mapping[int, float]
    source: str
    submission_sha256: str | None = None
    rendered: bool = False
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        for name in ("spec", "name", "source"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected a text, got nothing")
        if self.split not in SPLITS:
            raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {self.split!r}")
        for k, value in self.acc.items():
            if k not in RANKS:
                raise ValueError(f"acc: expected k of {', '.join(map(str, RANKS))}, got {k}")
            if not 0 <= value <= 1:
                raise ValueError(f"acc: expected Acc@{k} in [0, 1], got {value}")
        if 10 not in self.acc:
            raise ValueError("acc: expected Acc@10, which the challenge ranks by")
        refuse_time(self.created)

    @property
    def id(self) -> str:
        """SHA-256 of what was told; the time is no part of it, so that the same score entered twice is one."""
        content: list[object] = [self.spec, self.name, self.split, sorted(self.acc.items()), self.source]
        content += [self.submission_sha256, self.rendered]
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()
