"""What every post-processing step of an ensemble gains or loses against the step before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.pipeline import Pipeline, Scored
from harness.scoring.comparison import Comparison, paired_comparison
from harness.scoring.official import evaluate
from harness.scoring.results import Results
from harness.scoring.truth import read_truth
from harness.types import Score
from submissions.writer import DECIMALS


@dataclass(frozen=True, eq=False)
class StepGain:
    """The score with the steps up to here.

    Attributes:
        step: as in the canonical spec; ``search`` is the ensemble without any.
        score: official.
        against_before: of Acc@10, the step before first; None for ``search``.
    """

    step: str
    score: Score
    against_before: Comparison | None

    def as_json(self) -> dict[str, Any]:
        """The gain as plain JSON values."""
        told: dict[str, Any] = {"step": self.step, "acc": {str(k): acc for k, acc in self.score.acc.items()}}
        if self.against_before is not None:
            told |= {
                "difference_at_10": self.against_before.difference,
                "interval": list(self.against_before.interval),
                "p": self.against_before.test.p_value,
            }
        return told


def step_gains(pipeline: Pipeline, scored: Scored, decimals: int = DECIMALS) -> Sequence[StepGain]:
    """Score an ensemble without its steps, with the first of them, with the first two, and so on.

    Only the boxes that speak for a query are answered. What is not in the store is made: the answers of each of the
    ensembles, and before re-ranking, where all boxes take part, the expansion of those that speak.

    Args:
        pipeline: that ran the ensemble.
        scored: what it found, with a score.
        decimals: of the box coordinates that were scored.

    Returns:
        One entry more than there are steps; none if there are none.
    """
    ensemble, boxes = scored.ensemble, scored.boxes
    if not ensemble.steps or scored.score is None:
        return []
    truth = read_truth(*pipeline.truth())
    rows = pipeline.speaking_rows(boxes, decimals)
    shown = replace(boxes.detections, boxes_xyxy=np.round(boxes.detections.boxes_xyxy, decimals))
    names = ["search", *map(str, ensemble.steps)]
    gains: list[StepGain] = []
    for count, name in enumerate(names):
        if count == len(ensemble.steps):
            score = scored.score
        else:
            ranking, _ = pipeline.rank(replace(ensemble, steps=ensemble.steps[:count]), boxes, rows=rows)
            score = evaluate(Results.from_ranking(ranking, shown), *truth)
        compared = None
        if gains:
            pair = gains[-1].step, name
            compared = paired_comparison(gains[-1].score, score, 10, pair, pipeline.split.rendered)
        gains.append(StepGain(name, score, compared))
    return gains
