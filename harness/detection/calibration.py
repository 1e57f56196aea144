"""Score calibration: a detector's score becomes the share of its boxes of that score that are right.

Fusion adds and compares scores of different detectors, and the best-scored box of a garment speaks for it; both take
for granted that .7 means as much from one detector as from another. Which boxes are right is decided outside, by
`harness.scoring.matching.hits` for boxes with ground truth.

Every map here is increasing, so it changes no detector's own order of boxes, nor its average precision. A plain
isotonic fit is flat in steps, and would make ties of scores that the detector told apart; a steep temperature does so
near 0 and 1. A thousandth of the score itself is therefore mixed into every map: two scores that are `RESOLUTION` or
more apart stay apart and in order, and closer ones are equal or in order. That moves a score by at most .001.

Legend: N boxes, K knots, B bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from harness.types import Bools, Floats, InputError

RESOLUTION = 2.0**-40
"""Scores are read in steps of this (9e-13): finer ones drown in the rounding of the maps."""

_OWN_SHARE = 1e-3
_LEAST = 1e-6
"""Scores beyond this and its counterpart below 1 have no finite log odds that a fit could use."""


class Isotonic(BaseModel):
    """An increasing map through knots, linear between them; it assumes nothing else, and wants a few hundred boxes.

    Attributes:
        scores: (K,) ascending in [0, 1], from 0 to 1; a score may stand twice where the map jumps.
        rates: (K,) not descending, in [0, 1].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["isotonic"] = "isotonic"
    scores: tuple[float, ...]
    rates: tuple[float, ...]

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if len(self.scores) != len(self.rates) or len(self.scores) < 2:
            raise ValueError(f"expected two knots or more, got {len(self.scores)} scores and {len(self.rates)} rates")
        for name, column in (("scores", self.scores), ("rates", self.rates)):
            values = np.array(column)
            if not ((values >= 0) & (values <= 1)).all() or (np.diff(values) < 0).any():
                raise ValueError(f"{name}: expected ascending numbers in [0, 1]")
        if self.scores[0] != 0 or self.scores[-1] != 1:
            raise ValueError(f"scores: expected knots from 0 to 1, got {self.scores[0]} to {self.scores[-1]}")
        return self

    def apply(self, scores: Floats) -> Floats:
        """The calibrated scores.

        Args:
            scores: (N,) in [0, 1].

        Returns:
            (N,) float64 in [0, 1].

        Raises:
            InputError: a score is outside [0, 1] or not finite.
        """
        given = _stepped(scores)
        knots, rates = np.array(self.scores), np.array(self.rates)
        right = np.clip(np.searchsorted(knots, given, "right"), 1, len(knots) - 1)
        left = right - 1
        widths = np.maximum(knots[right] - knots[left], RESOLUTION)
        values = rates[left] + (given - knots[left]) / widths * (rates[right] - rates[left])
        # Rounding could carry a value over the next knot's, and two scores would change places.
        return _strict(given, np.clip(values, rates[left], rates[right]))


class Temperature(BaseModel):
    """The log odds divided by a temperature, plus a bias (Platt scaling); two numbers, so a few boxes are enough.

    Attributes:
        temperature: above 1 makes scores less sure, below 1 surer.
        bias: added to the log odds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["temperature"] = "temperature"
    temperature: FiniteFloat = Field(gt=0)
    bias: FiniteFloat = 0.0

    def apply(self, scores: Floats) -> Floats:
        """The calibrated scores.

        Args:
            scores: (N,) in [0, 1].

        Returns:
            (N,) float64 in [0, 1].

        Raises:
            InputError: a score is outside [0, 1] or not finite.
        """
        given = _stepped(scores)
        return _strict(given, _sigmoid(_log_odds(given) / self.temperature + self.bias))


Calibration = Annotated[Isotonic | Temperature, Field(discriminator="kind")]
"""Either kind; JSON tells them apart by ``kind``."""


def fit_isotonic(scores: Floats, is_hit: Bools) -> Isotonic:
    """The increasing map that fits the hits of these boxes best, in squares.

    A miss of score 0 and a hit of score 1 are added to the boxes: they lead the map from (0, 0) to (1, 1) beyond the
    scores that were seen, and with no box at all it is the identity.

    Args:
        scores: (N,) in [0, 1], of photos that the detector was not trained on.
        is_hit: (N,) bool, whether each box is right.

    Raises:
        InputError: the columns are not of one length, or a score is outside [0, 1].

    Source: B. Zadrozny, C. Elkan 2002, "Transforming classifier scores into accurate multiclass probability estimates".
    """
    from scipy.optimize import isotonic_regression

    given, hits = _checked(scores, is_hit)
    values, place, counts = np.unique(np.concatenate([[0.0], given, [1.0]]), return_inverse=True, return_counts=True)
    shares = np.bincount(place, np.concatenate([[0.0], hits, [1.0]])) / counts
    fitted = isotonic_regression(shares, weights=counts)
    starts = fitted.blocks[:-1]
    ends = fitted.blocks[1:] - 1
    rows = np.unique(np.stack([starts, ends]))  # the two ends of each step, one where they are the same
    return Isotonic(scores=tuple(values[rows].tolist()), rates=tuple(np.clip(fitted.x[rows], 0, 1).tolist()))


def fit_temperature(scores: Floats, is_hit: Bools) -> Temperature:
    """Temperature and bias under which the hits of these boxes are likeliest.

    The logarithm of the temperature has a normal prior of width 1 around 0, the bias one of width 2. A hundred boxes
    drown it; it is what keeps the fit finite where all boxes are hits or none is, or where higher scores are hit less
    often, and makes it the identity where there is no box.

    Args:
        scores: (N,) in [0, 1], of photos that the detector was not trained on.
        is_hit: (N,) bool, whether each box is right.

    Raises:
        InputError: the columns are not of one length, or a score is outside [0, 1].

    Source: J. Platt 1999, "Probabilistic outputs for support vector machines"; C. Guo et al. 2017, "On calibration of
    modern neural networks".
    """
    from scipy.optimize import minimize

    given, hits = _checked(scores, is_hit)
    odds = _log_odds(given)

    def loss(values: Floats) -> tuple[float, Floats]:
        steepness, bias = np.exp(values[0]), values[1]
        logits = steepness * odds + bias
        wrong = _sigmoid(logits) - hits
        value = (np.logaddexp(0, logits) - hits * logits).sum() + values[0] ** 2 / 2 + bias**2 / 8
        return float(value), np.array([steepness * (wrong @ odds) + values[0], wrong.sum() + bias / 4])

    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-5, 5), (-20, 20)])
    return Temperature(temperature=float(np.exp(-found.x[0])), bias=float(found.x[1]))


@dataclass(frozen=True)
class Bin:
    """The boxes whose scores are in [low, high); the last bin has its end too.

    Attributes:
        low: in [0, 1].
        high: in [0, 1].
        count: boxes.
        mean_score: None without a box.
        hit_rate: share of hits; None without a box.
    """

    low: float
    high: float
    count: int
    mean_score: float | None
    hit_rate: float | None


@dataclass(frozen=True)
class Reliability:
    """How far scores are from the share of boxes that are right.

    Attributes:
        bins: by ascending score.
        expected_error: mean over the boxes of the distance between mean score and share of hits in their bin
            (expected calibration error), in [0, 1]; None without a box.
    """

    bins: tuple[Bin, ...]
    expected_error: float | None


def reliability(scores: Floats, is_hit: Bools, num_bins: int = 15) -> Reliability:
    """The reliability diagram of a set of boxes, in bins of equal width.

    Args:
        scores: (N,) in [0, 1].
        is_hit: (N,) bool.
        num_bins: at least 1.

    Raises:
        InputError: the columns are not of one length, a score is outside [0, 1], or there is no bin.
    """
    given, hits = _checked(scores, is_hit)
    if num_bins < 1:
        raise InputError(f"num_bins: expected at least 1, got {num_bins}")
    edges = np.arange(num_bins + 1) / num_bins
    place = np.minimum(np.searchsorted(edges, given, "right") - 1, num_bins - 1)
    counts = np.bincount(place, minlength=num_bins)
    means, rates = (np.bincount(place, column, num_bins) / np.maximum(counts, 1) for column in (given, hits))
    bins = tuple(
        Bin(low, high, count, mean if count else None, rate if count else None)
        for low, high, count, mean, rate in zip(
            edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), means.tolist(), rates.tolist(), strict=True
        )
    )
    return Reliability(bins, float(counts @ np.abs(means - rates) / len(given)) if len(given) else None)


def _checked(scores: Any, is_hit: Any) -> tuple[Floats, Floats]:
    given, hits = _in_range(scores), np.asarray(is_hit)
    if hits.shape != given.shape:
        raise InputError(f"is_hit: expected one a score, {len(given)}, got shape {hits.shape}")
    if hits.size and hits.dtype.kind != "b":
        raise InputError(f"is_hit: expected booleans, got {hits.dtype}")
    return given, hits.astype(np.float64)


def _in_range(scores: Any) -> Floats:
    given = np.asarray(scores, np.float64)
    if given.ndim != 1:
        raise InputError(f"scores: expected one dimension, got shape {given.shape}")
    wrong = ~((given >= 0) & (given <= 1))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(f"scores: expected numbers in [0, 1], got {given[row]} in row {row}")
    return given


def _stepped(scores: Any) -> Floats:
    return np.round(_in_range(scores) / RESOLUTION) * RESOLUTION


def _strict(given: Floats, values: Floats) -> Floats:
    return (1 - _OWN_SHARE) * values + _OWN_SHARE * given


def _log_odds(scores: Floats) -> Floats:
    inside = np.clip(scores, _LEAST, 1 - _LEAST)
    return np.log(inside) - np.log1p(-inside)


def _sigmoid(logits: Floats) -> Floats:
    return np.exp(-np.logaddexp(0, -logits))
