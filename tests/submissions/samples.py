"""Rows and photos that the tests of result files share."""

from typing import Any

import numpy as np

from harness.types import Photos
from submissions.photos import KnownPhotos


def make_row(image_id: Any = 1, **change: Any) -> dict[str, Any]:
    """A sound row."""
    row = {
        "query_image_id": image_id,
        "query_bbox": [1.5, 2, 30, 40.25],
        "query_cls": 3,
        "query_score": 0.75,
        "gallery_image_id": [100 + n for n in range(20)],
        "gallery_bbox": [[n, 2, n + 10, 40.5] for n in range(20)],
    }
    return {**row, **change}


def make_photos(num_consumer: int = 2, size: tuple[int, int] | None = None, **more: Any) -> KnownPhotos:
    """Consumer photos from 1 on, shop photos 100 to 119."""
    ids = np.array([*range(1, num_consumer + 1), *range(100, 120)])
    size_of = None if size is None else lambda _: size
    return KnownPhotos.of_split("validation", Photos(ids, ids < 100), size_of, **more)


def make_rows(num_rows: int, seed: int = 0, size: tuple[int, int] = (400, 600)) -> list[dict[str, Any]]:
    """Sound rows with the boxes of garments: they stand in the middle and take most of the photo."""
    rng = np.random.default_rng(seed)

    def boxes(num: int) -> list[list[float]]:
        corners = rng.uniform((0.02, 0.02, 0.55, 0.55), (0.45, 0.45, 0.98, 0.98), (num, 4)) * (*size, *size)
        return np.round(corners, 2).tolist()

    return [
        {
            "query_image_id": n + 1,
            "query_bbox": boxes(1)[0],
            "query_cls": n % 13 + 1,
            "query_score": round(float(rng.uniform()), 4),
            "gallery_image_id": rng.permutation(np.arange(100, 120)).tolist(),
            "gallery_bbox": boxes(20),
        }
        for n in range(num_rows)
    ]


def as_xywh(box: list[float]) -> list[float]:
    """The same box as COCO writes it."""
    return [*box[:2], round(box[2] - box[0], 2), round(box[3] - box[1], 2)]
