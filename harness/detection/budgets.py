"""Box budgets: the ``WBF_5@126k`` of the ensemble language, met by a score threshold over all photos.

Legend: N boxes, C categories.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.types import Detections, Ints


def keep_best(detections: Detections, budget: int, per_category: bool = False) -> Detections:
    """The ``budget`` boxes of the highest scores over all photos, in their old order.

    Scores of different categories mean different things: a detector is less sure of what it has seen rarely. One
    threshold for all then takes a rare category's boxes away nearly whole, and no query of it can be answered any more.
    ``per_category`` lets each category keep the same share of its boxes, rounded by largest remainder: that needs no
    ground truth, fills the budget exactly, and leaves the mix of categories as it was.

    Args:
        detections: over a split.
        budget: how many to keep, at least 0; the paper's 590k, 440k and 126k.
        per_category: keep the best of each category instead of the best of all.

    Returns:
        At most ``budget`` boxes; among equal scores the lower image id, then the earlier row, stays.

    Raises:
        ValueError: the budget is negative.
    """
    return detections.take(_kept_rows(detections, budget, per_category))


def thresholds(detections: Detections, budget: int, per_category: bool = False) -> Mapping[int | None, float]:
    """The lowest score that `keep_best` keeps: for people, and as a cut for photos to come.

    Of boxes that have just this score, the budget may have room for some only.

    Args:
        detections: as for `keep_best`, and so are the others.
        budget: how many to keep.
        per_category: whether each category has a threshold of its own.

    Returns:
        By category, ascending; by None where there is one threshold for all. What keeps no box has no threshold.

    Raises:
        ValueError: the budget is negative.
    """
    rows = _kept_rows(detections, budget, per_category)
    scores, categories = detections.scores[rows], detections.category_ids[rows]
    if not per_category:
        return {None: float(scores.min())} if len(rows) else {}
    return {int(one): float(scores[categories == one].min()) for one in np.unique(categories)}


def _kept_rows(detections: Detections, budget: int, per_category: bool) -> Ints:
    """(K,) int64 rows that a budget keeps, ascending."""
    if budget < 0:
        raise ValueError(f"budget: expected a number of boxes >= 0, got {budget}")
    if budget >= len(detections):
        return np.arange(len(detections))
    if not per_category:
        return _best_rows(detections, np.arange(len(detections)), budget)
    categories, counts = np.unique(detections.category_ids, return_counts=True)
    quotas, remainders = np.divmod(counts * budget, len(detections))
    # Largest remainder; of equal ones the smaller category.
    quotas[np.argsort(-remainders, kind="stable")[: budget - quotas.sum()]] += 1
    parts = [
        _best_rows(detections, np.flatnonzero(detections.category_ids == category), quota)
        for category, quota in zip(categories.tolist(), quotas.tolist(), strict=True)
    ]
    return np.sort(np.concatenate(parts))


def _best_rows(detections: Detections, rows: Ints, count: int) -> Ints:
    """(count,) int64 those of the ascending ``rows``, no fewer, that have the highest scores; ascending.

    What lies above the threshold need not be sorted, only what lies on it.
    """
    if count == 0:
        return np.zeros(0, np.int64)
    scores = detections.scores[rows]
    lowest = np.partition(scores, len(scores) - count)[len(scores) - count]
    above, tied = rows[scores > lowest], rows[scores == lowest]
    first = tied[np.argsort(detections.image_ids[tied], kind="stable")]
    return np.sort(np.concatenate([above, first[: count - len(above)]]))
