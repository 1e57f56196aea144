"""What is collected from parts that share identities, and from those that do not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.data.garments import Garments
from harness.retrieval.training_crops import collect
from harness.training.cards import TrainedOn
from harness.types import InputError


def part(name, identities, *, shared=False):
    count = len(identities)
    return Garments(
        source=name,
        photos=[Path(f"{name}{row}.jpg") for row in range(count)],
        photo_rows=np.arange(count),
        boxes_xyxy=np.full((count, 4), np.nan),
        identities=np.array(identities, dtype=np.int64),
        is_consumer=np.zeros(count, bool),
        record=TrainedOn(fingerprint=name, split=name, num_photos=count, image_ids_sha256="", rendered=True),
        shares_identities=shared,
    )


def labels(parts):
    crops = collect(parts)
    names = [crops.photos[row].stem for row in crops.photo_rows.tolist()]
    return dict(zip(names, crops.labels.tolist(), strict=True))


def test_equal_numbers_of_different_parts_are_different_items():
    assert labels([part("a", [0, 0, 3, 3, -1, 2]), part("b", [0, 3, 0])]) == {
        "a0": 0, "a1": 0, "a2": 1, "a3": 1, "b0": 2, "b2": 2,
    }  # fmt: skip


def test_equal_numbers_of_sharing_parts_are_one_item():
    parts = [part("a", [5, 5, 7], shared=True), part("b", [7, 5, 9, -1], shared=True)]
    assert labels(parts) == {"a0": 0, "a1": 0, "b1": 0, "a2": 1, "b0": 1}


def test_parts_of_both_kinds_do_not_meet():
    parts = [part("a", [0, 0]), part("b", [0, 1], shared=True), part("c", [1, 0, 0], shared=True)]
    assert labels(parts) == {"b0": 0, "c1": 0, "c2": 0, "b1": 1, "c0": 1, "a0": 2, "a1": 2}


def test_too_few_are_refused_and_empty_parts_are_nothing():
    with pytest.raises(InputError, match="only 0 garment identities"):
        collect([part("a", []), part("b", [-1, 3], shared=True)])
    with pytest.raises(InputError, match="only 1 garment identities"):
        collect([part("a", [1, 1])])
    assert labels([part("a", []), part("b", [1, 1, 2, 2])]) == {"b0": 0, "b1": 0, "b2": 1, "b3": 1}
    assert replace(part("a", [1]), shares_identities=True).take([0]).shares_identities
