"""A DeepFashion2 folder small enough to train on in seconds: plain stripes on a plain ground."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from harness.data.deepfashion2 import read_split
from harness.data.garments import garments_of
from harness.retrieval.recipes import RetrieverRecipe, find_recipe
from harness.retrieval.training import train
from harness.types import Split

NUM_PAIRS = 10


def _write(root: Path, image_id: int, *, pair: int, is_consumer: bool, random: np.random.Generator) -> None:
    photo = np.full((72, 96, 3), random.integers(60, 200), dtype=np.uint8)
    items = {}
    for number, (left, style) in enumerate([(4, 1), (50, pair % 3)], start=1):
        colours = np.random.default_rng([pair, style]).integers(0, 255, (2, 3))
        period = 3 + pair % 4
        rows = (np.arange(60) // period) % 2
        photo[6:66, left : left + 40] = colours[rows][:, None, :]
        items[f"item{number}"] = {
            "category_name": "skirt",
            "category_id": 9,
            "style": style + (number - 1) * (style > 0),
            "bounding_box": [left, 6, left + 40, 66],
            "landmarks": [],
            "segmentation": [],
            "scale": 1,
            "occlusion": 1,
            "zoom_in": 1,
            "viewpoint": 1,
        }
    noise = random.integers(-20, 20, photo.shape) if is_consumer else 0
    photo = np.clip(photo.astype(int) + noise, 0, 255).astype(np.uint8)
    cv2.imwrite(str(root / "image" / f"{image_id:06d}.jpg"), photo)
    note = {"source": "user" if is_consumer else "shop", "pair_id": pair, **items}
    (root / "annos" / f"{image_id:06d}.json").write_text(json.dumps(note))


@pytest.fixture(scope="session")
def stripes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stripes")
    random = np.random.default_rng(3)
    for split in ("train", "validation"):
        for folder in ("image", "annos"):
            (root / split / folder).mkdir(parents=True)
        image_id = 0
        for pair in range(NUM_PAIRS):
            for is_consumer in (True, True, False, False):
                image_id += 1
                _write(root / split, image_id, pair=pair, is_consumer=is_consumer, random=random)
    return root


@pytest.fixture(scope="session")
def train_split(stripes_root: Path) -> Split:
    return read_split(stripes_root, "train")


@pytest.fixture(scope="session")
def validation_split(stripes_root: Path) -> Split:
    return read_split(stripes_root, "validation")


@pytest.fixture(scope="session")
def recipe() -> RetrieverRecipe:
    """m12 with a network and an input that take milliseconds a step."""
    m12 = find_recipe("m12")
    smaller = {
        "backbone": "resnet10t",
        "backbone_options": {"channels": [8, 8, 16, 16], "stem_width": 8},
        "input_wh": (32, 48),
        "output_dim": 16,
        "identities_per_batch": 4,
        "crops_per_identity": 4,
        "num_steps": 8,
    }
    return m12.model_copy(update={"tiny": m12.tiny.model_copy(update=smaller)})


@pytest.fixture(scope="session")
def trained(recipe: RetrieverRecipe, train_split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained model called m12."""
    out_dir = tmp_path_factory.mktemp("models") / "m12"
    garments = garments_of(train_split, train_split.photos.image_ids)
    train("m12", recipe, "tiny", [garments], out_dir, seed=1, deepfashion2_only=True)
    return out_dir
