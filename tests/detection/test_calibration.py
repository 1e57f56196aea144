from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from harness.detection.calibration import (
    RESOLUTION,
    Calibration,
    Isotonic,
    Temperature,
    fit_isotonic,
    fit_temperature,
    reliability,
)
from harness.types import InputError

ANY = TypeAdapter(Calibration)


def identity(scores):
    return Isotonic(scores=(0, 1), rates=(0, 1)).apply(np.asarray(scores, float))


def own(score, rate):
    """A thousandth of the score is mixed in."""
    return 0.999 * rate + 0.001 * score


def test_isotonic_by_hand():
    # .4 and .6 are out of order (a hit, then a miss), so both become a half; .2 and .8 stay.
    fitted = fit_isotonic([0.2, 0.4, 0.6, 0.8], np.array([False, True, False, True]))
    assert fitted.scores == (0, 0.2, 0.4, 0.6, 0.8, 1)
    assert fitted.rates == (0, 0, 0.5, 0.5, 1, 1)
    np.testing.assert_allclose(
        fitted.apply(np.array([0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0])),
        [0, own(0.1, 0), own(0.2, 0), own(0.3, 0.25), own(0.5, 0.5), own(0.7, 0.75), own(0.9, 1), 1],
        atol=1e-12,
    )


def test_equal_scores_are_one_knot():
    fitted = fit_isotonic([0.5, 0.5, 0.5, 0.5], np.array([True, False, False, False]))
    assert fitted == Isotonic(scores=(0, 0.5, 1), rates=(0, 0.25, 1))


def test_a_map_may_jump():
    jump = Isotonic(scores=(0, 0.5, 0.5, 1), rates=(0.1, 0.1, 0.9, 0.9))
    np.testing.assert_allclose(
        jump.apply(np.array([0.499, 0.5, 0.501])), [own(0.499, 0.1), own(0.5, 0.9), own(0.501, 0.9)], atol=1e-9
    )


def test_temperature_by_hand():
    # Log odds of .8 are ln 4; half of that is ln 2, which is two to one.
    np.testing.assert_allclose(Temperature(temperature=2).apply(np.array([0.8])), [own(0.8, 2 / 3)])
    np.testing.assert_allclose(Temperature(temperature=1, bias=np.log(4)).apply(np.array([0.5])), [own(0.5, 0.8)])


@pytest.mark.parametrize(("temperature", "bias"), [(2.5, -0.7), (0.4, 1.0), (1.0, 0.0)])
def test_a_temperature_is_found_again(temperature, bias):
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.02, 0.98, 50_000)
    rates = 1 / (1 + np.exp(-(np.log(scores / (1 - scores)) / temperature + bias)))
    found = fit_temperature(scores, rng.random(len(scores)) < rates)
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.bias == pytest.approx(bias, abs=0.05)


def test_the_fit_is_where_the_likelihood_is_greatest():
    """A plain grid of temperatures and biases holds nothing better."""
    rng = np.random.default_rng(1)
    scores = rng.uniform(0.05, 0.95, 300)
    is_hit = rng.random(300) < scores**2
    odds = np.log(scores / (1 - scores))

    def loss(temperature, bias):
        rates = 1 / (1 + np.exp(-(odds / temperature + bias)))
        prior = np.log(temperature) ** 2 / 2 + bias**2 / 8
        return prior - np.log(np.where(is_hit, rates, 1 - rates)).sum()

    found = fit_temperature(scores, is_hit)
    best = min(loss(t, b) for t in np.geomspace(0.2, 5, 60) for b in np.linspace(-3, 3, 61))
    assert loss(found.temperature, found.bias) <= best + 1e-6


@pytest.mark.parametrize("fit", [fit_isotonic, fit_temperature])
def test_calibration_brings_scores_to_the_share_of_hits(fit):
    rng = np.random.default_rng(2)
    scores = rng.random(40_000)
    is_hit = rng.random(len(scores)) < 1 / (1 + np.exp(-(2 * np.log(scores / (1 - scores)) - 1)))
    fitted = fit(scores[:20_000], is_hit[:20_000])
    before, after = (reliability(part, is_hit[20_000:]) for part in (scores[20_000:], fitted.apply(scores[20_000:])))
    assert before.expected_error > 0.1
    assert after.expected_error < 0.015


@pytest.mark.parametrize("fit", [fit_isotonic, fit_temperature])
def test_without_a_box_it_is_the_identity(fit):
    fitted = fit([], np.zeros(0, bool))
    np.testing.assert_allclose(fitted.apply(np.array([0.0, 0.2, 0.9])), [0, 0.2, 0.9], atol=1e-5)
    assert len(fitted.apply(np.zeros(0))) == 0


@pytest.mark.parametrize("fit", [fit_isotonic, fit_temperature])
@pytest.mark.parametrize("hits", [True, False])
@pytest.mark.parametrize("count", [1, 3, 5_000])
def test_all_hits_or_none(fit, hits, count):
    scores = np.linspace(0.3, 0.7, count) if count > 1 else np.array([0.5])
    fitted = fit(scores, np.full(count, hits))
    moved = fitted.apply(scores) - scores
    assert (moved > 0).all() if hits else (moved < 0).all()
    assert (fitted.apply(np.array([0.0, 1.0])) >= 0).all()
    assert (fitted.apply(np.array([0.0, 1.0])) <= 1).all()
    if count == 5_000:
        assert abs(fitted.apply(scores) - hits).max() < 0.01


def test_higher_scores_that_hit_less_do_not_turn_the_order_around():
    scores = np.linspace(0.01, 0.99, 500)
    for fit in (fit_isotonic, fit_temperature):
        assert (np.diff(fit(scores, scores < 0.5).apply(scores)) > 0).all()


def test_a_column_of_scores_0_and_1_can_be_fitted():
    scores, is_hit = np.array([0.0, 1.0, 0.0, 1.0, -0.0, 5e-324]), np.array([False, True, True, False, True, False])
    for fit in (fit_isotonic, fit_temperature):
        values = fit(scores, is_hit).apply(scores)
        assert ((values >= 0) & (values <= 1)).all()


unit = st.floats(0, 1)
temperatures = st.builds(Temperature, temperature=st.floats(1e-3, 1e3), bias=st.floats(-50, 50))


@st.composite
def isotonics(draw):
    count = draw(st.integers(0, 8))
    inner, rates = (sorted(draw(st.lists(unit, min_size=count, max_size=count))) for _ in range(2))
    return Isotonic(scores=(0, *inner, 1), rates=(0, *rates, 1))


@settings(max_examples=400, deadline=None)
@given(st.one_of(temperatures, isotonics()), unit, unit)
def test_no_two_scores_change_places(fitted, one, other):
    low, high = sorted((one, other))
    values = fitted.apply(np.array([low, high]))
    assert 0 <= values[0] <= values[1] <= 1
    if high - low > 2 * RESOLUTION:
        assert values[0] < values[1]


@settings(max_examples=200, deadline=None)
@given(st.one_of(temperatures, isotonics()), unit, st.integers(1, 30))
def test_nor_do_close_neighbours(fitted, score, steps):
    """Just above and below a score, and around the knots, where rounding is largest next to the distance."""
    at = [score, *(fitted.scores if isinstance(fitted, Isotonic) else [])]
    near = np.unique([s + k * RESOLUTION for s in at for k in range(-steps, steps + 1)])
    near = near[(near >= 0) & (near <= 1)]
    assume(len(near) > 1)
    assert (np.diff(fitted.apply(near)) >= 0).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(unit, st.booleans()), max_size=30), st.integers(1, 20))
def test_reliability_as_a_plain_loop_has_it(boxes, num_bins):
    scores, is_hit = np.array([s for s, _ in boxes]), np.array([h for _, h in boxes], bool)
    report = reliability(scores, is_hit, num_bins)
    error = 0.0
    for number, one in enumerate(report.bins):
        last = number == num_bins - 1
        inside = [(s, h) for s, h in boxes if number / num_bins <= s and (s < (number + 1) / num_bins or last)]
        assert (one.low, one.high, one.count) == (number / num_bins, (number + 1) / num_bins, len(inside))
        if not inside:
            assert one.mean_score is None
            assert one.hit_rate is None
            continue
        mean, rate = sum(s for s, _ in inside) / len(inside), sum(h for _, h in inside) / len(inside)
        assert (one.mean_score, one.hit_rate) == (pytest.approx(mean), pytest.approx(rate))
        error += abs(mean - rate) * len(inside) / len(boxes)
    assert report.expected_error == (pytest.approx(error) if boxes else None)


def test_reliability_by_hand():
    report = reliability([0.1, 0.3, 0.5, 1.0], np.array([False, True, True, False]), num_bins=2)
    assert [one.count for one in report.bins] == [2, 2]
    assert [one.mean_score for one in report.bins] == [pytest.approx(0.2), 0.75]
    assert [one.hit_rate for one in report.bins] == [0.5, 0.5]
    assert report.expected_error == pytest.approx((0.3 + 0.25) / 2)


@pytest.mark.parametrize(
    "fitted", [Temperature(temperature=1.7, bias=-0.25), Isotonic(scores=(0, 1), rates=(0.1, 0.9))]
)
def test_json_there_and_back(fitted):
    text = ANY.dump_json(fitted)
    assert ANY.validate_json(text) == fitted


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "temperature", "temperature": 0}, "greater than 0"),
        ({"kind": "temperature", "temperature": float("inf")}, "finite"),
        ({"kind": "isotonic", "scores": (0, 1), "rates": (0.9, 0.1)}, "rates: expected ascending"),
        ({"kind": "isotonic", "scores": (0, 0.7, 0.5, 1), "rates": (0, 0, 0, 1)}, "scores: expected ascending"),
        ({"kind": "isotonic", "scores": (0, 1), "rates": (0, float("nan"))}, "rates: expected ascending"),
        ({"kind": "isotonic", "scores": (0, 1), "rates": (0, 1.5)}, "rates: expected ascending"),
        ({"kind": "isotonic", "scores": (0.1, 1), "rates": (0, 1)}, "knots from 0 to 1, got 0.1"),
        ({"kind": "isotonic", "scores": (0, 1), "rates": (0,)}, "2 scores and 1 rates"),
        ({"kind": "isotonic", "scores": (), "rates": ()}, "two knots"),
        ({"kind": "beta"}, "'isotonic', 'temperature'"),
    ],
)
def test_wrong_maps_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        ANY.validate_python(wrong)


def test_wrong_columns_are_refused():
    for fit in (fit_isotonic, fit_temperature, reliability):
        with pytest.raises(InputError, match="is_hit: expected one a score, 2"):
            fit([0.1, 0.2], np.array([True]))
        with pytest.raises(InputError, match=r"got 1\.5 in row 1"):
            fit([0.1, 1.5], np.array([True, False]))
        with pytest.raises(InputError, match="is_hit: expected booleans"):
            fit([0.1, 0.2], np.array([0.3, 0.9]))
    with pytest.raises(InputError, match="got nan in row 0"):
        identity([np.nan])
    with pytest.raises(InputError, match="one dimension"):
        identity([[0.5]])
    with pytest.raises(InputError, match="num_bins"):
        reliability([0.1], np.array([True]), 0)
