from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.detection.budgets import keep_best, thresholds
from harness.types import Detections


def found(*rows):
    """Detections from rows of (image id, score, category)."""
    table = np.array(rows, float).reshape(-1, 3)
    boxes = np.tile([0.0, 0.0, 1.0, 1.0], (len(table), 1)) * np.arange(1, len(table) + 1)[:, None]
    return Detections(table[:, 0].astype(int), boxes, table[:, 1], table[:, 2].astype(int))


def test_ties_go_to_the_lower_image_id_then_the_earlier_row():
    boxes = found((5, 0.5, 1), (3, 0.5, 1), (3, 0.5, 1), (9, 0.9, 1))
    assert keep_best(boxes, 2).image_ids.tolist() == [3, 9]
    assert keep_best(boxes, 2).boxes_xyxy[:, 2].tolist() == [2, 4]
    assert keep_best(boxes, 3).image_ids.tolist() == [3, 3, 9]
    assert len(keep_best(boxes, 99)) == 4
    assert len(keep_best(boxes, 0)) == 0


@pytest.mark.parametrize("per_category", [False, True])
def test_nothing_and_a_negative_budget(per_category):
    assert len(keep_best(Detections.empty(), 3, per_category)) == 0
    assert thresholds(Detections.empty(), 3, per_category) == {}
    assert thresholds(found((1, 0.5, 2)), 0, per_category) == {}
    for function in (keep_best, thresholds):
        with pytest.raises(ValueError, match=r"budget: expected a number of boxes >= 0, got -1"):
            function(found((1, 0.5, 2)), -1, per_category)


UNSURE_OF_SLINGS = found(
    (1, 0.9, 1), (2, 0.8, 1), (3, 0.7, 1), (4, 0.6, 1), (5, 0.5, 1), (6, 0.4, 1), (7, 0.3, 6), (8, 0.2, 6), (9, 0.1, 6),
)  # fmt: skip


def test_one_threshold_takes_the_rare_category_away_and_shares_do_not():
    assert keep_best(UNSURE_OF_SLINGS, 5).category_ids.tolist() == [1] * 5
    assert thresholds(UNSURE_OF_SLINGS, 5) == {None: 0.5}
    # 5 of 9: of six boxes 3 1/3, of three 1 2/3, so the box that is left goes to the second.
    assert keep_best(UNSURE_OF_SLINGS, 5, per_category=True).image_ids.tolist() == [1, 2, 3, 7, 8]
    assert thresholds(UNSURE_OF_SLINGS, 5, per_category=True) == {1: 0.7, 6: 0.2}


def test_equal_remainders_go_to_the_smaller_category():
    boxes = found((1, 0.1, 9), (2, 0.9, 3), (3, 0.5, 9), (4, 0.2, 3))
    # 1 of 4: half a box each
    assert keep_best(boxes, 1, per_category=True).image_ids.tolist() == [2]
    assert thresholds(boxes, 1, per_category=True) == {3: 0.9}


def plainly_kept(rows, budget, per_category):
    """Row numbers, by Python's own arithmetic and sorting."""
    groups = {}
    for number, (image_id, score, category) in enumerate(rows):
        groups.setdefault(category if per_category else None, []).append((-score, image_id, number))
    if budget >= len(rows):
        return list(range(len(rows)))
    exact = {key: (len(group) * budget) // len(rows) for key, group in groups.items()}
    left = {key: (len(group) * budget) % len(rows) for key, group in groups.items()}
    for key in sorted(groups, key=lambda key: (-left[key], key or 0))[: budget - sum(exact.values())]:
        exact[key] += 1
    return sorted(number for key, group in groups.items() for _, _, number in sorted(group)[: exact[key]])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from([0.0, -0.0, 5e-324, 0.25, 0.5, 1.0]), st.integers(1, 13))),
    st.integers(0, 20),
    st.booleans(),
)
def test_as_a_plain_loop_has_it(rows, budget, per_category):
    boxes = found(*rows)
    expected = plainly_kept(rows, budget, per_category)
    kept = keep_best(boxes, budget, per_category)
    assert (kept.boxes_xyxy[:, 2] - 1).astype(int).tolist() == expected
    lowest = {}
    for number in expected:
        key = rows[number][2] if per_category else None
        lowest[key] = min(lowest.get(key, 1.0), rows[number][1])
    assert thresholds(boxes, budget, per_category) == lowest


@pytest.mark.parametrize("per_category", [False, True])
def test_a_budget_for_the_boxes_of_the_validation_set(per_category):
    """Coarse scores make thousands of ties at the threshold."""
    rng = np.random.default_rng(0)
    count = 590_000
    corner = rng.uniform(0, 300, (count, 2))
    boxes = Detections(
        rng.integers(1, 32_154, count),
        np.concatenate([corner, corner + 50], axis=1),
        np.round(rng.random(count), 2),
        rng.integers(1, 14, count),
    )
    kept = keep_best(boxes, 126_000, per_category)
    assert len(kept) == 126_000
    if per_category:
        shares = np.bincount(kept.category_ids, minlength=14)[1:] / np.bincount(boxes.category_ids, minlength=14)[1:]
        np.testing.assert_allclose(shares, 126 / 590, atol=1e-4)
