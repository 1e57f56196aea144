"""Where the official and the strict protocol disagree about a query, and by which rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from harness.scoring.hearing import MIN_IOU, Hearing
from harness.scoring.official import Outcome
from harness.types import Bools, Ints


class Reason(StrEnum):
    """What the strict rules hold against the box that speaks officially; the first that applies."""

    LOW_OVERLAP = "low overlap"
    EQUAL_SCORES = "equal scores"
    OTHER_CATEGORY = "another category"


_EXPLAINED = {
    Reason.LOW_OVERLAP: f"the box that speaks overlaps the item by less than {MIN_IOU} (S1)",
    Reason.EQUAL_SCORES: "boxes of equal score, where officially the first row decides (S3)",
    Reason.OTHER_CATEGORY: "a box of a higher score gives the garment another category (S2)",
}


@dataclass(frozen=True)
class Differences:
    """Queries that are right within the first k by one protocol and not by the other.

    Attributes:
        k: entries that are searched.
        lost: right officially, not strictly; queries by reason, every reason listed.
        gained: right strictly, not officially; the box that speaks officially is not heard, a better one is.
    """

    k: int
    lost: Mapping[Reason, int]
    gained: Mapping[Reason, int]

    def sentences(self) -> list[str]:
        """What there is to say, the totals first."""
        lost, gained = sum(self.lost.values()), sum(self.gained.values())
        if lost + gained == 0:
            return [f"Both protocols agree on every query within the first {self.k}."]
        said = [f"Hits within the first {self.k} that are lost by the strict rules: {lost:,}; gained: {gained:,}"]
        for reason, explained in _EXPLAINED.items():
            counts = [
                f"{count:,} {what}"
                for count, what in ((self.lost[reason], "lost"), (self.gained[reason], "gained"))
                if count
            ]
            if counts:
                said.append(f"  {' and '.join(counts)}: {explained}")
        return said


def compare(hearing: Hearing, speakers: Ints, official: Outcome, strict: Outcome, k: int) -> Differences:
    """Set the two protocols side by side, query by query.

    Args:
        hearing: results and truth.
        speakers: (Q,) int64, the row that speaks for each query by the strict rules, of whatever category, or -1.
        official: outcome of the official protocol.
        strict: outcome of the strict protocol.
        k: entries that are searched, 1 … 20.
    """
    first, second = (_hits(outcome, k) for outcome in (official, strict))
    lost, gained = np.flatnonzero(first & ~second), np.flatnonzero(second & ~first)
    counts = []
    for queries in (lost, gained):
        # Strictly only boxes speak that may speak officially too: where the protocols differ, an official box speaks.
        reasons = _reasons(hearing, official.speaking_rows[queries], speakers[queries])
        counts.append({reason: int((reasons == number).sum()) for number, reason in enumerate(Reason)})
    return Differences(k, *counts)


def _hits(outcome: Outcome, k: int) -> Bools:
    ranks = outcome.score.hit_ranks
    return (ranks > 0) & (ranks <= k)


def _reasons(hearing: Hearing, rows: Ints, louder: Ints) -> Ints:
    """Places in `Reason` for rows that speak officially and those that speak instead."""
    scores = hearing.results.scores
    return np.select([hearing.overlaps[rows] < MIN_IOU, scores[louder] == scores[rows]], [0, 1], default=2)
