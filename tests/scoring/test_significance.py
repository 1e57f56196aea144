import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.scoring.significance import chance, mcnemar_exact, paired_bootstrap, queries_needed, wilson_interval
from harness.scoring.truth import Gallery, Queries
from harness.types import InputError


def test_wilson_agrees_with_published_figures():
    """Newcombe 1998, table I: 81 of 263 gives 0.2553–0.3662, 15 of 148 gives 0.0624–0.1605, 0 of 20 gives 0–0.1611."""
    assert [round(v, 4) for v in wilson_interval(81, 263)] == [0.2553, 0.3662]
    assert [round(v, 4) for v in wilson_interval(15, 148)] == [0.0624, 0.1605]
    assert [round(v, 4) for v in wilson_interval(0, 20)] == [0.0, 0.1611]


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_mirrors(counts):
    hits, n = counts
    low, high = wilson_interval(hits, n)
    assert 0 <= low <= hits / n <= high <= 1
    mirrored = wilson_interval(n - hits, n)
    assert math.isclose(low, 1 - mirrored[1], abs_tol=1e-12)


def test_wilson_at_the_size_of_the_challenge():
    low, high = wilson_interval(round(0.88 * 12_400), 12_400)
    assert 0.0055 < (high - low) / 2 < 0.006


@pytest.mark.parametrize("arguments", [(1, 0), (-1, 5), (6, 5), (1, 5, 0.0), (1, 5, 1.0)])
def test_wilson_refuses(arguments):
    with pytest.raises(ValueError, match="expected"):
        wilson_interval(*arguments)


def vectors(both: int, first: int, second: int, neither: int):
    counts = (both, first, second, neither)
    pattern = [(True, True), (True, False), (False, True), (False, False)]
    rows = [pair for pair, count in zip(pattern, counts, strict=True) for _ in range(count)]
    return np.array(rows, bool).reshape(-1, 2).T


@pytest.mark.parametrize(("first", "second", "p"), [(0, 0, 1), (1, 0, 1), (0, 5, 2 / 32), (1, 9, 22 / 1024), (4, 4, 1)])
def test_mcnemar_hand_worked(first, second, p):
    test = mcnemar_exact(*vectors(3, first, second, 2))
    assert (test.only_first, test.only_second, test.p_value) == (first, second, p)


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_is_the_binomial_tail(first, second):
    n, k = first + second, min(first, second)
    tail = sum(Fraction(math.comb(n, i), 2**n) for i in range(k + 1))
    assert mcnemar_exact(*vectors(1, first, second, 0)).p_value == float(min(Fraction(1), 2 * tail))


def test_mcnemar_of_many_disagreements_neither_overflows_nor_vanishes():
    p_value = mcnemar_exact(*vectors(0, 5900, 6100, 0)).p_value
    assert 0.06 < p_value < 0.08  # normal approximation: z = (200 - 1) / sqrt(12000) = 1.817, p = 0.069


@pytest.mark.parametrize(("first", "second"), [(95, 98), (100, 101), (300, 360), (700, 710), (10, 900), (1, 1070)])
def test_mcnemar_beyond_its_exact_integers_is_the_binomial_tail(first, second):
    """From 192 bits on the terms are cut off: still the correctly rounded tail."""
    n, k = first + second, min(first, second)
    tail = Fraction(sum(math.comb(n, i) for i in range(k + 1)), 2**n)
    assert mcnemar_exact(*vectors(1, first, second, 0)).p_value == pytest.approx(float(2 * tail), rel=1e-14)


def test_mcnemar_of_a_probability_below_the_smallest_float():
    assert mcnemar_exact(*vectors(0, 0, 2000, 0)).p_value == 0


def test_queries_needed_hand_worked():
    """Discordant .13, difference .05: (1.95996 sqrt(.13) + .84162 sqrt(.1275))^2 / .0025 = 405.78 by Connor, and
    405.78 / 4 (1 + sqrt(1 + 4 / 20.289))^2 = 444.88 for the exact test."""
    first, second = vectors(700, 40, 90, 170)
    assert queries_needed(first, second) == queries_needed(second, first) == 445
    assert queries_needed(*vectors(7000, 400, 900, 1700)) == 445
    assert queries_needed(first, second, power=0.9) > 445
    assert queries_needed(first, second, alpha=0.01) > 445


def test_queries_needed_where_there_is_no_difference_or_no_query():
    assert queries_needed(*vectors(5, 3, 3, 0)) is None
    assert queries_needed(*vectors(0, 0, 0, 0)) is None


def test_no_exact_test_finds_anything_in_fewer_than_six_queries():
    assert queries_needed(*vectors(0, 0, 9, 0)) == 6
    assert mcnemar_exact(*vectors(0, 0, 6, 0)).p_value < 0.05 < mcnemar_exact(*vectors(0, 0, 5, 0)).p_value


@pytest.mark.parametrize("power", [0.6, 0.8, 0.95])
@pytest.mark.parametrize("counts", [(700, 40, 90, 170), (850, 20, 32, 98), (400, 150, 190, 260)])
def test_that_many_queries_do_find_the_difference_as_often_as_asked(counts, power):
    """Simulated: the shares of tests that find it, of 2,000 of that many queries each."""
    needed = queries_needed(*vectors(*counts), power=power)
    draws = np.random.default_rng(0).multinomial(needed, np.array(counts) / sum(counts), size=2000)
    pairs, times = np.unique(draws[:, 1:3], axis=0, return_counts=True)
    found = np.array([mcnemar_exact(*vectors(0, *pair, 0)).p_value < 0.05 for pair in pairs.tolist()])
    assert times[found].sum() / 2000 == pytest.approx(power, abs=0.04)


def test_queries_needed_refuses():
    for numbers in ({"power": 1.0}, {"power": 0.0}, {"alpha": 0.0}, {"alpha": 1.0}):
        with pytest.raises(ValueError, match="0 < power < 1"):
            queries_needed(np.ones(2, bool), np.ones(2, bool), **numbers)


def test_bootstrap_of_a_difference():
    first, second = vectors(700, 40, 90, 170)
    low, high = paired_bootstrap(first, second)
    spread = 1.96 * math.sqrt(0.13 - 0.05**2) / math.sqrt(1000)
    assert abs(low - (0.05 - spread)) < 0.003
    assert abs(high - (0.05 + spread)) < 0.003
    assert paired_bootstrap(first, second) == (low, high)
    assert paired_bootstrap(first, first) == (0.0, 0.0)


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 1000))
def test_bootstrap_draws_as_plain_resampling_does(seed):
    first, second = vectors(20, 6, 13, 11)
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 50, (20_000, 50))
    plain = np.quantile((second[rows].astype(int) - first[rows]).mean(axis=1), [0.025, 0.975])
    assert np.abs(np.array(paired_bootstrap(first, second, num_resamples=20_000)) - plain).max() <= 0.021


def test_paired_tests_refuse_other_vectors():
    for function in (mcnemar_exact, paired_bootstrap, queries_needed):
        with pytest.raises(ValueError, match="two boolean vectors over the same queries"):
            function(np.array([True]), np.array([True, False]))
        with pytest.raises(ValueError, match="two boolean vectors"):
            function(np.array([1]), np.array([0]))
    with pytest.raises(ValueError, match="no query"):
        paired_bootstrap(np.zeros(0, bool), np.zeros(0, bool))
    with pytest.raises(ValueError, match="num_resamples"):
        paired_bootstrap(np.ones(2, bool), np.ones(2, bool), num_resamples=0)


def truth(queries: list[tuple[int, int]], gallery: list[tuple[int, int, int, list[float]]]) -> tuple[Queries, Gallery]:
    """Queries as (pair, style), gallery as (photo, pair, style, box)."""
    pairs, styles = np.array(queries).T
    count = len(queries)
    boxes = np.array([row[3] for row in gallery], float)
    ids, gallery_pairs, gallery_styles = (np.array([row[n] for row in gallery]) for n in range(3))
    return (
        Queries(np.arange(count), np.zeros((count, 4)), np.ones(count, int), styles, pairs),
        Gallery(ids, boxes, gallery_styles, gallery_pairs),
    )


UNIT = [0, 0, 10, 10]


def test_chance_is_the_share_of_draws_that_hit():
    """Counted over all draws of 3 among 7 boxes, of which 2 are right for the first query and 1 for the second."""
    owners = [(1, 1), (1, 1), (1, 2), (2, 1), (2, 1), (2, 1), (3, 0)]
    queries, gallery = truth([(1, 1), (1, 2), (9, 0)], [(100 + n, *o, UNIT) for n, o in enumerate(owners)])
    draws = list(combinations(owners, 3))
    shares = [sum(wanted in draw for draw in draws) / len(draws) for wanted in ((1, 1), (1, 2))]
    assert math.isclose(chance(queries, gallery, k=3), sum(shares) / 2, rel_tol=1e-12)
    assert chance(queries, gallery, k=7) == 1
    assert chance(queries, gallery, k=50) == 1


def test_chance_counts_overlapping_items_of_the_same_photo_as_the_rules_do():
    rows = [(100, 1, 1, UNIT), (100, 1, 2, [0, 0, 10, 6]), (101, 1, 2, [50, 50, 60, 60]), (102, 2, 1, UNIT)]
    queries, gallery = truth([(1, 1)], rows)
    assert chance(queries, gallery, k=1) == 2 / 4  # the item of style 2 overlaps the right one by 0.6


def test_chance_over_detected_boxes():
    queries, gallery = truth([(1, 1)], [(100, 1, 1, UNIT), (101, 2, 1, UNIT)])
    boxes = np.array([UNIT, [0, 0, 10, 5], [0, 0, 10, 4], UNIT, UNIT], float)
    assert chance(queries, gallery, 1, np.array([100, 100, 100, 101, 500]), boxes) == 2 / 5
    assert chance(queries, gallery, 1, np.zeros(0, int), np.zeros((0, 4))) == 0


def test_chance_refuses():
    queries, gallery = truth([(1, 1)], [(100, 1, 1, UNIT)])
    with pytest.raises(ValueError, match="k >= 1"):
        chance(queries, gallery, k=0)
    with pytest.raises(ValueError, match="both or none"):
        chance(queries, gallery, image_ids=np.zeros(1, int))
    with pytest.raises(InputError, match="no item of pair 5"):
        chance(truth([(5, 1)], [(100, 1, 1, UNIT)])[0], gallery)
