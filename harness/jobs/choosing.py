"""The choice of an ensemble from lists of candidates, made on either half of the pairs many times over.

Legend: Q queries of the split, A answerable ones, M models, E ensembles, S subsets, R halvings, H = 2 R halves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.jobs.selection_costs import Cost
from harness.jobs.selection_report import Against, ModelFigures, Offer, Selection
from harness.pipeline import Pipeline
from harness.ranking.selection.candidates import exact_hits
from harness.ranking.selection.halving import both_halves, halvings, optimism
from harness.ranking.selection.outcomes import Outcomes, members_of
from harness.ranking.selection.searching import is_exhaustive, search
from harness.ranking.selection.weighing import fit_weights
from harness.scoring.significance import mcnemar_exact, paired_bootstrap
from harness.spec import BoxSource, Ensemble, Member
from harness.types import Bools, Floats, Ints

if TYPE_CHECKING:
    from harness.jobs.selection import Questions, Request
    from harness.ranking.rows import FeatureRows
    from harness.ranking.selection.candidates import Candidates
    from harness.ranking.selection.searching import Budget, Found


@dataclass(frozen=True, eq=False)
class Choosing:
    """Everything that the choice is made of; see `harness.jobs.selection.select`.

    Attributes:
        pipeline: over the split.
        request: what was asked for.
        boxes: the box source.
        names: the models to choose from.
        costs: of each of them.
        budget: what the ensemble may cost; milliseconds, then gigabytes.
        questions: the queries.
        candidates: of the answerable queries.
        features: of every model the rows of the queries, and those of the gallery.
        left_out: model -> how it saw the photos.
        doubts: what else to know.
    """

    pipeline: Pipeline
    request: Request
    boxes: BoxSource
    names: tuple[str, ...]
    costs: Mapping[str, Cost]
    budget: Budget
    questions: Questions
    candidates: Candidates
    features: tuple[Sequence[FeatureRows], Sequence[FeatureRows]]
    left_out: Mapping[str, str]
    doubts: tuple[str, ...]

    def run(self) -> Selection:
        """Choose on either half of every halving; the first half of the first makes the choice."""
        request, split, num_models = self.request, self.pipeline.split, len(self.names)
        outcomes = Outcomes(self.candidates, request.k)
        halves_HQ = both_halves(halvings(self.questions.pair_ids, request.num_halvings, request.seed))
        groups_HA = halves_HQ[:, self.questions.answerable]
        exhaustive = is_exhaustive(request.method, num_models, self.budget.most)
        found = search(outcomes, groups_HA, self.budget, request.method, self.pipeline.report("subsets"))
        subsets_HM = members_of(np.array([one.subset for one in found]), num_models)
        alone_MA = outcomes.subset_hits(1 << np.arange(num_models))
        weights_HM = self._weights(outcomes, subsets_HM, groups_HA, alone_MA)
        hits_HQ = self._everywhere(outcomes.hits(weights_HM))
        chosen_acc = np.array([hits[half].mean() for hits, half in zip(hits_HQ, halves_HQ, strict=True)])
        other_acc = np.array([hits[~half].mean() for hits, half in zip(hits_HQ, halves_HQ, strict=True)])
        alike = self._everywhere(outcomes.hits(np.ones((1, num_models))))[0]
        alike_acc = np.array([alike[~half].mean() for half in halves_HQ])
        gains, plain = other_acc - alike_acc, self._everywhere(outcomes.hits(subsets_HM.astype(np.float64)))
        plain_acc = np.array([hits[~half].mean() for hits, half in zip(plain, halves_HQ, strict=True)])
        weights, half = weights_HM[0], halves_HQ[0]
        exact = self._confirmed(weights)
        alone_MQ = self._everywhere(alone_MA)
        singles = np.flatnonzero(self.budget.allows(1 << np.arange(num_models)))
        best = int(singles[alone_MQ[singles][:, half].sum(axis=1).argmax()])
        return Selection(
            spec=self._spec(weights),
            k=request.k,
            split=split.name,
            fingerprint=split.fingerprint,
            rendered=split.rendered,
            boxes=str(self.boxes),
            num_queries=(int(half.sum()), int((~half).sum())),
            num_silent=self.questions.num_silent,
            num_hopeless=len(half) - self.questions.num_silent - len(self.questions.answerable),
            num_gallery=len(self.questions.gallery_rows),
            method="exhaustive" if exhaustive else "greedy",
            num_judged=len(found[0].visited),
            num_trials=request.num_trials,
            seed=request.seed,
            chosen_acc=float(exact[half].mean()),
            other_acc=float(exact[~half].mean()),
            against=(
                self._against(np.ones(num_models), "all models alike", alike[~half], exact[~half]),
                self._against(
                    np.arange(num_models) == best, "the best model alone", alone_MQ[best, ~half], exact[~half]
                ),
            ),
            alike_fits=bool(self.budget.allows(np.array([(1 << num_models) - 1]))[0]),
            optimism=optimism(chosen_acc.reshape(-1, 2), other_acc.reshape(-1, 2)),
            num_halvings=request.num_halvings,
            mean_gain=float(gains.mean()),
            mean_gain_unweighted=float((plain_acc - alike_acc).mean()),
            share_of_gains=float((gains > 0).mean()),
            num_candidates=len(self.candidates.rows),
            unproven_share=float((~outcomes.proven(weights[None])[0]).sum() / len(half)),
            num_corrected=int((exact != hits_HQ[0]).sum()),
            models=self._models(outcomes, weights, half, alone_MQ, (weights_HM > 0).mean(axis=0)),
            offers=self._offers(outcomes, found[0], half),
            left_out=self.left_out,
            doubts=self.doubts,
        )

    def _weights(self, outcomes: Outcomes, subsets_HM: Bools, groups_HA: Bools, alone_MA: Bools) -> Floats:
        """Of the models chosen on each half, fitted on it; 0 for those that were not."""
        weights_HM = subsets_HM.astype(np.float64)
        if self.request.num_trials == 0:
            return weights_HM
        advance = self.pipeline.report("weights")
        for number, (weights, group) in enumerate(zip(weights_HM, groups_HA, strict=True)):
            members = np.flatnonzero(weights)
            counted = _Counted(outcomes, members, group)
            strengths = alone_MA[members][:, group].sum(axis=1).tolist()
            weights[members], _ = fit_weights(counted, strengths, self.request.num_trials, self.request.seed)
            advance(number + 1, len(weights_HM))
        return weights_HM

    def _everywhere(self, hits_EA: Bools) -> Bools:
        """(E, Q) hits of all queries; those that cannot be answered are missed."""
        hits_EQ = np.zeros((len(hits_EA), len(self.questions.pair_ids)), np.bool_)
        hits_EQ[:, self.questions.answerable] = hits_EA
        return hits_EQ

    def _confirmed(self, weights: Floats) -> Bools:
        """(Q,) hits of the chosen ensemble by the exact search of the whole gallery."""
        rights = (self.questions.right_starts, self.questions.right_rows)
        hits = exact_hits(*self.features, *rights, weights.tolist(), self.request.k, self.pipeline.search_options)
        return np.asarray(self._everywhere(hits[None])[0])

    def _against(self, weights: Any, what: str, other: Bools, chosen: Bools) -> Against:

        return Against(
            spec=self._spec(weights),
            what=what,
            acc=float(other.mean()),
            difference=float(chosen.mean() - other.mean()),
            interval=paired_bootstrap(other, chosen),
            p_value=mcnemar_exact(other, chosen).p_value,
        )

    def _models(
        self, outcomes: Outcomes, weights: Floats, half: Bools, alone_MQ: Bools, shares: Floats
    ) -> tuple[ModelFigures, ...]:
        members = np.flatnonzero(weights)
        whole = self._everywhere(outcomes.hits(weights[None]))[0]
        without = {}
        if len(members) > 1:
            left = np.tile(weights, (len(members), 1))
            left[np.arange(len(members)), members] = 0.0
            without = dict(zip(members.tolist(), self._everywhere(outcomes.hits(left)), strict=True))
        return tuple(
            ModelFigures(
                name=name,
                cost=self.costs[name],
                chosen_acc=float(alone_MQ[model, half].mean()),
                other_acc=float(alone_MQ[model, ~half].mean()),
                chosen_share=float(shares[model]),
                weight=float(weights[model]) if weights[model] > 0 else None,
                adds_chosen=_lost(whole, without.get(model), half),
                adds_other=_lost(whole, without.get(model), ~half),
            )
            for model, name in enumerate(self.names)
        )

    def _offers(self, outcomes: Outcomes, found: Found, half: Bools) -> tuple[Offer, ...]:

        members_SM = members_of(found.visited, len(self.names))
        sizes, costs = members_SM.sum(axis=1), members_SM @ self.budget.costs_BM[0]
        places: list[int] = []
        for size in range(1, len(self.names) + 1):
            some = np.flatnonzero(sizes == size)
            if len(some):
                places.append(int(some[self.budget.first(found.visited[some], found.visited_hits[some])]))
        places += _cheapest(found.visited_hits, costs)
        places = sorted(dict.fromkeys(places), key=lambda place: (sizes[place], costs[place], place))
        hits_SQ = self._everywhere(outcomes.subset_hits(found.visited[places]))
        return tuple(
            Offer(
                spec=self._spec(members_SM[place]),
                num_models=int(sizes[place]),
                chosen_acc=float(hits[half].mean()),
                other_acc=float(hits[~half].mean()),
                milliseconds=float(costs[place]),
                gigabytes=float(members_SM[place] @ self.budget.costs_BM[1]),
            )
            for place, hits in zip(places, hits_SQ, strict=True)
        )

    def _spec(self, weights: Any) -> str:
        """Canonical."""
        named = {name: float(weight) for name, weight in zip(self.names, weights, strict=True) if weight > 0}
        return str(Ensemble(tuple(Member(name, weight) for name, weight in named.items()), self.boxes))


class _Counted:
    """Hits of weights of some models within a group of queries."""

    def __init__(self, outcomes: Outcomes, members: Ints, group: Bools) -> None:
        self._hits, self._members, self._group = outcomes.hits, members, group
        self._num_models = outcomes.num_models

    def __call__(self, weights: Floats) -> int:
        every = np.zeros((1, self._num_models))
        every[0, self._members] = weights
        return int(self._hits(every)[0, self._group].sum())


def _lost(whole: Bools, without: Bools | None, half: Bools) -> float | None:
    return None if without is None else float(whole[half].mean() - without[half].mean())


def _cheapest(hits: Ints, costs: Floats) -> list[int]:
    """Places of what no cheaper one hits as much as."""
    places, most = [], -1
    for place in np.lexsort((-hits, costs)).tolist():
        if hits[place] > most:
            places.append(place)
            most = int(hits[place])
    return places
