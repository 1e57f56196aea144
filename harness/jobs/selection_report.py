"""What the choice of an ensemble found, and what it is worth on pairs that did not choose it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.jobs.selection_costs import Cost

if TYPE_CHECKING:
    from harness.ranking.selection.halving import Optimism


@dataclass(frozen=True)
class ModelFigures:
    """One model of those to choose from.

    Attributes:
        name: of it.
        cost: of it.
        chosen_acc: Acc@k by itself, on the half that chose.
        other_acc: on the other half.
        chosen_share: of all choices, two a halving, that took it.
        weight: in the chosen ensemble; None where it is not in it.
        adds_chosen: what the chosen ensemble loses without it, on the half that chose; None as above, and for the only
            model.
        adds_other: on the other half.
    """

    name: str
    cost: Cost
    chosen_acc: float
    other_acc: float
    chosen_share: float
    weight: float | None
    adds_chosen: float | None
    adds_other: float | None


@dataclass(frozen=True)
class Offer:
    """The best ensemble of a size, or of a cost that no better one stays below; equal weights.

    Attributes:
        spec: canonical.
        num_models: of it.
        chosen_acc: Acc@k on the half that chose.
        other_acc: on the other half.
        milliseconds: of embedding a crop, unknown costs as nothing.
        gigabytes: of its features.
    """

    spec: str
    num_models: int
    chosen_acc: float
    other_acc: float
    milliseconds: float
    gigabytes: float


@dataclass(frozen=True)
class Against:
    """The chosen ensemble against another, on the half that did not choose.

    Attributes:
        spec: of the other.
        what: it is.
        acc: Acc@k of the other there.
        difference: chosen minus other.
        interval: its 95 % interval, paired bootstrap over queries.
        p_value: McNemar's exact test.
    """

    spec: str
    what: str
    acc: float
    difference: float
    interval: tuple[float, float]
    p_value: float


@dataclass(frozen=True)
class Selection:
    """An ensemble that was chosen, and what the choice is worth.

    Attributes:
        spec: canonical, to be scored next.
        k: of all Acc@k here.
        split, fingerprint, rendered: the photos.
        boxes: the box source.
        num_queries: of both halves: those that chose, the others.
        num_silent: queries for which no box speaks, missed by any ensemble.
        num_hopeless: queries for which a box speaks and no gallery box is right, missed by any ensemble.
        num_gallery: boxes that are searched.
        method: ``exhaustive`` or ``greedy``.
        num_judged: subsets of the models that were judged for the choice.
        num_trials: of weights; 0 where all weigh the same.
        seed: of halvings and weights.
        chosen_acc: Acc@k of the choice on the half that chose.
        other_acc: on the other half: what to expect.
        against: all models alike, and the best one alone.
        alike_fits: whether all models together keep within the budget.
        optimism: of choosing in this way, over both halves of all halvings.
        num_halvings: R.
        mean_gain: accuracy of what was chosen minus that of all models alike, where it was not chosen, over all halves.
        mean_gain_unweighted: the same of the chosen models with equal weights.
        share_of_gains: of the halves where the gain of what was chosen is positive.
        num_candidates: of all queries together.
        unproven_share: of all queries, those whose answer is not proven to be that of the exact search.
        num_corrected: queries whose answer by the exact search of the chosen ensemble is another.
        models: all that could be chosen.
        offers: the best of other sizes and costs.
        left_out: model -> how it saw the photos.
        doubts: what else to know.
    """

    spec: str
    k: int
    split: str
    fingerprint: str
    rendered: bool
    boxes: str
    num_queries: tuple[int, int]
    num_silent: int
    num_hopeless: int
    num_gallery: int
    method: str
    num_judged: int
    num_trials: int
    seed: int
    chosen_acc: float
    other_acc: float
    against: tuple[Against, ...]
    alike_fits: bool
    optimism: Optimism
    num_halvings: int
    mean_gain: float
    mean_gain_unweighted: float
    share_of_gains: float
    num_candidates: int
    unproven_share: float
    num_corrected: int
    models: tuple[ModelFigures, ...]
    offers: tuple[Offer, ...]
    left_out: Mapping[str, str]
    doubts: tuple[str, ...]

    def as_entry(self) -> dict[str, Any]:
        """What the working folder keeps of the choice."""
        return {
            "split": self.split,
            "fingerprint": self.fingerprint,
            "rendered": self.rendered,
            "k": self.k,
            "half": {"seed": self.seed, "halving": 0, "num_queries": self.num_queries[0]},
            "models": [model.name for model in self.models],
            "num_trials": self.num_trials,
            "chosen_acc": self.chosen_acc,
            "other_acc": self.other_acc,
            "optimism": self.optimism.mean,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
