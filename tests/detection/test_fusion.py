from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest
from ensemble_boxes import nms, non_maximum_weighted, soft_nms
from ensemble_boxes import weighted_boxes_fusion as original
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.detection.fusion import FusionSettings, fuse, weighted_boxes_fusion
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


def crowded_input(rng, num_detectors):
    """Boxes on a coarse grid with coarse scores: equal overlaps, equal scores, score 0, no area, one label for many."""
    lists = []
    for _ in range(num_detectors):
        count = int(rng.choice([0, 1, 3, 12, 40, 90]))
        steps = int(rng.choice([4, 8, 1000]))
        corners = np.sort(rng.integers(0, steps + 1, (count, 2, 2)), axis=1).reshape(count, 4) / steps
        levels = int(rng.choice([2, 5, 100, 10**9]))
        scores = rng.integers(0, levels + 1, count) / levels
        lists.append((corners, scores, rng.integers(0, int(rng.choice([1, 2, 13])), count)))
    return tuple(list(part) for part in zip(*lists, strict=True))


def by_ensemble_boxes(lists, **options):
    """What it returns but for groups that it divides by zero."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        boxes, scores, labels = original(*lists, **options)
    sound = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
    return boxes[sound], scores[sound], labels[sound]


@pytest.mark.parametrize("seed", range(20))
def test_same_results_as_ensemble_boxes_on_thousands_of_crowded_photos(seed):
    """2,000 photos; every argument varied. Equal to the last bit, order included."""
    rng = np.random.default_rng(seed)
    seen = set()
    for _ in range(100):
        num_detectors = int(rng.integers(1, 7))
        lists = crowded_input(rng, num_detectors)
        weights = None
        if rng.random() < 0.6:
            weights = rng.choice([0.0, 0.5, 1.0, 2.0, 3.7], num_detectors)
            weights[int(rng.integers(num_detectors))] = 1.5
        options = {
            "weights": weights,
            "iou_thr": float(rng.choice([0, 0.3, 0.5, 0.55, 0.75, 1])),
            "skip_box_thr": float(rng.choice([0, 0, 0.2, 0.5])),
            "conf_type": str(rng.choice(CONF_TYPES)),
            "allows_overflow": bool(rng.random() < 0.5),
        }
        expected = by_ensemble_boxes(lists, **options)
        for ours, theirs in zip(weighted_boxes_fusion(*lists, **options), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=str(options))
        scores = np.concatenate(lists[1])
        seen |= {name for name, is_so in {
            "equal scores": len(np.unique(scores)) < len(scores),
            "score 0": (scores == 0).any(),
            "nothing": len(scores) == 0,
            "many": len(scores) > 200,
            "overflow": len(expected[1]) > 0 and expected[1].max() > 1,
            "weight 0": weights is not None and (weights == 0).any(),
        }.items() if is_so}  # fmt: skip
    assert seen >= {"equal scores", "score 0", "many", "weight 0"}


@pytest.mark.parametrize("num_threads", [1, 3])
def test_a_whole_split_is_fused_as_its_photos_one_by_one(num_threads):
    rng = np.random.default_rng(5)
    photos = {photo: crowded_input(rng, 3) for photo in (9, 2, 40, 41, 7)}
    size = (640, 480)
    settings_ = FusionSettings(iou_threshold=0.5, skip_threshold=0.05, weights=(1, 2, 0.5), conf_type="max")
    detections = []
    for detector in range(3):
        rows = [
            (photo, *(box * np.tile(size, 2)), score, label + 1)
            for photo, lists in photos.items()
            for box, score, label in zip(*(part[detector] for part in lists), strict=True)
        ]
        shuffled = sorted(rows, key=lambda row: row[0] % 5)  # a detector's photos may come in any order
        detections.append(found(*shuffled))
    fused = fuse(detections, dict.fromkeys(photos, size), settings_, num_threads=num_threads)
    assert fused.image_ids.tolist() == sorted(fused.image_ids.tolist())
    for photo, lists in photos.items():
        boxes, scores, labels = weighted_boxes_fusion(
            *lists, weights=(1, 2, 0.5), iou_thr=0.5, skip_box_thr=0.05, conf_type="max"
        )
        boxes = boxes * np.tile(size, 2)
        order = np.lexsort((*boxes.T[::-1], labels, -scores))
        ours = fused.take(fused.image_ids == photo)
        np.testing.assert_allclose(ours.boxes_xyxy, boxes[order], atol=1e-3)
        np.testing.assert_allclose(ours.scores, np.minimum(scores[order], 1), atol=1e-12)
        np.testing.assert_array_equal(ours.category_ids, labels[order] + 1)


@pytest.mark.parametrize("weights", [None, (1.0, 2.0)])
@pytest.mark.parametrize(("method", "function"), [("nms", nms), ("soft_nms", soft_nms), ("nmw", non_maximum_weighted)])
def test_the_other_methods_are_those_of_ensemble_boxes(capsys, method, function, weights):
    """Boxes without area, a photo where all scores are too low, and one that the second detector finds nothing in."""
    size = (100, 50)
    one = found(
        (1, 10, 10, 50, 40, 0.9, 2), (1, 12, 10, 50, 40, 0.7, 2), (1, 60, 5, 90, 30, 0.5, 3), (1, 7, 7, 7, 20, 0.8, 2),
        (2, 10, 10, 50, 40, 0.9, 2), (3, 10, 10, 50, 40, 0.01, 2),
    )  # fmt: skip
    two = found((1, 11, 10, 52, 41, 0.8, 2), (1, 61, 5, 90, 33, 0.6, 3), (3, 1, 1, 50, 40, 0.02, 2))
    settings_ = FusionSettings(method=method, iou_threshold=0.5, skip_threshold=0.05, weights=weights)
    fused = fuse([one, two], dict.fromkeys((1, 2, 3), size), settings_)
    assert set(fused.image_ids.tolist()) == {1, 2}
    for photo in (1, 2):
        lists = [[], [], []]
        for part in (one, two):
            kept = part.take((part.image_ids == photo) & (part.scores >= 0.05) & (part.boxes_xyxy[:, 0] != 7))
            for column, values in zip(
                lists, (kept.boxes_xyxy / np.tile(size, 2), kept.scores, kept.category_ids), strict=True
            ):
                column.append(values)
        boxes, scores, labels = function(*lists, iou_thr=0.5, weights=weights)
        order = np.argsort(-scores)
        ours = fused.take(fused.image_ids == photo)
        np.testing.assert_allclose(ours.boxes_xyxy, boxes[order] * np.tile(size, 2), atol=1e-4)
        np.testing.assert_allclose(ours.scores, scores[order])
        np.testing.assert_array_equal(ours.category_ids, labels[order])
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_memory_grows_with_the_boxes_and_no_faster():
    """A label that all boxes share is where a table of all pairs would grow with the square."""
    rng = np.random.default_rng(0)
    peaks = []
    for num_photos in (100, 400):
        count = num_photos * 500
        corner = rng.uniform(0, 300, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(10, 200, (count, 2))], axis=1)
        one = Detections(np.repeat(np.arange(num_photos), 500), boxes, rng.random(count), np.ones(count, int))
        sizes = dict.fromkeys(range(num_photos), (500, 500))
        fuse([one], sizes, FusionSettings(), num_threads=2)
        tracemalloc.start()
        fuse([one], sizes, FusionSettings(), num_threads=2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 4.2 * peaks[0]


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
