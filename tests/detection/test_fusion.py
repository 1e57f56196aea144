from __future__ import annotations

import warnings

import numpy as np
import pytest
from ensemble_boxes import weighted_boxes_fusion as original
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.detection.fusion import FusionSettings, fuse, keep_best, weighted_boxes_fusion
from harness.types import Detections

CONF_TYPES = ("avg", "max", "box_and_model_avg", "absent_model_aware_avg")


def test_two_detectors_average_by_score():
    boxes, scores, labels = weighted_boxes_fusion(
        [[[0.0, 0.0, 0.5, 0.5]], [[0.1, 0.0, 0.6, 0.5]]], [[0.9], [0.3]], [[2], [2]], iou_thr=0.5
    )
    # x: (0.9 * 0 + 0.3 * 0.1) / 1.2 = 0.025; score: mean of 0.9 and 0.3
    np.testing.assert_allclose(boxes, [[0.025, 0, 0.525, 0.5]], atol=1e-6)
    np.testing.assert_allclose(scores, [0.6])
    assert labels.tolist() == [2]


def test_a_box_that_one_of_five_sees_loses_four_fifths():
    boxes, scores, _ = weighted_boxes_fusion(
        [[[0.1, 0.1, 0.5, 0.5]], [], [], [], []], [[0.9], [], [], [], []], [[1], [], [], [], []]
    )
    assert len(boxes) == 1
    assert scores.tolist() == pytest.approx([0.18])


def test_labels_are_never_mixed():
    boxes, _, labels = weighted_boxes_fusion([[[0, 0, 1, 1]], [[0, 0, 1, 1]]], [[0.5], [0.6]], [[1], [2]])
    assert len(boxes) == 2
    assert labels.tolist() == [2, 1]


def random_input(seed, num_detectors, most):
    rng = np.random.default_rng(seed)
    lists = []
    for _ in range(num_detectors):
        count = int(rng.integers(0, most + 1))
        centres, half = rng.uniform(0.3, 0.7, (count, 2)), rng.uniform(0.05, 0.3, (count, 2))
        boxes = np.concatenate([centres - half, centres + half], axis=1)
        lists.append((boxes, rng.uniform(0.01, 1, count), rng.integers(1, 4, count)))
    return tuple(list(part) for part in zip(*lists, strict=True))


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 5),
    st.integers(0, 12),
    st.sampled_from(CONF_TYPES),
    st.booleans(),
    st.booleans(),
    st.floats(0.1, 0.9),
)
def test_same_results_as_ensemble_boxes(seed, num_detectors, most, conf_type, overflow, weighted, iou_thr):
    given_lists = random_input(seed, num_detectors, most)
    weights = list(np.random.default_rng(seed).uniform(0.5, 3, num_detectors)) if weighted else None
    options = {"iou_thr": iou_thr, "skip_box_thr": 0.05, "conf_type": conf_type, "allows_overflow": overflow}
    expected = original(*given_lists, weights=weights, **options)
    for ours, theirs in zip(weighted_boxes_fusion(*given_lists, weights=weights, **options), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_nothing_in_nothing_out():
    for lists in (([], [], []), ([[]], [[]], [[]]), ([np.zeros((0, 4))] * 2, [[], []], [[], []])):
        boxes, scores, labels = weighted_boxes_fusion(*lists)
        assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))


def test_boxes_without_area_or_without_any_score_are_left_out():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flat = weighted_boxes_fusion([[[0.1, 0.1, 0.1, 0.5]]], [[0.5]], [[1]])
        void = weighted_boxes_fusion([[[0.1, 0.1, 0.4, 0.5]] * 2], [[0.0, 0.0]], [[1, 1]])
    assert len(flat[0]) == len(void[0]) == 0


GOOD = [[0.1, 0.1, 0.4, 0.4]]


@pytest.mark.parametrize(
    ("boxes", "scores", "labels", "more", "message"),
    [
        ([GOOD, [*GOOD, [10, 10, 40, 40]]], [[0.5], [0.5, 0.5]], [[1], [1, 1]], {}, r"detector 1: box 1 .*\[0, 1\]"),
        ([[[0.4, 0.1, 0.1, 0.4]]], [[0.5]], [[1]], {}, "detector 0: box 0 is inverted"),
        ([[[0.1, np.nan, 0.4, 0.4]]], [[0.5]], [[1]], {}, "box 0 is not finite"),
        ([GOOD], [[1.5]], [[1]], {}, "box 0 has a score outside"),
        ([GOOD], [[np.nan]], [[1]], {}, "box 0 has a score outside"),
        ([GOOD], [[0.5]], [[1.5]], {}, "box 0 has a label that is no whole number"),
        ([GOOD], [[0.5, 0.6]], [[1]], {}, "detector 0: expected 1 scores"),
        ([GOOD], [[0.5]], [[1, 2]], {}, "detector 0: expected 1 labels"),
        ([[[0.1, 0.2, 0.3]]], [[0.5]], [[1]], {}, r"expected boxes of shape \(N, 4\)"),
        ([GOOD], [[0.5], [0.5]], [[1]], {}, "one list a detector"),
        ([GOOD], [[0.5]], [[1]], {"weights": [1, 2]}, "weights: expected one a detector, 1, got 2"),
        ([GOOD], [[0.5]], [[1]], {"weights": [-1]}, "weights: that of detector 0"),
        ([GOOD], [[0.5]], [[1]], {"weights": [0]}, "at least one"),
        ([GOOD], [[0.5]], [[1]], {"conf_type": "mean"}, "conf_type 'mean': expected one of avg, max"),
        ([GOOD], [[0.5]], [[1]], {"iou_thr": 1.5}, "iou_thr"),
        ([GOOD], [[0.5]], [[1]], {"skip_box_thr": -0.5}, "skip_box_thr"),
    ],
)
def test_bad_input_is_told(boxes, scores, labels, more, message):
    with pytest.raises(ValueError, match=message):
        weighted_boxes_fusion(boxes, scores, labels, **more)


def found(*rows):
    """Detections from rows of (image id, x1, y1, x2, y2, score, category)."""
    table = np.array(rows, float).reshape(-1, 7)
    return Detections(table[:, 0].astype(int), table[:, 1:5], table[:, 5], table[:, 6].astype(int))


SIZES = {1: (100, 200), 2: (50, 50)}


def test_fuse_works_photo_by_photo_in_pixels():
    one = found((2, 0, 0, 20, 20, 0.8, 3), (1, 10, 20, 60, 120, 0.6, 1))
    two = found((1, 10, 20, 60, 120, 0.4, 1))
    fused = fuse([one, two], SIZES, FusionSettings())
    assert fused.image_ids.tolist() == [1, 2]
    np.testing.assert_allclose(fused.boxes_xyxy, [[10, 20, 60, 120], [0, 0, 20, 20]], atol=1e-4)
    np.testing.assert_allclose(fused.scores, [0.5, 0.4])
    assert fused.category_ids.tolist() == [1, 3]


def test_a_detector_of_weight_0_takes_no_part():
    one, two = found((1, 10, 20, 60, 120, 0.6, 1)), found((1, 0, 0, 9, 9, 0.9, 2), (2, 0, 0, 9, 9, 0.9, 2))
    fused = fuse([one, two], SIZES, FusionSettings(weights=(2.0, 0.0)))
    np.testing.assert_allclose(fused.scores, [0.6])
    assert fused.image_ids.tolist() == [1]


def test_fuse_keeps_the_best_of_each_photo():
    one = found((1, 0, 0, 20, 20, 0.3, 1), (1, 40, 40, 90, 90, 0.7, 1), (2, 0, 0, 9, 9, 0.2, 1))
    fused = fuse([one], SIZES, FusionSettings(max_per_image=1))
    assert fused.image_ids.tolist() == [1, 2]
    np.testing.assert_allclose(fused.scores, [0.7, 0.2])


def test_fuse_of_nothing():
    assert len(fuse([found(), found()], {}, FusionSettings())) == 0
    assert len(fuse([], {}, FusionSettings())) == 0
    assert len(fuse([found((1, 0, 0, 9, 9, 0.1, 1))], SIZES, FusionSettings(skip_threshold=0.5))) == 0


def test_fuse_says_what_is_wrong():
    with pytest.raises(ValueError, match="no size for image id 7, where detector 1"):
        fuse([found(), found((7, 0, 0, 1, 1, 0.5, 1))], SIZES, FusionSettings())
    with pytest.raises(ValueError, match=r"detector 0: row 0, image id 2: .*50 x 50 pixels"):
        fuse([found((2, 0, 0, 60, 20, 0.5, 1))], SIZES, FusionSettings())
    with pytest.raises(ValueError, match="expected one a detector, 2, got 1"):
        fuse([found(), found()], SIZES, FusionSettings(weights=(1.0,)))


def test_a_box_that_sticks_out_by_rounding_is_cut():
    fused = fuse([found((2, -0.4, 0, 50.6, 20, 0.5, 1))], SIZES, FusionSettings())
    np.testing.assert_allclose(fused.boxes_xyxy, [[0, 0, 50, 20]])


@pytest.mark.parametrize("wrong", [{"weights": (0.0, 0.0)}, {"iou_threshold": 2}, {"conf_type": "x"}, {"unknown": 1}])
def test_settings_are_checked(wrong):
    with pytest.raises(ValidationError):
        FusionSettings(**wrong)


def test_keep_best_breaks_ties_by_image_id_then_row():
    boxes = found((5, 0, 0, 1, 1, 0.5, 1), (3, 0, 0, 1, 1, 0.5, 1), (3, 0, 0, 2, 2, 0.5, 1), (9, 0, 0, 1, 1, 0.9, 1))
    assert keep_best(boxes, 2).image_ids.tolist() == [3, 9]
    kept = keep_best(boxes, 3)
    assert kept.image_ids.tolist() == [3, 3, 9]
    assert len(keep_best(boxes, 99)) == 4
    assert len(keep_best(boxes, 0)) == 0
    assert len(keep_best(Detections.empty(), 3)) == 0
    with pytest.raises(ValueError, match="budget"):
        keep_best(boxes, -1)
