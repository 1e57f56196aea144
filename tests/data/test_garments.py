"""Garments to learn from, as columns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.data.deepfashion2 import read_split
from harness.data.garments import Garments, SourceCounts, count_sources, garments_of, identity_labels
from harness.data.rendered import RenderSettings, render
from harness.training.cards import TrainedOn
from harness.types import InputError, Items

RECORD = TrainedOn(fingerprint="f", split="Mine", num_photos=2, image_ids_sha256="s", rendered=False)


def garments(**more):
    columns = {
        "source": "Mine",
        "photos": (Path("a.jpg"), Path("b.jpg")),
        "photo_rows": np.array([1, 0, 1]),
        "boxes_xyxy": np.array([[0.0, 0, 9, 9], [np.nan] * 4, [1, 1, 2, 2]]),
        "identities": np.array([0, -1, 0]),
        "is_consumer": np.array([True, False, False]),
        "record": RECORD,
    }
    return Garments(**columns | more)


def items(pairs, styles):
    count = len(pairs)
    ones = np.ones(count, np.int64)
    return Items(
        np.arange(count), ones, np.zeros(count, bool), np.tile([0.0, 0, 9, 9], (count, 1)), ones,
        np.array(styles, np.int64), np.array(pairs, np.int64), ones, ones, ones, ones,
    )  # fmt: skip


def test_an_identity_is_a_pair_with_a_style_above_zero():
    labels = identity_labels(items([7, 7, 3, 7, 7, 3], [1, 2, 1, 0, 1, 1]))
    assert labels.tolist() == [1, 2, 0, -1, 1, 0]


def test_no_items_have_no_identities():
    assert identity_labels(items([], [])).tolist() == []
    assert identity_labels(items([4], [0])).tolist() == [-1]


def test_rows_are_taken_and_photos_stay():
    some = garments().take([2, 1])
    assert some.photo_rows.tolist() == [1, 0]
    assert some.identities.tolist() == [0, -1]
    assert len(some) == 2
    assert len(some.photos) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"identities": np.array([0, 1])}, "columns of 3 garments"),
        ({"photo_rows": np.array([0, 1, 2])}, "outside the 2 photos"),
        ({"identities": np.array([0, -2, 0])}, "at least -1"),
        ({"boxes_xyxy": np.array([[0.0, 0, 9, np.nan]] * 3)}, "four NaN for the whole photo"),
    ],
)
def test_wrong_columns_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        garments(**wrong)


@pytest.fixture
def rendered_split(tmp_path):
    render(tmp_path / "data", RenderSettings(num_train=8, num_validation=2, num_test=2), workers=1)
    return read_split(tmp_path / "data", "train")


def test_the_garments_of_a_split(rendered_split):
    ids = rendered_split.photos.image_ids[:3]
    found = garments_of(rendered_split, ids[::-1])
    rows = np.isin(rendered_split.items.image_ids, ids)
    assert found.source == "DeepFashion2/train"
    assert found.boxes_xyxy.tolist() == rendered_split.items.boxes_xyxy[rows].tolist()
    assert [found.photos[row].stem for row in found.photo_rows] == [
        f"{image_id:06d}" for image_id in rendered_split.items.image_ids[rows]
    ]
    assert found.record == TrainedOn.of(rendered_split, ids)
    with pytest.raises(InputError, match="no photo 999999"):
        garments_of(rendered_split, np.array([1, 999999]))
    with pytest.raises(InputError, match="has no annotations"):
        garments_of(replace(rendered_split, items=None), ids)


def test_splits_of_a_data_set_are_added_up():
    drawn = RECORD.model_copy(update={"num_photos": 5, "rendered": True})
    counts = count_sources(
        [
            garments(identities=np.array([-1, -1, 3])),
            garments(source="DeepFashion2/train", identities=np.array([0, 4, 4])),
            garments(source="DeepFashion2/validation", record=drawn),
        ]
    )
    assert counts == {"Mine": SourceCounts(1, 2, False), "DeepFashion2": SourceCounts(3, 7, True)}
    assert count_sources([]) == {}
