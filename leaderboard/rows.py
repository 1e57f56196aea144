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
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.scoring.ledger import FATES
from harness.scoring.significance import wilson_interval
from harness.types import SPLITS, Bools, InputError, Score, SplitName
from leaderboard.times import refuse_time

_GROUND_TRUTH = re.compile(r"\+ GT(?: \||$)")


@dataclass(frozen=True)
class StageRecord:
    """What a stage took.

    Attributes:
        stage: its name, such as ``detect ATSS``, ``fuse WBF_5``, ``embed``, ``search``.
        seconds: that making its result took, whenever that was: the cold cost.
        run_seconds: that it took in the run that made the row; next to nothing where the store was warm. None where
            that is not known.
        from_store: whether the store had all of the result; None where that is not known.
        count: things it handled; None where nothing was counted.
        unit: what the things are.
        made_on: the machine that took ``seconds``, where it was another one than made the row; None otherwise, and
            where that is not known.

    Raises:
        ValueError: no name, a negative or infinite number of seconds, or a count that no computer counts to.
    """

    stage: str
    seconds: float
    run_seconds: float | None = None
    from_store: bool | None = None
    count: int | None = None
    unit: str = ""
    made_on: str | None = None

    def __post_init__(self) -> None:
        if not self.stage:
            raise ValueError("stages: expected a stage's name, got nothing")
        for name, seconds in (("seconds", self.seconds), ("run_seconds", self.run_seconds)):
            if seconds is not None and not (seconds >= 0 and math.isfinite(seconds)):
                raise ValueError(f"stages: {self.stage}: {name}: expected seconds >= 0, got {seconds}")
        if self.count is not None and not 0 <= self.count < 2**63:
            raise ValueError(f"stages: {self.stage}: count: expected 0 to 2^63 - 1")


@dataclass(frozen=True, eq=False)
class Losses:
    """What became of every query, and what could not be told.

    Attributes:
        fates: (Q,) uint8, places in `harness.scoring.ledger.FATES`.
        untold: fates that could not be told apart from later ones in that order, as text.

    Raises:
        ValueError: a fate that there is not.
    """

    fates: NDArray[np.uint8]
    untold: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.fates.dtype != np.uint8 or self.fates.ndim != 1 or self.fates.max(initial=0) >= len(FATES):
            raise ValueError(f"losses: expected (Q,) uint8 below {len(FATES)}, got {self.fates.dtype}")
        unknown = [name for name in self.untold if name not in set(FATES)]
        if unknown:
            raise ValueError(f"losses: {unknown[0]!r} is no fate; there are {', '.join(FATES)}")

    def totals(self) -> dict[str, int | None]:
        """Queries by fate in order of precedence; None where it could not be told."""
        counts = np.bincount(self.fates, minlength=len(FATES)).tolist()
        return {str(fate): None if fate in self.untold else count for fate, count in zip(FATES, counts, strict=True)}


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
        stages: what each stage took, in the order of the flow.
        score: the protocol's verdict with the rank of the first right answer of every query.
        contamination: why the row does not count (a member was trained on the split that is scored); None where clean.
        hedged: whether boxes stand under many categories at once.
        created: when the row was made, with a time zone.
        losses: what became of every query; None in rows of earlier versions.
        questions_id: `harness.scoring.questions.Questions.id` of the queries; None in rows of earlier versions.
        settings: what else decides the result, in words: ``ATSS`` -> ``mirrored too``, ``WBF_5`` -> ``IoU 0.6 ...``.
        command: how to run it again; None in rows of earlier versions.

    Raises:
        ValueError: an empty name, an unknown split, a time without zone, losses of other queries, settings or
            artifacts that are no texts, or stages that add up to no number of seconds.
    """

    spec: str
    name: str
    split: SplitName
    fingerprint: str
    rendered: bool
    artifacts: tuple[str, ...]
    code_version: str
    hardware: Mapping[str, Any]
    stages: tuple[StageRecord, ...]
    score: Score
    contamination: str | None = None
    hedged: bool = False
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    losses: Losses | None = None
    questions_id: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None

    def __post_init__(self) -> None:
        for name in ("spec", "name", "fingerprint", "code_version"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected a text, got nothing")
        if self.split not in SPLITS:
            raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {self.split!r}")
        refuse_time(self.created)
        texts = {"artifacts": self.artifacts, "settings": (*self.settings, *self.settings.values())}
        for name, values in texts.items():
            if not all(isinstance(value, str) for value in values):
                raise ValueError(f"{name}: expected texts")
        if not math.isfinite(self.total_seconds or 0.0):
            raise ValueError("stages: their seconds add up to infinity")
        if self.losses is not None and len(self.losses.fates) != self.score.num_queries:
            raise ValueError(f"losses: expected {self.score.num_queries} queries, got {len(self.losses.fates)}")
        if self.score.hit_ranks.size and not 0 <= self.score.hit_ranks.min() <= self.score.hit_ranks.max() < 2**16:
            raise ValueError("score: hit ranks must be between 0 and 65535")

    @cached_property
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
        # Rows of earlier versions, which have none of these, keep their ids.
        if self.losses is not None:
            content["fates"] = hashlib.sha256(self.losses.fates.tobytes()).hexdigest()
            content["untold"] = list(self.losses.untold)
        if self.questions_id is not None:
            content["questions"] = self.questions_id
        if self.settings:
            content["settings"] = dict(self.settings)
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    @property
    def total_seconds(self) -> float | None:
        """What making everything took, whenever that was; None where no stage was timed."""
        return sum(stage.seconds for stage in self.stages) if self.stages else None

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
