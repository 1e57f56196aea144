"""Means over seeds and paired differences."""

import numpy as np
import pytest

from harness.scoring.repeats import bootstrap_over_seeds, compare_over_seeds, over_seeds


def test_an_interval_worked_by_hand():
    # Mean 2, deviation 1, t(0.975, 2) = 4.302653: half width 4.302653 / sqrt(3).
    found = over_seeds([1.0, 2.0, 3.0])
    assert (found.mean, found.low, found.high) == pytest.approx((2, 2 - 2.484138, 2 + 2.484138), abs=1e-5)


def test_one_seed_has_no_interval():
    found = over_seeds([0.7])
    assert (found.mean, found.low, found.high) == (0.7, None, None)
    with pytest.raises(ValueError, match="at least one value"):
        over_seeds([])


def test_intervals_hold_what_they_promise():
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        found = over_seeds(random.normal(0.5, 0.1, 3).tolist())
        inside += found.low <= 0.5 <= found.high
    assert 0.935 < inside / 2000 < 0.965


def test_a_clear_difference_and_none():
    random = np.random.default_rng(1)
    first = random.random((3, 400)) < 0.5
    better = first | (random.random((3, 400)) < 0.2)
    found = compare_over_seeds(first, better)
    assert found.difference.mean == pytest.approx(better.mean() - first.mean())
    assert found.difference.low > 0
    assert found.p_queries < 0.001
    back = compare_over_seeds(better, first)
    assert back.difference.mean == -found.difference.mean
    same = compare_over_seeds(first, first)
    assert (same.difference.mean, same.p_queries) == (0, 1)


def test_p_is_uniform_where_nothing_differs():
    random = np.random.default_rng(2)
    ps = [
        compare_over_seeds(random.random((3, 60)) < 0.6, random.random((3, 60)) < 0.6, seed=trial).p_queries
        for trial in range(200)
    ]
    assert 0.02 <= np.mean(np.array(ps) < 0.05) <= 0.09


def test_wrong_shapes_are_refused():
    hits = np.ones((2, 3), bool)
    with pytest.raises(ValueError, match="one shape"):
        compare_over_seeds(hits, hits[:1])
    with pytest.raises(ValueError, match="booleans"):
        compare_over_seeds(hits, hits.astype(int))


def test_the_bootstrap_against_a_plain_loop():
    random = np.random.default_rng(1)
    first, second = random.random((3, 40)), random.random((3, 40))
    drawn = []
    for _ in range(4000):
        rows, queries = random.integers(0, 3, 3), random.integers(0, 40, 40)
        drawn.append((second - first)[rows][:, queries].mean())
    assert bootstrap_over_seeds(first, second) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.01)


def test_the_spread_between_seeds_widens_the_bootstraps_interval():
    gains = np.zeros((2, 50))
    gains[0] = 0.5  # one seed gains on every query, the other on none
    assert bootstrap_over_seeds(np.zeros((2, 50)), gains) == pytest.approx((0.0, 0.5))
    same = np.ones((2, 5), bool)
    assert bootstrap_over_seeds(same, same) == (0.0, 0.0)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((0, 3), (0, 3)), ((3,), (3,))])
def test_what_cannot_be_resampled_is_refused(shapes):
    with pytest.raises(ValueError, match="expected two arrays of one shape"):
        bootstrap_over_seeds(np.zeros(shapes[0]), np.zeros(shapes[1]))
