"""Box fusion under input that is allowed and unlikely: hypothesis looks for what nobody thought of.

What weighted boxes fusion should make of it, ensemble-boxes says; what a split should be, its photos one by one.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from ensemble_boxes import weighted_boxes_fusion as original
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.detection.calibration import Isotonic, Temperature, fit_isotonic
from harness.detection.fusion import FusionSettings, fuse, weighted_boxes_fusion
from harness.types import Detections

CONF_TYPES = ("avg", "max", "box_and_model_avg", "absent_model_aware_avg")
TINY = 5e-324

coordinates = st.one_of(
    st.sampled_from([0.0, -0.0, TINY, 1e-200, 1e-30, 0.25, 0.5, 0.75, 1 - 2**-53, 1.0]), st.floats(0, 1)
)
scores = st.one_of(st.sampled_from([0.0, -0.0, TINY, 1e-310, 1e-40, 0.25, 0.5, 1.0]), st.floats(0, 1))
labels = st.one_of(st.integers(1, 2), st.integers(-(2**24), 2**24))  # longer ones that package rounds


@st.composite
def unit_boxes(draw):
    xs, ys = sorted(draw(st.tuples(coordinates, coordinates))), sorted(draw(st.tuples(coordinates, coordinates)))
    return [xs[0], ys[0], xs[1], ys[1]]


@st.composite
def photos(draw):
    """Lists of boxes, scores and labels, a detector each; boxes are drawn from a few, so that many are equal."""
    pool = draw(st.lists(unit_boxes(), min_size=1, max_size=6))
    rows = st.lists(st.tuples(st.sampled_from(pool), scores, labels), max_size=10)
    detectors = draw(st.lists(rows, min_size=1, max_size=5))
    return tuple([[row[column] for row in one] for one in detectors] for column in range(3))


def by_ensemble_boxes(lists, **options):
    """What it returns, but for groups that it divides by zero."""
    lists = [[np.reshape(part, (-1, 4)) for part in lists[0]], *lists[1:]]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        boxes, scores_, labels_ = original(*lists, **options)
    sound = np.isfinite(boxes).all(axis=1) & np.isfinite(scores_)
    return boxes[sound], scores_[sound], labels_[sound]


@settings(max_examples=600, deadline=None)
@given(
    photos(),
    st.data(),
    st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1)),
    scores,
    st.sampled_from(CONF_TYPES),
    st.booleans(),
)
def test_every_argument_beside_ensemble_boxes(lists, data, iou_thr, skip_box_thr, conf_type, allows_overflow):
    num_detectors = len(lists[0])
    weight = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 2.0, 1e-300]), st.floats(0, 1e6))
    weights = data.draw(st.one_of(st.none(), st.lists(weight, min_size=num_detectors, max_size=num_detectors)))
    if weights is not None and not any(weights):
        weights[0] = 1.0
    options = {
        "weights": weights,
        "iou_thr": iou_thr,
        "skip_box_thr": skip_box_thr,
        "conf_type": conf_type,
        "allows_overflow": allows_overflow,
    }
    expected = by_ensemble_boxes(lists, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = weighted_boxes_fusion(*lists, **options)
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_long_labels_stay_as_they_are():
    """ensemble-boxes rounds the label of a group to single precision."""
    label = 2**53 - 1
    lists = ([[[0, 0, 1, 1]]] * 2, [[0.5], [0.5]], [[label], [label]])
    assert weighted_boxes_fusion(*lists)[2].tolist() == [label]


def found(*rows):
    """Detections from rows of (image id, x1, y1, x2, y2, score, category)."""
    columns = [[row[0] for row in rows], [row[1:5] for row in rows], [row[5] for row in rows], [row[6] for row in rows]]
    kinds = (np.int64, np.float64, np.float64, np.int64)
    return Detections(*(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)))


SIZES = {1: (100, 200), 2: (50, 50), 2**62 - 1: (640, 480), 2**62: (1, 1)}
calibrations = st.sampled_from(
    [
        None,
        Temperature(temperature=2.0, bias=-1.0),
        Temperature(temperature=0.1),
        Isotonic(scores=(0, 1), rates=(0, 0.5)),
    ]
)


@st.composite
def splits(draw):
    """Detectors that list the boxes of four photos in any order; some photos have boxes of one detector or none."""
    row = st.tuples(st.sampled_from(list(SIZES)), unit_boxes(), scores, st.integers(1, 13))
    return draw(st.lists(st.lists(row, max_size=12), min_size=1, max_size=4))


@settings(max_examples=300, deadline=None)
@given(splits(), st.data(), st.sampled_from(CONF_TYPES), st.sampled_from([0.0, 0.3, 1.0]), st.integers(1, 3))
def test_a_split_is_its_photos_one_by_one(rows, data, conf_type, skip_threshold, num_threads):
    """Scores go through the calibrations first, and a detector of weight 0 is as if it were not there."""
    count = len(rows)
    weights = data.draw(st.lists(st.sampled_from([0.0, 0.5, 2.0]), min_size=count, max_size=count))
    if not any(weights):
        weights[-1] = 1.0
    maps = data.draw(st.lists(calibrations, min_size=count, max_size=count))
    detectors = [
        found(*((photo, *(np.array(box) * np.tile(SIZES[photo], 2)), score, label) for photo, box, score, label in one))
        for one in rows
    ]
    chosen = FusionSettings(weights=weights, calibrations=maps, skip_threshold=skip_threshold, conf_type=conf_type)
    fused = fuse(detectors, SIZES, chosen, num_threads)
    assert (np.diff(fused.image_ids) >= 0).all()
    kept = [m for m in range(count) if weights[m] > 0]
    for photo, size in SIZES.items():
        lists = [[], [], []]
        for m in kept:
            one = detectors[m].take(detectors[m].image_ids == photo)
            lists[0].append(np.clip(one.boxes_xyxy / np.tile(size, 2), 0, 1))
            lists[1].append(one.scores if maps[m] is None else maps[m].apply(one.scores))
            lists[2].append(one.category_ids)
        boxes, scores_, labels_ = weighted_boxes_fusion(
            *lists, weights=[weights[m] for m in kept], skip_box_thr=skip_threshold, conf_type=conf_type
        )
        order = np.lexsort((*boxes.T[::-1], labels_, -scores_))
        ours = fused.take(fused.image_ids == photo)
        np.testing.assert_array_equal(ours.boxes_xyxy, np.clip(boxes[order], 0, 1) * np.tile(size, 2))
        np.testing.assert_array_equal(ours.scores, np.minimum(scores_[order], 1))
        np.testing.assert_array_equal(ours.category_ids, labels_[order])


def test_thirteen_categories_in_one_place():
    boxes = [found(*((1, 10, 20, 60, 120, 0.9 - 0.05 * label, label) for label in range(1, 14))) for _ in range(3)]
    apart = fuse(boxes, SIZES, FusionSettings())
    assert apart.category_ids.tolist() == list(range(1, 14))
    np.testing.assert_allclose(apart.scores, 0.9 - 0.05 * np.arange(1, 14))
    for policy in ("best", "vote"):
        alone = fuse(boxes, SIZES, FusionSettings(label_policy=policy))
        assert alone.category_ids.tolist() == [1]
        np.testing.assert_allclose(alone.scores, [0.85])


@pytest.mark.parametrize("policy", ["apart", "best", "vote"])
@pytest.mark.parametrize("is_tied", [False, True])
def test_ten_thousand_copies_of_a_box(policy, is_tied):
    count = 10_000
    given_scores = np.full(count, 0.5) if is_tied else np.linspace(0.4, 0.6, count)
    boxes = np.tile([10.0, 20.0, 60.0, 120.0], (count, 1))
    categories = np.full(count, 4) if policy == "apart" else np.arange(count) % 13 + 1
    one = Detections(np.ones(count, int), boxes, given_scores, categories)
    fused = fuse([one], SIZES, FusionSettings(label_policy=policy))
    assert len(fused) == 1
    # Single precision adds up the coordinates of ten thousand boxes, as ensemble-boxes has it.
    np.testing.assert_allclose(fused.boxes_xyxy, boxes[:1], atol=0.1)
    np.testing.assert_allclose(fused.scores, 0.5, atol=1e-4)


@pytest.mark.parametrize("policy", ["apart", "best", "vote"])
def test_ten_thousand_boxes_of_one_photo_that_do_not_meet(policy):
    places = np.stack(np.meshgrid(np.arange(100), np.arange(100)), -1).reshape(-1, 2)
    boxes = np.concatenate([places, places + 0.9], axis=1)
    rng = np.random.default_rng(0)
    one = Detections(np.full(10_000, 1), boxes, rng.random(10_000), rng.integers(1, 14, 10_000))
    fused = fuse([one], {1: (100, 100)}, FusionSettings(label_policy=policy))
    order = np.argsort(-one.scores)
    np.testing.assert_allclose(fused.boxes_xyxy, boxes[order], atol=1e-9)
    np.testing.assert_array_equal(fused.category_ids, one.category_ids[order])


def test_calibration_decides_who_is_heard():
    sure, unsure = found((1, 10, 20, 60, 120, 0.9, 1)), found((1, 10, 20, 60, 120, 0.6, 2))
    modest = fit_isotonic(np.full(10, 0.9), np.arange(10) < 3)
    assert fuse([sure, unsure], SIZES, FusionSettings()).category_ids.tolist() == [1, 2]
    assert fuse([sure, unsure], SIZES, FusionSettings(calibrations=(modest, None))).category_ids.tolist() == [2, 1]
    # The skip threshold looks at the calibrated score, which is a little over 4 / 11.
    cut = FusionSettings(calibrations=(modest, None), skip_threshold=0.5)
    assert fuse([sure, unsure], SIZES, cut).category_ids.tolist() == [2]


def test_settings_of_before_load_and_mean_the_same():
    text = (
        '{"method":"wbf","iou_threshold":0.65,"skip_threshold":0.05,"conf_type":"avg","weights":[1.0,2.0],'
        '"max_per_image":20}'
    )
    loaded = FusionSettings.model_validate_json(text)
    assert (loaded.label_policy, loaded.calibrations) == ("apart", None)
    assert loaded == FusionSettings(iou_threshold=0.65, skip_threshold=0.05, weights=(1, 2), max_per_image=20)


def test_settings_with_calibrations_go_through_json():
    chosen = FusionSettings(
        weights=(1, 2),
        calibrations=(Temperature(temperature=1.5, bias=0.1), Isotonic(scores=(0, 0.5, 1), rates=(0, 0.1, 1))),
        label_policy="best",
        label_iou=0.7,
    )
    assert FusionSettings.model_validate_json(chosen.model_dump_json()) == chosen
    assert FusionSettings(**chosen.model_dump(mode="json")) == chosen


def test_what_does_not_fit_together_is_told():
    same = Temperature(temperature=1.0)
    with pytest.raises(ValidationError, match="one a detector of weights and calibrations, got 2 and 1"):
        FusionSettings(weights=(1, 1), calibrations=(same,))
    one = found((1, 10, 20, 60, 120, 0.9, 1))
    for maps in ((), (same, same)):
        with pytest.raises(ValueError, match=f"calibrations: expected one a detector, 1, got {len(maps)}"):
            fuse([one], SIZES, FusionSettings(calibrations=maps))
    with pytest.raises(ValueError, match="num_threads: expected at least 1, got 0"):
        fuse([one], SIZES, FusionSettings(), num_threads=0)
    for size in ((0, 0), (100, -1), (float("nan"), 5)):
        with pytest.raises(ValueError, match=r"sizes_wh: expected width and height above 0 for image id 1, got \["):
            fuse([one], {1: size}, FusionSettings())


@pytest.mark.parametrize("side", [(-1.5, 0, 20, 20), (0, -1.5, 20, 20), (0, 0, 51.5, 20), (0, 0, 20, 51.5)])
@pytest.mark.parametrize("place", [0, 2])
def test_a_box_that_sticks_out_is_named(side, place):
    """Wherever it is in the split, and whatever detectors without a say come before."""
    rows = [(2**62 - 1, 0, 0, 9, 9, 0.5, 1), (1, 0, 0, 9, 9, 0.5, 1)]
    rows.insert(place, (2, *side, 0.5, 1))
    unheard = found((2, 0, 0, 999, 999, 0.5, 1))
    chosen = FusionSettings(weights=(0, 1, 1))
    with pytest.raises(ValueError, match=f"detector 2: row {place}, image id 2: .*which is 50 x 50 pixels"):
        fuse([unheard, found((2, 0, 0, 9, 9, 0.5, 1)), found(*rows)], SIZES, chosen, num_threads=2)
