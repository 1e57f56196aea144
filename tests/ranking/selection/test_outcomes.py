"""Outcomes of ensembles against sorting the whole gallery, ties and doubles included; and when they are proven."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.ranking.selection.candidates import Candidates, exact_hits, gather
from harness.ranking.selection.outcomes import Outcomes, members_of
from tests.ranking.selection.worlds import World, equal_weights, number_of, subsets_of

NOISES = (0.5, 0.9, 1.5, 4.0)


def some_weights(rng, num_ensembles: int, num_models: int) -> np.ndarray:
    weights = rng.random((num_ensembles, num_models)) * (rng.random((num_ensembles, num_models)) < 0.7)
    weights[:, 0] += ~(weights > 0).any(axis=1)
    return weights


def by_hand(sims, num_right, rows=None) -> Candidates:
    """One query, one model."""
    size = len(sims)
    return Candidates(
        np.array([0, size]),
        np.array([num_right]),
        np.arange(size) if rows is None else np.array(rows),
        np.array([sims], np.float32),
        np.full((1, 1), 0.1, np.float32),
        np.full(1, 0.1, np.float32),
    )


@pytest.mark.parametrize(
    ("sims", "num_right", "rows", "k", "hit"),
    [
        ([0.5, 0.9, 0.8], 1, [0, 1, 2], 2, False),
        ([0.5, 0.9, 0.8], 1, [0, 1, 2], 3, True),
        ([0.5, 0.85, 0.9, 0.8], 2, [0, 1, 2, 3], 2, True),  # the second right one stands at rank 2
        ([0.5, 0.5], 1, [3, 7], 1, True),  # a tie goes to the earlier row
        ([0.5, 0.5], 1, [7, 3], 1, False),
        ([0.5, 0.5, 0.5], 2, [7, 2, 3], 1, True),  # the earlier of two right ones counts
        ([0.9, 0.8], 0, [0, 1], 5, False),
        ([], 0, [], 1, False),
        ([0.2], 1, [4], 1, True),
    ],
)
def test_hits_by_hand(sims, num_right, rows, k, hit) -> None:
    assert Outcomes(by_hand(sims, num_right, rows), k).hits(np.ones((1, 1))).tolist() == [[hit]]


@pytest.mark.parametrize(("second", "hit"), [(0.9, True), (0.1, False)])
def test_what_float32_cannot_tell_float64_does(second, hit) -> None:
    listed = Candidates(
        np.array([0, 2]), np.array([1]), np.array([5, 5]), np.array([[0.5, 0.5], [second, 0.5]], np.float32),
        np.zeros((1, 2), np.float32), np.zeros(1, np.float32),
    )  # fmt: skip
    weights = np.array([[1.0, 1e-9]])
    assert np.float32(0.5 + 1e-9 * 0.9) == np.float32(0.5 + 1e-9 * 0.5)
    assert Outcomes(listed, 1).hits(weights).tolist() == [[hit]]
    assert not Outcomes(listed, 1).proven(weights)[0, 0]


@pytest.mark.parametrize("num_models", [1, 2, 3, 4, 5, 7, 8, 9])
def test_models_are_added_up_whatever_their_number(num_models) -> None:
    world = World(num_models, np.linspace(0.8, 3.0, num_models), 40, 100)
    outcomes = Outcomes(world.candidates(100), 4)
    weights = some_weights(np.random.default_rng(0), 12, num_models)
    assert (outcomes.hits(weights) == np.stack([world.hits(one, 4) for one in weights])).all()


def test_what_is_proven_by_hand() -> None:
    def proven(sims, num_right, k):
        return bool(Outcomes(by_hand(sims, num_right), k).proven(np.ones((1, 1)))[0, 0])

    assert proven([0.5, 0.9], 1, 2)  # above the floor of 0.1
    assert not proven([0.05, 0.9], 1, 2)  # an unlisted row may come between
    assert proven([0.05, 0.9, 0.8], 1, 2)  # missed, whatever else there is
    assert not proven([0.5, 0.5], 1, 1)  # a tie may be one by rounding alone
    assert proven([0.9], 0, 1)  # nothing in the gallery is right


@given(
    seed=st.integers(0, 10**6), k=st.integers(1, 12), num_candidates=st.integers(1, 90), coarse=st.booleans(),
    num_gallery=st.integers(1, 60), num_queries=st.integers(0, 12),
)  # fmt: skip
@example(seed=0, k=1, num_candidates=1, coarse=True, num_gallery=1, num_queries=0)
@example(seed=1051, k=1, num_candidates=3, coarse=True, num_gallery=3, num_queries=1)  # all similarities are 0
@settings(max_examples=150)
def test_proven_answers_are_those_of_the_whole_gallery(seed, k, num_candidates, coarse, num_gallery, num_queries):
    world = World(seed, NOISES, num_queries, num_gallery, num_garments=8, coarse=coarse)
    outcomes = Outcomes(world.candidates(num_candidates), k, num_threads=2)
    weights = some_weights(np.random.default_rng(seed), 6, len(NOISES))
    if coarse:
        weights = np.ceil(weights * 2)  # sums without rounding: ties are ties
    hits, proven = outcomes.hits(weights), outcomes.proven(weights)
    expected = np.stack([world.hits(one, k) for one in weights]) if num_queries else np.zeros((6, 0), bool)
    assert (hits == expected)[proven].all()
    # A list of too few rows can only miss rows that would rank before: it never makes a hit a miss.
    assert hits[expected].all()
    if num_candidates >= num_gallery:
        assert (hits == expected).all()


def test_most_answers_are_proven_and_all_of_them_with_long_lists() -> None:
    world = World(3, NOISES, 200, 400, 60)
    weights = some_weights(np.random.default_rng(0), 20, len(NOISES))
    weights[0] = 1.0
    short, long = (Outcomes(world.candidates(size), 10).proven(weights).mean() for size in (12, 80))
    assert short < long
    assert long > 0.8
    assert Outcomes(world.candidates(400), 10).proven(weights).all()


def test_the_list_of_all_models_together_proves_more_of_their_ensemble() -> None:
    world = World(4, NOISES, 200, 400, 60)
    listed = world.candidates(20)
    without = Candidates(
        listed.starts, listed.num_right, listed.rows, listed.similarities_Mn, listed.floors_QM,
        listed.floors_QM.sum(axis=1),
    )  # fmt: skip
    weights = np.array([[1.0, 1.0, 1.0, 1.0]])
    assert Outcomes(listed, 10).proven(weights).mean() > Outcomes(without, 10).proven(weights).mean() + 0.05


@pytest.mark.parametrize("most", [1, 2, 4, 9])
def test_the_walk_over_all_subsets_counts_what_each_of_them_hits(most) -> None:
    world = World(5, NOISES, 41)
    outcomes = Outcomes(world.candidates(), 3)
    groups = np.random.default_rng(0).random((3, 41)) < 0.5
    counts = outcomes.every_subset(groups, most)
    assert counts.shape == (16, 3)
    for subset in subsets_of(4):
        hits = outcomes.hits(equal_weights(subset, 4)[None])[0]
        expected = (groups & hits).sum(axis=1) if len(subset) <= most else np.zeros(3)
        assert counts[number_of(subset)].tolist() == expected.tolist()
        assert (outcomes.subset_hits(np.array([number_of(subset)]))[0] == hits).all()
    assert counts[0].tolist() == [0, 0, 0]


def test_exact_search_confirms() -> None:
    world = World(6, NOISES, 60, 150)
    outcomes = Outcomes(world.candidates(40), 10)
    weights = some_weights(np.random.default_rng(1), 5, len(NOISES))
    for one, hits, proven in zip(weights, outcomes.hits(weights), outcomes.proven(weights), strict=True):
        exact = exact_hits(*world.features, one, 10)
        assert (exact == world.hits(one, 10)).all()
        assert (exact == hits)[proven].all()


def test_candidates_are_the_lists_and_all_right_rows_once(monkeypatch) -> None:
    monkeypatch.setattr("harness.ranking.selection.candidates._BLOCK_BYTES", 4 * 12 * 7)  # seven gallery rows a block
    world = World(7, NOISES, 20, 90)
    listed = world.candidates(9)
    for query in range(20):
        rows = listed.rows[listed.starts[query] : listed.starts[query + 1]]
        rights = listed.num_right[query]
        assert rows[:rights].tolist() == np.flatnonzero(world.is_right_QG[query]).tolist()
        best = {int(row) for sims in world.sims_MQG for row in np.argsort(-sims[query], kind="stable")[:9]}
        best |= {int(row) for row in np.argsort(-world.sims_MQG.sum(axis=0)[query], kind="stable")[:9]}
        assert sorted({*best, *rows[:rights].tolist()}) == sorted(rows.tolist())
        places = slice(listed.starts[query], listed.starts[query + 1])
        assert (listed.similarities_Mn[:, places] == world.sims_MQG[:, query, rows].astype(np.float32)).all()
        ninth = np.sort(world.sims_MQG[:, query], axis=1)[:, -9].astype(np.float32)
        assert (listed.floors_QM[query] == ninth).all()


def test_one_model_is_searched_once() -> None:
    world = World(8, (0.9,), 10, 40)
    listed = world.candidates(12)
    assert (listed.joint_floors == listed.floors_QM[:, 0]).all()


def test_wrong_input_is_named() -> None:
    world = World(9, NOISES, 4, 10)
    outcomes = Outcomes(world.candidates(), 2)
    with pytest.raises(ValueError, match=r"expected shape \(E, 4\), got \(1, 3\)"):
        outcomes.hits(np.ones((1, 3)))
    for wrong in ([-1.0, 1, 1, 1], [0.0, 0, 0, 0], [np.nan, 1, 1, 1]):
        with pytest.raises(ValueError, match="row 1: expected some above 0"):
            outcomes.hits(np.array([[1.0, 1, 1, 1], wrong]))
    with pytest.raises(ValueError, match="k: expected at least 1"):
        Outcomes(world.candidates(), 0)
    with pytest.raises(ValueError, match="float16 or float32, got float64"):
        gather([np.ones((1, 2))], [np.ones((3, 2))], np.array([0, 0]), np.array([], int), 2)
    with pytest.raises(ValueError, match="right_rows: expected rows below 10"):
        gather(world.queries, world.gallery, np.array([0, 1, 1, 1, 1]), np.array([10]), 2)
    with pytest.raises(ValueError, match="right_starts"):
        gather(world.queries, world.gallery, np.array([0, 1]), np.array([0]), 2)
    with pytest.raises(ValueError, match="num_right: expected shape"):
        Candidates(np.zeros(2), np.zeros((1, 1)), np.zeros(0), np.zeros((1, 0)), np.zeros((1, 1)), np.zeros(1))
    with pytest.raises(ValueError, match="starts: expected to part 1 rows"):
        by_hand([0.1], 2)


def test_bits_are_models() -> None:
    assert members_of(np.array([5, 2]), 3).tolist() == [[True, False, True], [False, True, False]]


def test_too_many_models_for_all_subsets() -> None:
    world = World(10, [1.0] * 21, 2, 5)
    with pytest.raises(ValueError, match="at most 20 models"):
        Outcomes(world.candidates(), 1).every_subset(np.ones((1, 2), bool), 3)
