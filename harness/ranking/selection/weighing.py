"""The search for the weights of an ensemble's models: the door to Optuna here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from harness.types import Floats

LEAST_WEIGHT = 0.05
"""Of the largest, which is 1; whoever weighs less had better be left out."""

_NUM_RANDOM = 10
"""Trials drawn at random before the sampler trusts what it has seen."""


def fit_weights(
    num_hits: Callable[[Floats], int], strengths: Sequence[float], num_trials: int, seed: int
) -> tuple[Floats, int]:
    """Search for weights of more hits than equal ones have.

    Args:
        num_hits: of weights (M,), to become many.
        strengths: of every model alone, such as its hits; weights like them are tried second.
        num_trials: weights to try, at least 1; equal ones are tried first.
        seed: the same seed finds the same weights.

    Returns:
        (M,) weights of two decimals, the largest 1, and their hits; equal ones unless others have more hits.

    Raises:
        ValueError: there is no model, or no trial is allowed.
    """
    if not len(strengths) or num_trials < 1:
        raise ValueError(f"expected models and trials, got {len(strengths)} and {num_trials}")
    best = np.ones(len(strengths))
    most = num_hits(best)
    if len(strengths) == 1 or num_trials == 1:
        return best, most
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_NUM_RANDOM, multivariate=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    names = [f"weight {number}" for number in range(len(strengths))]
    span = optuna.distributions.FloatDistribution(LEAST_WEIGHT, 1.0, log=True)
    study.add_trial(optuna.trial.create_trial(
        params=dict.fromkeys(names, 1.0), distributions=dict.fromkeys(names, span), value=float(most)
    ))  # fmt: skip
    shares = np.asarray(strengths, np.float64)
    shares = np.clip(shares / max(float(shares.max()), 1e-12), LEAST_WEIGHT, 1.0)
    study.enqueue_trial(dict(zip(names, shares.tolist(), strict=True)))
    for _ in range(num_trials - 1):
        trial = study.ask(dict.fromkeys(names, span))
        weights = rounded(np.array([trial.params[name] for name in names]))
        hits = num_hits(weights)
        study.tell(trial, float(hits))
        if hits > most:
            best, most = weights, hits
    return best, most


def rounded(weights: Floats) -> Floats:
    """The same proportions with the largest 1 and two decimals, as a spec states them; none below `LEAST_WEIGHT`."""
    return np.asarray(np.maximum(np.round(weights / weights.max(), 2), LEAST_WEIGHT))
