"""What repeated trainings say: a mean over seeds with its interval, and the paired difference of two recipes.

Two kinds of chance are kept apart: that of the training (other seeds give other weights) and that of the questions
(other queries give another accuracy).

Legend: S seeds, Q queries.

Sources: Student 1908 (interval); R. A. Fisher 1935 (sign-flip permutation test); B. Efron 1979 (bootstrap).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.types import Bools

NUM_FLIPS = 10_000
"""Random sign flips of the permutation test; the smallest p is one over this."""


@dataclass(frozen=True)
class OverSeeds:
    """A figure over trainings that differ in nothing but the seed.

    Attributes:
        mean: over the seeds.
        low, high: 95 % interval of the mean by Student's t; None for a single seed, which says nothing of others.
    """

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PairedOverSeeds:
    """The difference of two recipes trained with the same seeds and asked the same queries, second minus first.

    Attributes:
        difference: mean over the seeds, with the interval that other seeds would give.
        p_queries: two-sided, whether the difference of these very trainings may come from the choice of queries.
    """

    difference: OverSeeds
    p_queries: float


def over_seeds(values: Sequence[float], confidence: float = 0.95) -> OverSeeds:
    """Mean and interval of a figure, one value a seed.

    Raises:
        ValueError: there is no value, or the confidence is not in (0, 1).
    """
    if not values or not 0 < confidence < 1:
        raise ValueError(f"expected at least one value and 0 < confidence < 1, got {len(values)} and {confidence}")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return OverSeeds(mean, None, None)
    from scipy.stats import t

    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    half = float(t.ppf((1 + confidence) / 2, len(values) - 1)) * spread
    return OverSeeds(mean, mean - half, mean + half)


def compare_over_seeds(first_SQ: Bools, second_SQ: Bools, seed: int = 0) -> PairedOverSeeds:
    """Compare two recipes by which queries their trainings get right.

    Args:
        first_SQ: (S, Q) bool, of the first recipe.
        second_SQ: (S, Q) bool, of the second: the same seeds and queries in the same order.
        seed: of the sign flips.

    Returns:
        The difference in [-1, 1]. For ``p_queries`` the difference of each query, averaged over the seeds, has its sign
        flipped at random `NUM_FLIPS` times: how often is the mean then as far from 0?

    Raises:
        ValueError: the shapes differ, are empty, or the values are not boolean.
    """
    if first_SQ.shape != second_SQ.shape or first_SQ.ndim != 2 or 0 in first_SQ.shape:
        raise ValueError(f"expected two arrays of one shape (S, Q), got {first_SQ.shape} and {second_SQ.shape}")
    if first_SQ.dtype != np.bool_ or second_SQ.dtype != np.bool_:
        raise ValueError(f"expected booleans, got {first_SQ.dtype} and {second_SQ.dtype}")
    # Whole numbers, so that a flip that gives the same difference gives exactly the same.
    won_Q = second_SQ.sum(axis=0, dtype=np.int64) - first_SQ.sum(axis=0, dtype=np.int64)
    won_Q = won_Q[won_Q != 0]
    random = np.random.default_rng(seed)
    as_far = 0
    for _ in range(0, NUM_FLIPS, 100):
        signs = random.integers(0, 2, (100, len(won_Q))) * 2 - 1
        as_far += int((np.abs(signs @ won_Q) >= abs(won_Q.sum())).sum())
    differences = (second_SQ.mean(axis=1) - first_SQ.mean(axis=1)).tolist()
    return PairedOverSeeds(over_seeds(differences), (as_far + 1) / (NUM_FLIPS + 1))


def bootstrap_over_seeds(
    first_SQ: NDArray[Any], second_SQ: NDArray[Any], num_resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of the difference, second minus first, that other seeds and other queries would give.

    Seeds and queries are drawn with replacement. With S seeds their variance comes out too small by (S - 1) / S.

    Args:
        first_SQ: (S, Q) hits or shares of hits in [0, 1], of the first recipe.
        second_SQ: (S, Q) of the second: the same seeds and queries in the same order.
        num_resamples: at least 1.
        seed: of the draws.

    Raises:
        ValueError: the shapes differ or are empty, or no resample is asked for.
    """
    if first_SQ.shape != second_SQ.shape or first_SQ.ndim != 2 or 0 in first_SQ.shape or num_resamples < 1:
        raise ValueError(
            f"expected two arrays of one shape (S, Q) and resamples, got {first_SQ.shape}, {second_SQ.shape} and "
            f"{num_resamples}"
        )
    gains_SQ = second_SQ.astype(np.float64) - first_SQ.astype(np.float64)
    num_seeds, num_queries = gains_SQ.shape
    random = np.random.default_rng(seed)
    found = []
    for start in range(0, num_resamples, 500):
        size = min(500, num_resamples - start)
        counts = random.multinomial(num_queries, np.full(num_queries, 1 / num_queries), size=size)
        means = counts @ gains_SQ.T / num_queries  # (size, S)
        rows = random.integers(0, num_seeds, (size, num_seeds))
        found.append(np.take_along_axis(means, rows, axis=1).mean(axis=1))
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975])
    return float(low), float(high)
