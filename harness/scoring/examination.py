"""Everything that can be said of a result file whose truth is known, in one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.scoring import differences, ladder, ledger, official, plausibility, slices, strict
from harness.scoring.hearing import Hearing
from harness.scoring.official import Outcome
from harness.scoring.questions import Questions
from harness.scoring.results import Results
from harness.scoring.significance import wilson_interval
from harness.scoring.truth import Gallery, Queries
from harness.types import RANKS, Score

ProtocolName = Literal["official", "strict"]

COMPARED = (10, 20)
"""Ranks at which the protocols are set against each other: that of the challenge, and any."""


@dataclass(frozen=True, eq=False)
class Examination:
    """The verdict on a result file.

    Attributes:
        protocol: whose outcome ledger and slices show.
        is_rendered: whether the ground truth says that its photos are rendered, not DeepFashion2's.
        outcomes: of both protocols.
        differences: where they disagree, within the first 10 and within all 20.
        ledger: what became of every query.
        rungs: the oracle ladder, from the official score up.
        slices: the score of parts of the queries.
        doubts: signs that the file is wrong, a sentence each.
    """

    protocol: ProtocolName
    is_rendered: bool
    outcomes: Mapping[ProtocolName, Outcome]
    differences: tuple[differences.Differences, ...]
    ledger: ledger.Ledger
    rungs: list[ladder.Rung]
    slices: list[slices.Slice]
    doubts: list[str]

    @property
    def score(self) -> Score:
        """By the chosen protocol."""
        return self.outcomes[self.protocol].score

    def as_json(self) -> dict[str, Any]:
        """One object for other programs; Acc@k and intervals by k as text, shares in [0, 1]."""
        return {
            "protocol": self.protocol,
            "num_queries": self.score.num_queries,
            "rendered": self.is_rendered,
            "acc": _by_name(self.score.acc),
            "protocols": {
                name: {"acc": _by_name(outcome.score.acc), "interval": _by_name(intervals(outcome.score))}
                for name, outcome in self.outcomes.items()
            },
            "differences": [
                {"k": one.k, "lost": _by_name(one.lost), "gained": _by_name(one.gained)} for one in self.differences
            ],
            "ledger": self.ledger.totals(),
            "ladder": [rung.as_json() for rung in self.rungs],
            "slices": [
                {
                    "group": one.group,
                    "name": one.name,
                    "num_queries": one.num_queries,
                    "acc": _by_name(one.acc),
                    "interval": _by_name(one.intervals),
                }
                for one in self.slices
            ],
            "warnings": self.doubts,
        }


def examine(
    results: Results,
    queries: Queries,
    gallery: Gallery,
    protocol: ProtocolName = "official",
    gallery_boxes: ledger.GalleryBoxes | None = None,
) -> Examination:
    """Score a result file by both protocols and say where the points are lost.

    Args:
        results: the challenge's result rows.
        queries: all annotated consumer items, those of style 0 included.
        gallery: all annotated shop items.
        protocol: whose outcome ledger and slices show.
        gallery_boxes: the detected boxes of the shop photos, for the ledger's "not in gallery".

    Raises:
        InputError: queries and gallery do not belong together.
    """
    hearing = Hearing.of(results, queries, gallery)
    speakers = strict.speakers(hearing)
    outcomes: dict[ProtocolName, Outcome] = {
        "official": official.decide(hearing),
        "strict": strict.decide(hearing, speakers),
    }
    chosen = outcomes[protocol]
    is_heard = strict.is_heard(hearing) if protocol == "strict" else None
    return Examination(
        protocol,
        queries.is_rendered,
        outcomes,
        tuple(differences.compare(hearing, speakers, outcomes["official"], outcomes["strict"], k) for k in COMPARED),
        ledger.account(hearing, chosen, is_heard, gallery_boxes),
        ladder.climb(hearing, outcomes["official"]),
        slices.cut(Questions.of(hearing), chosen.score.hit_ranks),
        plausibility.doubts(hearing, gallery_boxes),
    )


def intervals(score: Score) -> dict[int, tuple[float, float]]:
    """The 95 % Wilson interval of each Acc@k."""
    return {k: wilson_interval(round(score.acc[k] * score.num_queries), score.num_queries) for k in RANKS}


def _by_name(values: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in values.items()}
