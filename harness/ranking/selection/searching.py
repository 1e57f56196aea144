"""The search for a subset of the models: all of them where there are few, greedy walks where there are many.

Subsets are numbers whose bit m stands for model m. Sources: R. Caruana et al. 2004 (forward selection of ensembles);
P. Pudil et al. 1994 (floating search).

Legend: M models, B budgets, S subsets, H groups of queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import ClassVar, Literal

import numpy as np

from harness.ranking.selection.outcomes import MOST_MODELS, Outcomes, members_of
from harness.types import Bools, Floats, InputError, Ints, Progress

Method = Literal["auto", "exhaustive", "greedy"]

EXHAUSTIVE_LIMIT = 4096
"""Subsets up to which ``auto`` judges all of them: 12 models."""


@dataclass(frozen=True, eq=False)
class Budget:
    """What an ensemble may cost.

    Attributes:
        costs_BM: (B, M) float64, at least 0: of every model, one row a budget; a subset costs the sum.
        limits: (B,) float64; infinite for a cost that only decides between equals.
        most: models of a subset at most.
    """

    MOST_MODELS: ClassVar[int] = 62

    costs_BM: Floats
    limits: Floats
    most: int

    def __post_init__(self) -> None:
        if self.costs_BM.shape != (len(self.limits), self.costs_BM.shape[-1]) or self.most < 1:
            raise ValueError(f"expected (B, M) costs, B limits and most >= 1, got {self.costs_BM.shape}, {self.most}")
        if self.num_models > self.MOST_MODELS:
            raise ValueError(f"expected at most {self.MOST_MODELS} models, got {self.num_models}; name fewer")

    @classmethod
    def free(cls, num_models: int, most: int | None = None) -> Budget:
        """No budget but a number of models."""
        return cls(np.zeros((0, num_models)), np.zeros(0), most or num_models)

    @property
    def num_models(self) -> int:
        """M."""
        return int(self.costs_BM.shape[1])

    def allows(self, subsets: Ints) -> Bools:
        """(S,) bool, whether each subset has models and keeps within everything."""
        members_SM = members_of(subsets, self.num_models)
        sizes = members_SM.sum(axis=1)
        # Costs are sums of rounded figures: one that reaches its limit but for rounding keeps within it.
        within = (members_SM @ self.costs_BM.T <= self.limits * (1 + 1e-9)).all(axis=1)
        return np.asarray((sizes > 0) & (sizes <= self.most) & within)

    def first(self, subsets: Ints, hits: Ints) -> int:
        """The place of the subset of the most hits; of equals the one of fewest models, least cost, first models."""
        members_SM = members_of(subsets, self.num_models)
        costs = [*(members_SM @ self.costs_BM.T).T][::-1]
        order = np.lexsort((*(~members_SM).T[::-1], *costs, members_SM.sum(axis=1), -np.asarray(hits)))
        return int(order[0])


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found on a group of queries.

    Attributes:
        subset: of the most hits.
        num_hits: of it, within the group.
        visited: (S,) int64, all subsets within the budget that were judged.
        visited_hits: (S,) int64.
    """

    subset: int
    num_hits: int
    visited: Ints
    visited_hits: Ints


def is_exhaustive(method: Method, num_models: int, most: int) -> bool:
    """Whether all subsets are judged.

    Raises:
        InputError: they are too many, though it was asked for.
    """
    num_subsets = sum(comb(num_models, size) for size in range(1, min(most, num_models) + 1))
    if method == "auto":
        return num_models <= MOST_MODELS and num_subsets < EXHAUSTIVE_LIMIT
    if method == "exhaustive" and num_models > MOST_MODELS:
        raise InputError(
            f"method: all subsets of {num_models} models are too many, expected at most {MOST_MODELS} models; "
            "name fewer, or take the method greedy"
        )
    return method == "exhaustive"


def search(
    outcomes: Outcomes,
    groups_HQ: Bools,
    budget: Budget,
    method: Method = "auto",
    progress: Progress | None = None,
) -> list[Found]:
    """The best subset of the models, with equal weights, for each group of queries.

    Args:
        outcomes: of ensembles of the models.
        groups_HQ: (H, Q) bool, the queries whose hits count.
        budget: what a subset may cost; at least one does.
        method: ``exhaustive`` judges all subsets. ``greedy`` adds the best model again and again, takes the worst away
            from all of them again and again, and from the best it met goes on by adding, taking away and exchanging
            one model as long as that gains.
        progress: told of what is done and in all.

    Returns:
        One a group.

    Raises:
        ValueError: no model keeps within the budget.
        InputError: there are too many models for an exhaustive search.
    """
    if not budget.allows(1 << np.arange(outcomes.num_models)).any():
        raise ValueError("budget: expected at least one model within it, got none")
    if is_exhaustive(method, outcomes.num_models, budget.most):
        counts_SH = outcomes.every_subset(groups_HQ, budget.most, progress)
        allowed = np.flatnonzero(budget.allows(np.arange(len(counts_SH))))
        return [_found(budget, allowed, counts_SH[allowed, group]) for group in range(len(groups_HQ))]
    found = []
    for group, is_member in enumerate(groups_HQ):
        found.append(_greedy(outcomes, is_member, budget))
        if progress is not None:
            progress(group + 1, len(groups_HQ))
    return found


def _found(budget: Budget, subsets: Ints, hits: Ints) -> Found:
    best = budget.first(subsets, hits)
    return Found(int(subsets[best]), int(hits[best]), subsets, hits)


def _greedy(outcomes: Outcomes, in_group: Bools, budget: Budget) -> Found:
    seen: dict[int, int] = {}
    models = 1 << np.arange(outcomes.num_models)

    def judge(subsets: Sequence[int]) -> int:
        """The best of some subsets."""
        numbers = np.array(subsets, np.int64)
        hits = outcomes.subset_hits(numbers)[:, in_group].sum(axis=1)
        seen.update(zip(numbers.tolist(), hits.tolist(), strict=True))
        return int(numbers[budget.first(numbers, hits)])

    subset, grown = 0, [int(one) for one in models if budget.allows(np.array([one]))[0]]
    while grown:
        subset = judge(grown)
        grown = [subset | int(one) for one in models if not subset & one]
        grown = [one for one in grown if budget.allows(np.array([one]))[0]]
    subset = int(models.sum())
    judge([subset])
    while subset & (subset - 1):
        subset = judge([subset ^ int(one) for one in models if subset & one])
    while True:
        allowed = np.array(list(seen), np.int64)
        allowed = allowed[budget.allows(allowed)]
        found = _found(budget, allowed, np.array([seen[one] for one in allowed.tolist()], np.int64))
        near = [one for one in _neighbours(found.subset, models) if one not in seen]
        near = [one for one in near if budget.allows(np.array([one]))[0]]
        if not near:
            return found
        judge(near)


def _neighbours(subset: int, models: Ints) -> list[int]:
    """All subsets that differ by one model more, less, or another."""
    inside = [int(one) for one in models if subset & one]
    outside = [int(one) for one in models if not subset & one]
    changed = [subset ^ one for one in (*inside, *outside)]
    return [one for one in changed if one] + [subset ^ one ^ other for one in inside for other in outside]
