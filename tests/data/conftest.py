"""Tiny DeepFashion2 folders, drawn on the spot."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

Item = dict[str, Any]
Annotations = dict[int, dict[str, Any]]


def make_item(category: int = 1, style: int = 1, box: tuple[float, ...] = (4, 6, 24, 36), **more: Any) -> Item:
    from harness.types import CATEGORIES

    x1, y1, x2, y2 = box
    return {
        "category_name": CATEGORIES[category - 1],
        "category_id": category,
        "style": style,
        "bounding_box": list(box),
        "landmarks": [x1, y1, 2, x2, y2, 1],
        "segmentation": [[x1, y1, x2, y1, x2, y2]],
        "scale": 2,
        "occlusion": 1,
        "zoom_in": 1,
        "viewpoint": 2,
        **more,
    }


def make_annotation(source: str, pair_id: int, *items: Item) -> dict[str, Any]:
    return {"source": source, "pair_id": pair_id, **{f"item{n}": item for n, item in enumerate(items, 1)}}


def write_photo(path: Path, width: int = 40, height: int = 48, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), cv2.blur(noise, (5, 5)))


def write_split(root: Path, name: str, annotations: Annotations, *, annotated: bool = True) -> None:
    for image_id, annotation in annotations.items():
        write_photo(root / name / "image" / f"{image_id:06d}.jpg", 40 + image_id, 48, seed=image_id)
        if annotated:
            place = root / name / "annos" / f"{image_id:06d}.json"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(annotation))


@pytest.fixture
def annotations() -> Annotations:
    """Two consumer and two shop photos: pair 7 with styles 1 and 2, a style-0 item, pair 8 without consumer."""
    return {
        1: make_annotation("user", 7, make_item(1, 1), make_item(8, 2, (5, 20, 30, 45.5))),
        2: make_annotation("user", 7, make_item(1, 0)),
        3: make_annotation("shop", 7, make_item(1, 1), make_item(8, 2)),
        10: make_annotation("shop", 8, make_item(13, 1)),
    }


@pytest.fixture
def dataset(tmp_path: Path, annotations: Annotations) -> Path:
    """A root with an annotated validation split."""
    root = tmp_path / "df2"
    write_split(root, "validation", annotations)
    return root


@pytest.fixture
def edit(dataset: Path) -> Callable[[int, Callable[[dict[str, Any]], None]], Path]:
    """Changes one annotation of the validation split in place and returns its path."""

    def change(image_id: int, how: Callable[[dict[str, Any]], None]) -> Path:
        place = dataset / "validation" / "annos" / f"{image_id:06d}.json"
        document = json.loads(place.read_text())
        how(document)
        place.write_text(json.dumps(document))
        return place

    return change
