"""The oracle ladder: how far a result file would go if one stage after another were perfect.

Each rung keeps the oracles of the rungs before it, so what a rung gains is what its stage loses. All of it comes from
the file alone, and so these are bounds: a garment that was not detected cannot be searched again, and where several
boxes go to an item the one that answers best speaks for it, luck included. No rung loses against the one before.

Legend: R result rows, Q queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.scoring.hearing import Hearing
from harness.scoring.official import Outcome
from harness.types import GALLERY_LENGTH, RANKS, Ints


@dataclass(frozen=True)
class Rung:
    """One step of the ladder.

    Attributes:
        name: what is perfect from here on.
        rule: how that is read from the file.
        acc: Acc@k for k in `RANKS`.
        gained: Acc@k over the rung before; what the file as it is has, for the first.
    """

    name: str
    rule: str
    acc: Mapping[int, float]
    gained: Mapping[int, float]

    def as_json(self) -> dict[str, Any]:
        """For other programs; the k of Acc@k as text."""
        acc, gained = ({str(k): value for k, value in of.items()} for of in (self.acc, self.gained))
        return {"name": self.name, "rule": self.rule, "acc": acc, "gained": gained}


def climb(hearing: Hearing, official: Outcome) -> list[Rung]:
    """The rungs from the official score up; what the last one misses, the ranking loses.

    Args:
        hearing: results and truth.
        official: what the official protocol decided.
    """
    goes = hearing.query_numbers >= 0
    best_of_category = _best(hearing, hearing.hit_ranks, np.flatnonzero(hearing.has_category))
    best = _best(hearing, hearing.hit_ranks, np.flatnonzero(goes))
    best_photo = _best(hearing, hearing.photo_ranks, np.flatnonzero(goes))
    is_detected = np.zeros(hearing.size, np.bool_)
    is_detected[hearing.query_numbers[goes]] = True
    steps = [
        ("as handed in", "the official score", official.score.hit_ranks),
        (
            "query boxes",
            "of the boxes of its category that go to the item, the one that answers best speaks",
            best_of_category,
        ),
        ("query classes", "of all boxes that go to the item, the one that answers best speaks", best),
        ("gallery boxes", "an entry is right if its photo holds a matching item, whatever its box", best_photo),
        ("every query detected", "queries that no box goes to count as right", np.where(is_detected, best_photo, 1)),
    ]
    return rungs(
        [
            (name, rule, {k: int(((ranks > 0) & (ranks <= k)).sum()) / hearing.size for k in RANKS})
            for name, rule, ranks in steps
        ]
    )


def rungs(steps: Sequence[tuple[str, str, Mapping[int, float]]]) -> list[Rung]:
    """A ladder of accuracies, each with what it gains over the one before.

    Args:
        steps: name, rule and Acc@k of each rung, from the lowest up.
    """
    lower = [dict.fromkeys(RANKS, 0.0), *(acc for _, _, acc in steps)]
    return [
        Rung(name, rule, acc, {k: acc[k] - before[k] for k in RANKS})
        for (name, rule, acc), before in zip(steps, lower, strict=False)
    ]


def _best(hearing: Hearing, ranks: Ints, rows: Ints) -> Ints:
    """(Q,) int64, the smallest rank among the given rows of each query; 0 where none has one."""
    best = np.full(hearing.size, GALLERY_LENGTH + 1)
    rows = rows[ranks[rows] > 0]
    np.minimum.at(best, hearing.query_numbers[rows], ranks[rows])
    return best % (GALLERY_LENGTH + 1)
