"""Boxes that annotators leave by mistake must neither end a training nor turn its weights into NaN."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.data.deepfashion2 import read_split
from harness.detection.card import DetectorPlan
from harness.detection.dataset import DetectionDataset, photos_with_items
from harness.detection.recipes import load_recipes
from harness.detection.training import fresh_network, train
from harness.types import InputError

ODD = [
    [10.0, 10, 11, 11],
    [0, 0, 0.4, 0.4],
    [60, 20, 60, 80],
    [-40, -40, 1, 1],
    [900, 900, 990, 990],
    [-9, -9, 999, 999],
]


@pytest.mark.parametrize("name", list(load_recipes()))
@pytest.mark.parametrize("with_transforms", [False, True])
def test_losses_and_gradients_stay_finite(name, with_transforms, split):
    """Six photos: one of each kind of box alone; what cannot be learnt is replaced, what is tiny is learnt."""
    recipe = load_recipes()[name]
    transforms = ({"type": "Resize", "scale": [96, 96], "keep_ratio": True},) if with_transforms else None
    recipe = recipe.model_copy(update={"tiny": recipe.tiny.model_copy(update={"transforms": transforms})})
    rows = [int(np.searchsorted(split.items.image_ids, image_id)) for image_id in range(1, 7)]
    odd = replace(split, items=replace(split.items.take(rows), boxes_xyxy=np.array(ODD)))
    shown = photos_with_items(odd, np.arange(1, 7))
    assert shown.tolist() == [1, 2, 4, 5, 6]
    network = fresh_network(DetectorPlan.of(recipe, "tiny", odd, shown, 0, 1), None).train()
    dataset = DetectionDataset(odd, shown, recipe.tiny, 0, network.padding_rgb, network.learns_masks)
    for rows_shown in ([0], [1], [2], range(5)):
        batch = dataset.collate([dataset[(0, row)] for row in rows_shown])
        network.zero_grad()
        losses = network.losses(batch.photos_BHW3, batch.targets)
        assert all(torch.isfinite(value) for value in losses.values()), losses
        torch.stack(list(losses.values())).sum().backward()
        slopes = [one.grad for one in network.parameters() if one.grad is not None]
        assert slopes
        assert all(torch.isfinite(slope).all() for slope in slopes)


def test_crops_of_odd_boxes_can_be_cut(split):
    from harness.detection.pretraining import Crops

    rows = [int(np.searchsorted(split.items.image_ids, image_id)) for image_id in range(1, 7)]
    odd = replace(split, items=replace(split.items.take(rows), boxes_xyxy=np.array(ODD)))
    crops = Crops(odd, np.arange(1, 7), 64, 0, (0, 0, 0))
    assert len(crops) == 5  # not the one without width
    assert crops[(0, 0)][0].shape == (64, 64, 3)


def test_a_training_goes_on_after_a_broken_photo_is_replaced(tmp_path, split):
    from drawn_photos import write_photos

    write_photos(tmp_path, "train", 6)
    broken = tmp_path / "train" / "image" / "000004.jpg"
    whole = broken.read_bytes()
    recipe = load_recipes()["ATSS"]
    tiny = recipe.tiny.model_copy(
        update={"batch_size": 2, "num_steps": 6, "pretraining": None, "keep_photos_in_memory": False}
    )
    recipe = recipe.model_copy(update={"tiny": tiny})
    photos = read_split(tmp_path, "train")
    broken.write_bytes(whole[: len(whole) // 2].ljust(len(whole), b"\0"))  # same size: the same data to the reader
    with pytest.raises(InputError, match=r"000004\.jpg"):
        train(recipe, "tiny", photos, photos.photos.image_ids, tmp_path / "model", seed=2, checkpoint_every=1)
    broken.write_bytes(whole)
    card = train(recipe, "tiny", photos, photos.photos.image_ids, tmp_path / "model", seed=2, checkpoint_every=1)
    straight = train(recipe, "tiny", photos, photos.photos.image_ids, tmp_path / "straight", seed=2)
    assert card.weights_sha256 == straight.weights_sha256
