"""Queries in two halves that share no pair: one to choose on, the other to report on; many times over.

Legend: R halvings, Q queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.training.fitting import step_seed
from harness.types import Bools, Floats, Ints


def halvings(pair_ids: Ints, num_halvings: int, seed: int) -> Bools:
    """Part queries at random by their pairs.

    Args:
        pair_ids: (Q,) int64.
        num_halvings: R, at least 1.
        seed: the same seed parts in the same way; each halving is independent of how many there are.

    Returns:
        (R, Q) bool, True for the first half. Both halves have as many pairs, but for one.

    Raises:
        ValueError: the queries are of fewer than two pairs, or there is no halving.
    """
    pairs = np.unique(pair_ids)
    if len(pairs) < 2 or num_halvings < 1:
        raise ValueError(f"expected at least 2 pairs and 1 halving, got {len(pairs)} and {num_halvings}")
    return np.stack([
        np.isin(pair_ids, step_seed(seed, 0x5E1E, number).permutation(pairs)[: len(pairs) // 2])
        for number in range(num_halvings)
    ])  # fmt: skip


@dataclass(frozen=True)
class Optimism:
    """What choosing on some queries promises too much.

    Attributes:
        mean: accuracy where it was chosen minus accuracy on the other half, over both halves of all halvings: which
            half is the harder one cancels out.
        low, high: the smallest and the largest of the halvings, each the mean of its two halves.
    """

    mean: float
    low: float
    high: float


def optimism(chosen_acc_R2: Floats, other_acc_R2: Floats) -> Optimism:
    """The optimism of a way to choose, from both halves of R halvings.

    Args:
        chosen_acc_R2: (R, 2) float64, accuracy of what was chosen on a half, on that half.
        other_acc_R2: (R, 2) float64, of the same ensembles on the other half.
    """
    each = (chosen_acc_R2 - other_acc_R2).mean(axis=1)
    return Optimism(float(each.mean()), float(each.min()), float(each.max()))


def both_halves(first_halves_RQ: Bools) -> Bools:
    """(2 R, Q) bool: the first half of the first halving, its other half, the first half of the second halving …"""
    return np.stack([first_halves_RQ, ~first_halves_RQ], axis=1).reshape(-1, first_halves_RQ.shape[1])
