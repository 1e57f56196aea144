"""The search for subsets and weights against trying everything by hand; halves of the pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.ranking.selection.halving import both_halves, halvings, optimism
from harness.ranking.selection.outcomes import Outcomes, members_of
from harness.ranking.selection.searching import Budget, is_exhaustive, search
from harness.ranking.selection.weighing import LEAST_WEIGHT, fit_weights, rounded
from harness.types import InputError
from tests.ranking.selection.worlds import World, equal_weights, number_of, subsets_of

NOISES = (1.0, 1.2, 1.4, 1.6, 5.0)


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    return Outcomes(World(0, NOISES, 80, 200, 40).candidates(200), 3)


@pytest.fixture(scope="module")
def world() -> World:
    return World(0, NOISES, 80, 200, 40)


def plain_best(world, group, allowed) -> tuple[int, tuple[int, ...]]:
    """Hits and subset: most hits, fewest models, first models."""
    best = None
    for subset in subsets_of(len(NOISES)):
        if allowed(subset):
            hits = int(world.hits(equal_weights(subset, len(NOISES)), 3)[group].sum())
            key = (-hits, len(subset), subset)
            best = key if best is None or key < best else best
    return -best[0], best[2]


@pytest.mark.parametrize("limit", [None, 2, 7.5])
def test_exhaustive_search_finds_what_trying_all_by_hand_finds(outcomes, world, limit) -> None:
    costs = np.array([[4.0, 3.0, 2.0, 1.0, 1.0]])
    if limit is None:
        budget, allowed = Budget.free(5), lambda _: True
    elif limit == 2:
        budget, allowed = Budget.free(5, 2), lambda subset: len(subset) <= 2
    else:
        budget = Budget(costs * 0 + 3.7, np.array([limit]), 5)  # every model costs the same: two fit
        allowed = lambda subset: 3.7 * len(subset) <= 7.5  # noqa: E731
    groups = np.random.default_rng(1).random((4, 80)) < 0.5
    for group, found in zip(groups, search(outcomes, groups, budget, "exhaustive"), strict=True):
        hits, subset = plain_best(world, group, allowed)
        assert (found.num_hits, found.subset) == (hits, number_of(subset))
        assert len(found.visited) == sum(map(allowed, subsets_of(5)))


def test_of_equal_subsets_the_smaller_then_the_cheaper_then_the_first(outcomes) -> None:
    budget = Budget(np.array([[3.0, 1.0, 1.0]]), np.array([np.inf]), 3)
    pick = lambda subsets, hits: subsets[budget.first(np.array(subsets), np.array(hits))]  # noqa: E731
    assert pick([0b111, 0b011], [5, 5]) == 0b011
    assert pick([0b011, 0b110], [5, 5]) == 0b110
    assert pick([0b100, 0b010], [5, 5]) == 0b010
    assert pick([0b100, 0b111], [5, 6]) == 0b111


def test_greedy_search_ends_where_no_change_of_one_model_gains(outcomes) -> None:
    groups = np.random.default_rng(2).random((6, 80)) < 0.5
    for group, found in zip(groups, search(outcomes, groups, Budget.free(5), "greedy"), strict=True):
        hits = {int(one): int(n) for one, n in zip(found.visited, found.visited_hits, strict=True)}
        assert found.num_hits == max(hits.values()) == hits[found.subset]
        assert found.num_hits == int(outcomes.subset_hits(np.array([found.subset]))[0, group].sum())
        near = {found.subset ^ 1 << one for one in range(5)} - {0}
        assert near <= hits.keys()
        assert {1 << one for one in range(5)} <= hits.keys()
        assert 0b11111 in hits


def test_greedy_search_meets_the_exhaustive_one_nearly_always() -> None:
    same = 0
    for seed in range(8):
        outcomes = Outcomes(World(seed, NOISES, 60, 150, 30).candidates(150), 3)
        everyone = np.ones((1, 60), bool)
        found = [search(outcomes, everyone, Budget.free(5), method)[0] for method in ("greedy", "exhaustive")]
        assert found[0].num_hits <= found[1].num_hits
        same += found[0].num_hits == found[1].num_hits
    assert same >= 6


def test_budgets_hold_for_both_methods(outcomes) -> None:
    costs = np.array([[5.0, 2.0, 2.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0]])
    budget = Budget(costs, np.array([4.0, 2.0]), 5)
    for method in ("greedy", "exhaustive"):
        found = search(outcomes, np.ones((1, 80), bool), budget, method)[0]
        members = members_of(found.visited, 5)
        assert (members @ costs.T <= budget.limits).all()
        assert budget.allows(np.array([found.subset]))[0]
    with pytest.raises(ValueError, match="at least one model within it"):
        search(outcomes, np.ones((1, 80), bool), Budget(costs[:1] + 1, np.array([0.5]), 5))


def test_costs_that_reach_the_limit_but_for_rounding_keep_within_it() -> None:
    budget = Budget(np.array([[0.1, 0.1, 0.1]]), np.array([0.3]), 3)
    assert sum([0.1, 0.1, 0.1]) > 0.3
    assert budget.allows(np.array([0, 7])).tolist() == [False, True]


def test_which_method_is_taken() -> None:
    assert is_exhaustive("auto", 11, 11)
    assert not is_exhaustive("auto", 13, 13)
    assert is_exhaustive("auto", 17, 2)
    assert is_exhaustive("exhaustive", 14, 14)
    assert not is_exhaustive("greedy", 2, 2)
    with pytest.raises(InputError, match="all subsets of 30 models are too many"):
        is_exhaustive("exhaustive", 30, 2)
    with pytest.raises(ValueError, match="at most 62 models"):
        Budget.free(63)


def test_a_model_of_noise_is_seldom_chosen_and_the_best_ones_often() -> None:
    chosen = np.zeros(4)
    for seed in range(10):
        outcomes = Outcomes(World(seed, (1.0, 1.0, 1.0, 30.0), 150, 300, 50).candidates(60), 5)
        halves = both_halves(halvings(np.arange(150), 2, seed))
        for found in search(outcomes, halves, Budget.free(4)):
            chosen += members_of(np.array([found.subset]), 4)[0]
    assert chosen[3] / 40 < 0.25
    assert (chosen[:3] / 40 > 0.7).all()


def test_weights_are_found_where_they_matter_and_the_same_again() -> None:
    outcomes = Outcomes(World(1, (0.9, 0.9, 6.0), 150, 300, 50).candidates(80), 3)

    def num_hits(weights) -> int:
        return int(outcomes.hits(weights[None])[0].sum())

    strengths = [num_hits(equal_weights((model,), 3)) for model in range(3)]
    weights, hits = fit_weights(num_hits, strengths, 40, 0)
    assert hits == num_hits(weights) > num_hits(np.ones(3))
    assert weights[2] < 0.6 < max(weights) == 1.0
    assert (np.round(weights, 2) == weights).all()
    again = fit_weights(num_hits, strengths, 40, 0)
    assert (again[0].tolist(), again[1]) == (weights.tolist(), hits)


def test_equal_weights_stay_where_nothing_gains() -> None:
    assert fit_weights(lambda _: 7, [1, 2], 20, 0)[0].tolist() == [1.0, 1.0]
    assert fit_weights(lambda weights: int(weights[0] * 10), [3], 20, 0)[0].tolist() == [1.0]
    assert fit_weights(lambda weights: int(weights[1] < 1), [0, 0], 1, 0)[0].tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="expected models and trials"):
        fit_weights(lambda _: 0, [], 5, 0)


def test_the_second_trial_weighs_models_by_their_strength() -> None:
    tried: list[list[float]] = []
    fit_weights(lambda weights: tried.append(weights.tolist()) or 0, [10, 5, 0], 2, 0)
    assert tried == [[1.0, 1.0, 1.0], [1.0, 0.5, LEAST_WEIGHT]]


def test_weights_are_rounded_as_a_spec_states_them() -> None:
    assert rounded(np.array([0.4, 0.2, 0.001])).tolist() == [1.0, 0.5, 0.05]


@given(st.lists(st.integers(0, 20), min_size=2), st.integers(1, 6), st.integers(0, 1000))
@settings(max_examples=50)
def test_halves_share_no_pair(pairs, num_halvings, seed) -> None:
    pair_ids = np.array(pairs)
    if len(set(pairs)) < 2:
        with pytest.raises(ValueError, match="at least 2 pairs"):
            halvings(pair_ids, num_halvings, seed)
        return
    found = halvings(pair_ids, num_halvings, seed)
    for half in found:
        assert not set(pair_ids[half]) & set(pair_ids[~half])
        assert abs(len(set(pair_ids[half])) - len(set(pair_ids[~half]))) <= 1
    assert (halvings(pair_ids, num_halvings + 2, seed)[:num_halvings] == found).all()


def test_halvings_differ_and_both_halves_come_in_turn() -> None:
    found = halvings(np.arange(50), 3, 0)
    assert not (found[0] == found[1]).all()
    assert not (found[0] == halvings(np.arange(50), 1, 1)[0]).all()
    both = both_halves(found)
    assert both.shape == (6, 50)
    assert (both[2] == found[1]).all()
    assert (both[3] == ~found[1]).all()


def test_optimism_cancels_which_half_is_harder() -> None:
    # Chosen on the easy half .8, there .9; chosen on the hard half .6, on the easy one .79.
    told = optimism(np.array([[0.9, 0.62], [0.8, 0.8]]), np.array([[0.6, 0.88], [0.76, 0.76]]))
    assert told.mean == pytest.approx(0.03)
    assert (told.low, told.high) == pytest.approx((0.02, 0.04))
