import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from harness.scoring.significance import mcnemar_exact
from leaderboard.telling_apart import ALPHA, critical_counts, in_words, neighbours, tied


def alone(fewer: int, count: int) -> float:
    """The p value where ``count`` queries part two rows and the worse one has ``fewer`` of them."""
    first = np.zeros(count, bool)
    first[:fewer] = True
    return mcnemar_exact(first, ~first).p_value


def test_critical_counts_by_hand():
    # 2 / 2^5 = 0.0625, 2 / 2^6 = 0.03125; 2 (1 + 8) / 2^8 = 0.0703, 2 (1 + 9) / 2^9 = 0.039.
    assert critical_counts(9).tolist() == [-1, -1, -1, -1, -1, -1, 0, 0, 0, 1]
    assert critical_counts(0).tolist() == [-1]


@settings(deadline=None)
@given(st.integers(1, 3000))
def test_critical_counts_are_those_of_the_exact_test(count):
    critical = int(critical_counts(count)[count])
    assert critical == -1 or alone(critical, count) < ALPHA
    assert alone(critical + 1, count) >= ALPHA


@pytest.mark.parametrize("count", [6, 12_400, 40_000])
def test_critical_counts_hold_for_many_queries(count):
    critical = int(critical_counts(count)[-1])
    assert alone(critical, count) < ALPHA <= alone(critical + 1, count)


@settings(deadline=None)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)))
def test_every_pair_is_tested_as_by_itself(hits):
    expected = [[mcnemar_exact(one, other).p_value >= ALPHA for other in hits] for one in hits]
    assert tied(hits).tolist() == expected


@pytest.mark.parametrize("level", [0.05, 0.5, 0.87, 0.99])
def test_more_rows_than_are_tested_at_once(level):
    """Most pairs are too far apart to be looked into; every one that is left out must be told apart."""
    rng = np.random.default_rng(0)
    common = rng.random(600)
    hits = common + rng.normal(0, 0.05, (300, 600)) < level + rng.normal(0, 0.06, (300, 1))
    found = tied(hits)
    assert (found == found.T).all()
    assert found.diagonal().all()
    for row in range(0, 300, 29):
        expected = [mcnemar_exact(hits[row], other).p_value >= ALPHA for other in hits]
        assert found[row].tolist() == expected
        assert not all(expected)


@pytest.mark.parametrize("hits", [np.zeros(3, bool), np.zeros((2, 3), np.int64)])
def test_only_boolean_matrices_are_tested(hits):
    with pytest.raises(ValueError, match=r"hits_NQ: expected \(N, Q\) bool, got"):
        tied(hits)


def test_neighbours_leave_out_the_row_itself():
    pairs = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], bool)
    assert neighbours(pairs) == [(1,), (0, 2), (1,)]
    assert neighbours(np.ones((1, 1), bool)) == [()]


@pytest.mark.parametrize(
    ("others", "ranks", "text"),
    [
        ((), [1], "no other"),
        ((0,), [1, 2], "1 other: #1"),
        ((1, 2, 3), [1, 2, 3, 4], "3 others: #2–#4"),
        ((0, 2, 4, 5), [1, 2, 3, 4, 5, 6], "4 others: #1, #3, #5–#6"),
        ((0, 2), [1, 1, 1, 4], "2 others: #1 (2)"),
        ((1, 2), [1, 2, 2, 4], "2 others: #2 (2)"),
        ((1, 2), [1, 2, 3, 4], "2 others: #2, #3"),
        ((1, 2, 3), [1, 2, 2, 4], "3 others: #2–#4"),
        ((0, 1, 4), [1, 1, 1, 4, 5], "3 others: #1 (2), #5"),
        ((0, 2, 4, 6), [1, 2, 3, 4, 5, 6, 7], "4 others: #1 … #7"),
    ],
)
def test_ties_in_words(others, ranks, text):
    assert in_words(others, ranks) == text


@given(st.sets(st.integers(0, 30), min_size=1))
def test_every_other_is_in_a_stretch_that_is_named(others):
    text = in_words(tuple(sorted(others)), list(range(31)), most_spans=31)
    count, _, stretches = text.partition(": ")
    named: list[int] = []
    for stretch in stretches.split(", "):
        first, _, last = stretch.replace("#", "").partition("–")
        named += range(int(first), int(last or first) + 1)
    assert named == sorted(others)
    assert count.split()[0] == str(len(others))
