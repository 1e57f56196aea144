"""One garment, two categories: hand-worked cases, and plain oracles for random photos full of ties."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from ensemble_boxes.ensemble_boxes_wbf import find_matching_box_fast, get_weighted_box
from pydantic import ValidationError

from harness.detection.fusion import FusionSettings, fuse
from harness.types import Detections

CONF_TYPES = ("avg", "max", "box_and_model_avg", "absent_model_aware_avg")
SIZE = (640, 480)


def found(*rows):
    """Detections from rows of (image id, x1, y1, x2, y2, score, category)."""
    table = np.array(rows, float).reshape(-1, 7)
    return Detections(table[:, 0].astype(int), table[:, 1:5], table[:, 5], table[:, 6].astype(int))


def fused(detectors, **settings):
    photos = {photo for one in detectors for photo in one.image_ids.tolist()}
    return fuse(detectors, dict.fromkeys(photos, SIZE), FusionSettings(**settings), num_threads=1)


SHORTS, SKIRT = 7, 9
HERE, NEARBY, AWAY = (1, 100, 100, 200, 300), (1, 104, 100, 204, 300), (1, 400, 100, 500, 300)


def test_apart_hands_a_disputed_garment_in_twice():
    both = fused([found((*HERE, 0.6, SKIRT)), found((*NEARBY, 0.8, SHORTS))])
    assert both.category_ids.tolist() == [SHORTS, SKIRT]


def test_best_keeps_the_better_scored_and_what_lies_elsewhere():
    detectors = [found((*HERE, 0.6, SKIRT), (*AWAY, 0.2, SKIRT)), found((*NEARBY, 0.8, SHORTS))]
    kept = fused(detectors, label_policy="best")
    assert kept.category_ids.tolist() == [SHORTS, SKIRT]
    np.testing.assert_allclose(kept.boxes_xyxy, [NEARBY[1:], AWAY[1:]], atol=1e-3)
    np.testing.assert_allclose(kept.scores, [0.4, 0.1])


def test_best_looks_at_the_overlap_of_the_boxes():
    # 96 of 104 pixels are shared: an IoU of .923
    detectors = [found((*HERE, 0.6, SKIRT)), found((*NEARBY, 0.8, SHORTS))]
    assert len(fused(detectors, label_policy="best", label_iou=0.92)) == 1
    assert len(fused(detectors, label_policy="best", label_iou=0.93)) == 2


def test_best_of_equal_scores_keeps_the_smaller_category():
    detectors = [found((*HERE, 0.6, SKIRT)), found((*HERE, 0.6, SHORTS))]
    assert fused(detectors, label_policy="best").category_ids.tolist() == [SHORTS]


def test_what_was_left_out_leaves_out_nothing():
    """A row of boxes, each over the next: the second goes, so the third stays."""
    row = [(1, 100 + 10 * step, 100, 200 + 10 * step, 300, 0.9 - 0.1 * step, 1 + step) for step in range(3)]
    kept = fused([found(*row)], label_policy="best", label_iou=0.8)
    assert kept.category_ids.tolist() == [1, 3]


def test_best_is_applied_before_the_limit_of_a_photo():
    detectors = [found((*HERE, 0.9, 1), (*HERE, 0.8, 2), (*AWAY, 0.7, 3))]
    assert fused(detectors, label_policy="best", max_per_image=2).category_ids.tolist() == [1, 3]
    assert fused(detectors, label_policy="best", max_per_image=1).category_ids.tolist() == [1]


@pytest.mark.parametrize("method", ["nms", "soft_nms", "nmw"])
def test_best_follows_every_method(method):
    detectors = [found((*HERE, 0.6, SKIRT)), found((*NEARBY, 0.8, SHORTS), (*AWAY, 0.5, SKIRT))]
    assert fused(detectors, method=method, label_policy="best").category_ids.tolist() == [SHORTS, SKIRT]


def test_vote_takes_the_category_of_the_larger_sum_and_its_boxes_alone():
    detectors = [found((*HERE, 0.5, SKIRT)), found((*NEARBY, 0.8, SHORTS)), found((*HERE, 0.5, SKIRT))]
    voted = fused(detectors, label_policy="vote")
    assert voted.category_ids.tolist() == [SKIRT]
    np.testing.assert_allclose(voted.boxes_xyxy, [HERE[1:]], atol=1e-3)
    np.testing.assert_allclose(voted.scores, [1 / 3])


def test_weights_count_in_a_vote():
    detectors = [found((*HERE, 0.5, SKIRT)), found((*NEARBY, 0.8, SHORTS)), found((*HERE, 0.5, SKIRT))]
    assert fused(detectors, label_policy="vote", weights=(1, 3, 1)).category_ids.tolist() == [SHORTS]


def test_equal_sums_go_to_the_better_scored_box_then_to_the_earlier_detector():
    detectors = [found((*HERE, 0.25, SHORTS)), found((*HERE, 0.5, SKIRT)), found((*HERE, 0.25, SHORTS))]
    assert fused(detectors, label_policy="vote").category_ids.tolist() == [SKIRT]
    one, two = found((*HERE, 0.5, SKIRT)), found((*HERE, 0.5, SHORTS))
    assert fused([one, two], label_policy="vote").category_ids.tolist() == [SKIRT]
    assert fused([two, one], label_policy="vote").category_ids.tolist() == [SHORTS]


def test_a_vote_without_dispute_is_apart():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 200, (60, 2))
    boxes = np.column_stack([corner, corner + rng.uniform(50, 200, (60, 2))])
    detectors = [
        Detections(rng.integers(1, 4, 60), boxes + rng.uniform(0, 20), rng.random(60), np.full(60, 5)) for _ in range(3)
    ]
    for apart, vote in zip(
        vars(fused(detectors)).values(), vars(fused(detectors, label_policy="vote")).values(), strict=True
    ):
        np.testing.assert_array_equal(apart, vote)


def test_vote_is_for_wbf_alone():
    with pytest.raises(ValidationError, match="label_policy 'vote' is for method 'wbf', not 'nms'"):
        FusionSettings(method="nms", label_policy="vote")
    with pytest.raises(ValidationError, match="'apart', 'best' or 'vote'"):
        FusionSettings(label_policy="both")


@pytest.mark.parametrize("policy", ["best", "vote"])
def test_no_box_and_no_score(policy):
    assert len(fused([found(), found()], label_policy=policy)) == 0
    assert len(fused([found((*HERE, 0.5, 1))], label_policy=policy, skip_threshold=0.6)) == 0
    assert len(fused([found((1, 7, 7, 7, 9, 0.5, 1))], label_policy=policy)) == 0
    assert len(fused([found((*HERE, 0.0, 1), (*HERE, 0.0, 2))], label_policy="vote")) == 0


def crowded(rng, num_detectors):
    """One detector's boxes after another, on a coarse grid with coarse scores: (unit box, score, category)."""
    lists = []
    for _ in range(num_detectors):
        count = int(rng.choice([0, 1, 4, 12, 40]))
        steps = int(rng.choice([4, 8, 1000]))
        corners = np.sort(rng.integers(0, steps + 1, (count, 2, 2)), axis=1).reshape(count, 4) / steps
        levels = int(rng.choice([2, 8, 10**6]))
        scores = rng.integers(0, levels + 1, count) / levels
        categories = rng.integers(1, int(rng.choice([2, 3, 14])), count)
        lists.append(list(zip(corners.tolist(), scores.tolist(), categories.tolist(), strict=True)))
    return lists


def plain_vote(lists, weights, iou_threshold, skip_threshold, conf_type):
    """The policy in words: rows as ensemble-boxes has them, [label, weighted score, weight, detector, box]."""
    rows = [
        [category, score * weights[detector], weights[detector], detector, *box]
        for detector, boxes in enumerate(lists)
        for box, score, category in boxes
        if score >= skip_threshold and score * weights[detector] > 0 and (box[2] - box[0]) * (box[3] - box[1]) > 0
    ]
    rows.sort(key=lambda row: -row[1])
    groups, shapes = [], np.empty((0, 8))
    for row in np.array(rows, float).reshape(-1, 8):
        blind = np.concatenate([[0], row[1:]])
        place = find_matching_box_fast(shapes, blind, iou_threshold)[0]
        if place < 0:
            groups.append([row])
            shapes = np.vstack([shapes, blind])
        else:
            groups[place].append(row)
            shapes[place] = np.concatenate([[0], get_weighted_box(groups[place], "avg")[1:]])
    results = []
    for group in groups:
        sums = {}
        for row in group:
            sums[int(row[0])] = sums.get(int(row[0]), 0.0) + row[1]
        winner = max(sums, key=sums.get)  # the first of equals, and a dictionary keeps the order of first boxes
        voters = np.array([row for row in group if row[0] == winner])
        box = voters[0] if len(voters) == 1 else get_weighted_box(voters, conf_type)
        score = float(box[1])
        present = [weights[int(m)] for m in np.unique(voters[:, 3])]
        if conf_type == "avg":
            score *= min(len(weights), len(voters)) / sum(weights)
        elif conf_type == "max":
            score /= max(weights)
        elif conf_type == "box_and_model_avg":
            score *= len(voters) / voters[:, 2].sum() * sum(present) / sum(weights)
        else:
            score *= len(voters) / (voters[:, 2].sum() + sum(weights) - sum(present))
        results.append((min(score, 1.0), winner, *(float(side) for side in box[4:])))
    return results


def plain_best(apart, label_iou):
    """By descending score; a box goes if one of another category that stays overlaps it by more."""
    kept = []
    for row in range(len(apart)):
        x1, y1, x2, y2 = apart.boxes_xyxy[row] / np.tile(SIZE, 2)
        for other in kept:
            a1, b1, a2, b2 = apart.boxes_xyxy[other] / np.tile(SIZE, 2)
            shared = max(min(x2, a2) - max(x1, a1), 0) * max(min(y2, b2) - max(y1, b1), 0)
            union = (x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - shared
            if apart.category_ids[row] != apart.category_ids[other] and shared > label_iou * union:
                break
        else:
            kept.append(row)
    return apart.take(np.array(kept, int))


def as_detectors(lists):
    return [
        found(*((3, *(np.array(box) * np.tile(SIZE, 2)), score, category) for box, score, category in boxes))
        for boxes in lists
    ]


def ordered(rows):
    """Rows that agree to six digits in one order, whatever their last bits."""
    return np.array(sorted(rows, key=lambda row: tuple(round(value, 5) for value in row)), float).reshape(-1, 6)


@pytest.mark.parametrize("seed", range(6))
def test_vote_as_a_plain_oracle_has_it(seed):
    rng = np.random.default_rng(seed)
    seen = set()
    for _ in range(60):
        lists = crowded(rng, int(rng.integers(1, 6)))
        weights = rng.choice([0.5, 1.0, 2.0], len(lists))
        chosen = {
            "iou_threshold": float(rng.choice([0.31, 0.52, 0.76])),  # no overlap of the grid
            "skip_threshold": float(rng.choice([0, 0.25])),
            "conf_type": str(rng.choice(CONF_TYPES)),
        }
        voted = fused(as_detectors(lists), label_policy="vote", weights=tuple(weights), **chosen)
        expected = plain_vote(lists, weights, **chosen)
        ours = [
            (score, category, *(box / np.tile(SIZE, 2)))
            for box, score, category in zip(voted.boxes_xyxy, voted.scores, voted.category_ids, strict=True)
        ]
        assert len(ours) == len(expected), chosen
        np.testing.assert_allclose(ordered(ours), ordered(expected), atol=2e-5, err_msg=str(chosen))
        seen |= {"disputed"} if len(fused(as_detectors(lists), **chosen)) > len(voted) else set()
    assert seen == {"disputed"}


@pytest.mark.parametrize("seed", range(6))
def test_best_as_a_plain_oracle_has_it(seed):
    rng = np.random.default_rng(100 + seed)
    num_gone = 0
    for _ in range(60):
        detectors = as_detectors(crowded(rng, int(rng.integers(1, 6))))
        chosen = {"iou_threshold": float(rng.choice([0.31, 0.52])), "conf_type": str(rng.choice(CONF_TYPES))}
        label_iou = float(rng.choice([0.0, 0.53, 0.81]))
        apart = fused(detectors, **chosen)
        expected = plain_best(apart, label_iou)
        ours = fused(detectors, label_policy="best", label_iou=label_iou, **chosen)
        for name in ("image_ids", "boxes_xyxy", "scores", "category_ids"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(expected, name))
        num_gone += len(apart) - len(ours)
    assert num_gone > 100


def test_one_photo_or_many_threads_or_one():
    rng = np.random.default_rng(9)
    photos = {photo: as_detectors(crowded(rng, 3)) for photo in (4, 2, 2**62 - 1)}
    moved = [
        Detections.concatenate(
            [
                Detections(np.full(len(one[m]), photo), one[m].boxes_xyxy, one[m].scores, one[m].category_ids)
                for photo, one in photos.items()
            ]
        )
        for m in range(3)
    ]
    for policy, threads in product(("best", "vote"), (1, 3)):
        all_of_them = fuse(moved, dict.fromkeys(photos, SIZE), FusionSettings(label_policy=policy), threads)
        for photo, alone in photos.items():
            ours = all_of_them.take(all_of_them.image_ids == photo)
            expected = fused(alone, label_policy=policy)
            np.testing.assert_array_equal(ours.boxes_xyxy, expected.boxes_xyxy)
            np.testing.assert_array_equal(ours.category_ids, expected.category_ids)
