from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import pytest

from harness.detection.calibration import fit_isotonic, fit_temperature
from harness.detection.fusion import fuse
from harness.detection.fusion_study import WIDE, best_of_each_photo, fit_fusion
from harness.types import Detections, InputError

SIZES = dict.fromkeys(range(1, 13), (100, 100))
TRUTH = {image_id: np.array([10.0 + image_id, 20, 60 + image_id, 80]) for image_id in SIZES}


def guesses(seed, noise, miss=0.0):
    rng = np.random.default_rng(seed)
    rows = []
    for image_id, box in TRUTH.items():
        if rng.random() >= miss:
            moved = np.clip(box + rng.normal(0, noise, 4), 0, 100)
            corners = (*np.minimum(moved[:2], moved[2:]), *np.maximum(moved[:2], moved[2:]))
            rows.append((image_id, *corners, rng.uniform(0.5, 0.9), 1))
        rows.append((image_id, 0, 0, 8, 8, rng.uniform(0.05, 0.3), 1))
    table = np.array(rows)
    return Detections(table[:, 0].astype(int), table[:, 1:5], table[:, 5], table[:, 6].astype(int))


def agreement(detections):
    """Mean IoU of each photo's best box with its truth."""
    total = 0.0
    for image_id, truth in TRUTH.items():
        one = detections.take(detections.image_ids == image_id)
        if len(one):
            box = one.boxes_xyxy[np.argmax(one.scores)]
            inner = np.maximum(np.minimum(box[2:], truth[2:]) - np.maximum(box[:2], truth[:2]), 0).prod()
            total += inner / ((box[2:] - box[:2]).prod() + (truth[2:] - truth[:2]).prod() - inner)
    return total / len(TRUTH)


def test_fusion_of_comparable_detectors_beats_the_best():
    members = [guesses(seed, 4.0) for seed in range(3)]
    fitted = fit_fusion(members, SIZES, agreement, seed=0, num_trials=8)
    assert fitted.num_trials == 8
    assert fitted.member_values == pytest.approx([agreement(one) for one in members])
    assert fitted.value > max(fitted.member_values)
    assert agreement(fuse(members, SIZES, fitted.settings)) == pytest.approx(fitted.value)


def test_the_wide_search_reaches_everything(monkeypatch):
    members = [guesses(seed, 4.0) for seed in range(3)]
    hits = [one.boxes_xyxy[:, 2] > 10 for one in members]
    calibrations = {
        "temperature": [fit_temperature(one.scores, hit) for one, hit in zip(members, hits, strict=True)],
        "isotonic": [fit_isotonic(one.scores, hit) for one, hit in zip(members, hits, strict=True)],
    }
    tried = []

    def remembering(detections, sizes_wh, settings):
        tried.append(settings)
        return fuse(detections, sizes_wh, settings)

    monkeypatch.setattr("harness.detection.fusion_study.fuse", remembering)
    fitted = fit_fusion(
        members, SIZES, agreement, seed=0, num_trials=40, space=WIDE, calibrations=calibrations, max_per_image=3
    )
    assert len(tried) == 40
    assert fitted.settings in tried
    assert fitted.value == pytest.approx(agreement(fuse(members, SIZES, fitted.settings)))
    assert fitted.value >= max(fitted.member_values) - 1e-9
    assert {settings.label_policy for settings in tried} == {"apart", "best", "vote"}
    assert {settings.max_per_image for settings in tried} == {3}
    kinds = {None if one.calibrations is None else one.calibrations[0].kind for one in tried}
    assert kinds == {None, "temperature", "isotonic"}
    assert {sum(weight > 0 for weight in one.weights) for one in tried} == {1, 2, 3}
    # Free weights leave out others than the weakest.
    weakest = int(np.argmin(fitted.member_values))
    assert any(one.weights[weakest] > 0 and 0 in one.weights for one in tried)


def test_a_hopeless_partner_is_left_out():
    members = [guesses(0, 0.5), guesses(1, 40.0), guesses(2, 40.0)]
    fitted = fit_fusion(members, SIZES, agreement, seed=0, num_trials=6)
    assert fitted.value >= max(fitted.member_values) - 1e-3


def test_the_same_seed_finds_the_same_even_when_interrupted(tmp_path):
    members = [guesses(seed, 5.0, miss=0.2) for seed in range(3)]
    whole = fit_fusion(members, SIZES, agreement, seed=4, num_trials=14)

    calls = 0

    def dies(detections):
        nonlocal calls
        calls += 1
        if calls == 3 + 12:  # three members first, then trials
            raise KeyboardInterrupt
        return agreement(detections)

    storage = tmp_path / "deep" / "study.db"
    with pytest.raises(KeyboardInterrupt):
        fit_fusion(members, SIZES, dies, seed=4, num_trials=14, storage=storage)
    told = []
    resumed = fit_fusion(
        members, SIZES, agreement, seed=4, num_trials=14, storage=storage, progress=lambda *now: told.append(now)
    )
    assert told == [(12, 14), (13, 14), (14, 14)]
    assert resumed == whole
    again = fit_fusion(members, SIZES, agreement, seed=4, num_trials=14, storage=storage)
    assert again == whole


def test_a_file_of_another_study_is_refused(tmp_path):
    storage = tmp_path / "study.db"
    fit_fusion([guesses(0, 1.0)], SIZES, agreement, seed=0, num_trials=1, storage=storage)
    with pytest.raises(InputError, match=r"study\.db: holds a search over other boxes"):
        fit_fusion([guesses(1, 1.0)], SIZES, agreement, seed=0, num_trials=1, storage=storage)


@pytest.mark.parametrize("damage", ["rubbish", "truncated", "other"])
def test_a_damaged_file_of_a_study_is_named(damage, tmp_path):
    storage = tmp_path / "study.db"
    if damage == "truncated":
        fit_fusion([guesses(0, 1.0)], SIZES, agreement, seed=0, num_trials=2, storage=storage)
        storage.write_bytes(storage.read_bytes()[:6000])
    elif damage == "other":
        with sqlite3.connect(storage) as other:
            other.execute("CREATE TABLE studies (name TEXT)")
    else:
        storage.write_text("no database")
    with pytest.raises(InputError, match=r"study\.db: the search's file cannot be used \(.*remove the file"):
        fit_fusion([guesses(0, 1.0)], SIZES, agreement, seed=0, num_trials=3, storage=storage)


def test_a_second_search_in_the_same_file_waits_for_the_first(tmp_path):
    # It took the first one's trial for one that a killed search had left, and both broke off.
    members, storage = [guesses(seed, 4.0) for seed in range(2)], tmp_path / "study.db"

    def search(objective):
        return fit_fusion(members, SIZES, objective, seed=0, num_trials=3, storage=storage)

    with ThreadPoolExecutor(1) as other:
        second = []

        def during(detections):
            if not second and storage.exists():
                second.append(other.submit(search, agreement))
                wait(second, timeout=1)
            return agreement(detections)

        assert search(during) == second[0].result()


def test_nothing_to_fit():
    with pytest.raises(ValueError, match="expected detectors and trials"):
        fit_fusion([], SIZES, agreement, seed=0)
    with pytest.raises(ValueError, match="expected detectors and trials"):
        fit_fusion([guesses(0, 1.0)], SIZES, agreement, seed=0, num_trials=0)


def test_best_of_each_photo():
    ids, scores = [2, 1, 2, 2, 1], [0.1, 0.4, 0.9, 0.9, 0.5]
    boxes = Detections(np.array(ids), np.tile([0.0, 0, 1, 1], (5, 1)), np.array(scores), np.ones(5, int))
    kept = best_of_each_photo(boxes, 1)
    assert kept.image_ids.tolist() == [2, 1]
    assert kept.scores.tolist() == [0.9, 0.5]
    assert len(best_of_each_photo(Detections.empty(), 3)) == 0
