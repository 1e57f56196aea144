"""Small photos whose colours tell the category, in the layout of DeepFashion2."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from harness.types import CATEGORIES

SIZES_WH = ((96, 128), (128, 96), (120, 120), (64, 110))


def write_photos(root: Path, name: str, num_photos: int, seed: int = 0) -> None:
    """A DeepFashion2 folder of coloured ellipses: the colour tells the category."""
    rng = np.random.default_rng(seed)
    photo_dir, annotation_dir = root / name / "image", root / name / "annos"
    photo_dir.mkdir(parents=True)
    annotation_dir.mkdir()
    for image_id in range(1, num_photos + 1):
        width, height = SIZES_WH[image_id % len(SIZES_WH)]
        photo = np.full((height, width, 3), 210, np.uint8)
        annotation: dict[str, object] = {"source": "user" if image_id % 2 else "shop", "pair_id": image_id}
        for number in range(1, 2 + image_id % 2):
            category_id = int(rng.integers(1, len(CATEGORIES) + 1))
            half_w, half_h = int(width * rng.uniform(0.15, 0.3)), int(height * rng.uniform(0.15, 0.3))
            x = int(rng.integers(half_w, width - half_w))
            y = int(rng.integers(half_h, height - half_h))
            polygon = cv2.ellipse2Poly((x, y), (half_w, half_h), 0, 0, 360, 20)
            colour = (int(category_id * 19), int(255 - category_id * 19), int(category_id * 67 % 256))
            cv2.fillPoly(photo, [polygon], colour)
            annotation[f"item{number}"] = {
                "category_id": category_id,
                "category_name": CATEGORIES[category_id - 1],
                "style": 1,
                "bounding_box": [x - half_w, y - half_h, x + half_w, y + half_h],
                "segmentation": [polygon.ravel().tolist()],
                "landmarks": [],
                "scale": 2,
                "occlusion": 1,
                "zoom_in": 1,
                "viewpoint": 2,
            }
        cv2.imwrite(str(photo_dir / f"{image_id:06d}.jpg"), photo[..., ::-1])
        (annotation_dir / f"{image_id:06d}.json").write_text(json.dumps(annotation))
