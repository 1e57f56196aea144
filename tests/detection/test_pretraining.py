from __future__ import annotations

import numpy as np
import torch

from harness.detection.pretraining import Crops, pretrained_backbone
from harness.detection.recipes import load_recipes

GREY = (124, 116, 104)
SCALE = load_recipes()["ATSS"].tiny
SETTINGS = SCALE.pretraining.model_copy(update={"num_steps": 2, "batch_size": 4})
SHORT = SCALE.model_copy(update={"pretraining": SETTINGS})


def test_a_crop_shows_its_garment_in_the_middle(split):
    crops = Crops(split, split.photos.image_ids, 64, 0, GREY)
    assert len(crops) == len(split.items)
    for row, category_id in enumerate(split.items.category_ids):
        crop, label = crops[(0, row)]
        assert crop.shape == (64, 64, 3)
        assert label == category_id - 1
        # Garments are drawn in the colour of their category; another may cover this one.
        colour = np.array([category_id * 19, 255 - category_id * 19, category_id * 67 % 256])
        middle = crop[24:40, 24:40].reshape(-1, 3).astype(int)
        assert np.abs(middle - colour).max(axis=1).min() < 40


def test_a_box_at_the_border_is_padded(split):
    crops = Crops(split, split.photos.image_ids, 64, 0, GREY)
    shown = np.stack([crops[(0, row)][0] for row in range(len(crops))])
    assert (shown == GREY).all(axis=-1).any()


def test_crops_depend_on_seed_step_and_row_alone(split):
    one, other = (Crops(split, split.photos.image_ids, 64, 5, GREY) for _ in range(2))
    other[(9, 9)]
    assert (one[(4, 2)][0] == other[(4, 2)][0]).all()
    assert any((one[(step, 2)][0] != one[(4, 2)][0]).any() for step in range(5, 9))


def test_a_damaged_backbone_is_made_again(split, tmp_path):
    path = pretrained_backbone(SHORT, split, split.photos.image_ids, tmp_path, 1)
    good = path.read_bytes()
    path.write_bytes(good[:-10])
    again = pretrained_backbone(SHORT, split, split.photos.image_ids, tmp_path, 1)
    assert again == path
    first = torch.load(path, weights_only=True)
    assert all(name.startswith("backbone.") for name in first)


def test_other_seeds_and_photos_make_other_backbones(split, tmp_path):
    paths = {
        pretrained_backbone(SHORT, split, ids, tmp_path, seed)
        for ids, seed in ((split.photos.image_ids, 1), (split.photos.image_ids, 2), (split.photos.image_ids[:6], 1))
    }
    assert len(paths) == 3
