"""One scored result with everything that made it."""

from __future__ import annotations

import hashlib
import json
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from harness.scoring.significance import wilson_interval
from harness.types import SPLITS, Bools, InputError, Score, SplitName

_GROUND_TRUTH = re.compile(r"\+ GT(?: \||$)")


@dataclass(frozen=True, eq=False)
class Row:
    """A leaderboard row: a score, and what is needed to believe it.

    Attributes:
        spec: the ensemble in its canonical form.
        name: what people call it.
        split: the split that was scored.
        fingerprint: which data, as `harness.types.Split.fingerprint`.
        rendered: whether the data says of itself that it was rendered.
        artifacts: keys of the stage results that the score was computed from.
        code_version: version or commit of the code.
        hardware: the machine's fingerprint, JSON values.
        stage_seconds: seconds of each stage in the order of the flow.
        score: the protocol's verdict with the rank of the first right answer of every query.
        contamination: why the row does not count (a member was trained on the split that is scored); None where clean.
        hedged: whether boxes stand under many categories at once.
        created: when the row was made, with a time zone.

    Raises:
        ValueError: an empty name, an unknown split, a time without zone, or a negative or infinite number of seconds.
    """

    spec: str
    name: str
    split: SplitName
    fingerprint: str
    rendered: bool
    artifacts: tuple[str, ...]
    code_version: str
    hardware: Mapping[str, Any]
    stage_seconds: Mapping[str, float]
    score: Score
    contamination: str | None = None
    hedged: bool = False
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        for name in ("spec", "name", "fingerprint", "code_version"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected a text, got nothing")
        if self.split not in SPLITS:
            raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {self.split!r}")
        if self.created.tzinfo is None:
            raise ValueError("created: expected a time with a time zone")
        for stage, seconds in self.stage_seconds.items():
            if not (seconds >= 0 and math.isfinite(seconds)):
                raise ValueError(f"stage_seconds: {stage}: expected seconds >= 0, got {seconds}")
        if self.score.hit_ranks.size and not 0 <= self.score.hit_ranks.min() <= self.score.hit_ranks.max() < 2**16:
            raise ValueError("score: hit ranks must be between 0 and 65535")

    @property
    def id(self) -> str:
        """SHA-256 of the result. The time, and how long the stages took this time, are no part of it: a second run
        that finds everything in the store is the same row."""
        content = {
            "spec": self.spec,
            "name": self.name,
            "split": self.split,
            "fingerprint": self.fingerprint,
            "rendered": self.rendered,
            "artifacts": list(self.artifacts),
            "code_version": self.code_version,
            "hardware": self.hardware,
            "protocol": self.score.protocol,
            "hit_ranks": hashlib.sha256(self.score.hit_ranks.astype("<u2").tobytes()).hexdigest(),
            "num_queries": self.score.num_queries,
            "contamination": self.contamination,
            "hedged": self.hedged,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    @property
    def counts(self) -> bool:
        """Whether the row is ranked with the others: neither contaminated nor hedged."""
        return self.contamination is None and not self.hedged

    @property
    def boxes(self) -> str:
        """``ground-truth`` where the boxes are the annotated ones, which no submission can have; or ``detected``."""
        return "ground-truth" if _GROUND_TRUTH.search(self.spec) else "detected"

    @property
    def group(self) -> tuple[str, str, str, str]:
        """What must be equal for rows to be ranked together: data, split, protocol, and detected or given boxes."""
        return self.fingerprint, self.split, self.score.protocol, self.boxes

    def hits(self, k: int = 10) -> Bools:
        """(Q,) bool, which queries have a right answer among the first k."""
        hits: Bools = (self.score.hit_ranks > 0) & (self.score.hit_ranks <= k)
        return hits

    def interval(self, k: int = 10) -> tuple[float, float]:
        """The 95 % interval of Acc@k (Wilson)."""
        return wilson_interval(int(self.hits(k).sum()), self.score.num_queries)


def pack_ranks(score: Score) -> bytes:
    """The rank of every query, 16 bits each, compressed: about 12 kB for 12,400 queries."""
    return zlib.compress(score.hit_ranks.astype("<u2").tobytes(), 9)


def unpack_ranks(protocol: str, num_queries: int, packed: bytes, where: str) -> Score:
    """The score that `pack_ranks` packed.

    Args:
        protocol: name of the protocol.
        num_queries: how many ranks there must be.
        packed: what `pack_ranks` made.
        where: names the row in messages.

    Raises:
        InputError: the bytes are damaged.
    """
    try:
        ranks = np.frombuffer(zlib.decompress(packed), "<u2").astype(np.int64)
        return Score(protocol, num_queries, ranks)
    except (zlib.error, ValueError) as error:
        raise InputError(
            f"{where}: the outcome per query is damaged ({error}); restore the board from a copy"
        ) from error
