"""Street2Shop as rendered: street photos with boxes, shop photos without, a list a category and kind.

Planted: every 40th product bears the number of the one before it, of another category (the numbers also tell
items apart only within a category); a box of no area; a street photo in the training and the test pairs; a box that is
listed twice, a little off; a photo that is gone; a PNG under a ``.jpg`` name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from harness.data.rendered.layouts.drawing import Box, Item, Layout, LayoutPhoto, items_of, shot
from harness.data.rendered.plan import companion_category

_NAME = "Street2Shop"
_LISTED = (
    "bags", "belts", "dresses", "eyewear", "footwear", "hats", "leggings", "outerwear", "pants", "skirts", "tops",
)  # fmt: skip
_CATEGORY = {
    **dict.fromkeys((1, 2, 5, 6), "tops"),
    **dict.fromkeys((3, 4), "outerwear"),
    **dict.fromkeys((7, 8), "pants"),
    9: "skirts",
    **dict.fromkeys((10, 11, 12, 13), "dresses"),
}
_SAME_NUMBER_EVERY = 40


def layout(seed: int, num_garments: int) -> Layout:
    """The photos and lists of so many garments."""
    items = items_of(_NAME, seed, num_garments, sorted(_CATEGORY))
    products = _products(items)
    photos: list[LayoutPhoto] = []
    pairs: list[tuple[Item, int, int, bool]] = []  # garment, photo number, place in the photo, whether a test pair
    retrieval: list[tuple[Item, int]] = []
    for item in items:
        rng = np.random.default_rng([seed, 0, item.number, num_garments])
        num_street, num_shop = 1 + int(rng.choice(3, p=[0.6, 0.3, 0.1])), 1 + int(rng.choice(4, p=[0.4, 0.3, 0.2, 0.1]))
        is_test = rng.random() < 0.2
        for turn in range(num_street):
            beside = _beside(rng, item, items)
            number = len(photos) + 1
            plan = shot(_NAME, seed, item, turn, is_consumer=True, view="worn", beside=beside)
            photos.append(LayoutPhoto(_file(number), plan, boxed=True))
            pairs += [(one, number, place, is_test) for place, one in ((1, item), (2, beside)) if one is not None]
        for turn in range(num_shop):
            number = len(photos) + 1
            plan = shot(_NAME, seed, item, num_street + turn, is_consumer=False, view="any")
            is_png = item.number == 3 and turn == 0
            photos.append(LayoutPhoto(_file(number), plan, "png" if is_png else "jpeg"))
            retrieval.append((item, number))
    gone = retrieval[-1][1]

    def lists(boxes: Mapping[str, Mapping[int, Box]]) -> Mapping[str, bytes]:
        rows: dict[str, list[dict[str, Any]]] = {
            f"{kind}_{category}": [] for category in _LISTED for kind in ("train_pairs", "test_pairs", "retrieval")
        }
        for item, number, place, is_test in pairs:
            box = boxes[_file(number)].get(place)
            if box is not None:
                row = {"photo": number, "product": products[item.number], "bbox": _bbox(box)}
                rows[f"{'test' if is_test else 'train'}_pairs_{_CATEGORY[item.garment.category_id]}"].append(row)
        for item, number in retrieval:
            row = {"photo": number, "product": products[item.number]}
            rows[f"retrieval_{_CATEGORY[item.garment.category_id]}"].append(row)
        _plant(rows)
        addresses = "".join(
            f"{number:09d},http://photos.invalid/{number},large.jpg\n" for number in range(1, len(photos) + 1)
        )
        return {
            "photos/photos.txt": addresses.encode(),
            **{f"meta/json/{name}.json": orjson.dumps(found) for name, found in rows.items()},
        }

    return Layout(tuple(photo for photo in photos if photo.file != _file(gone)), lists)


def _file(number: int) -> str:
    return f"photos/{number:09d}.jpg"


def _products(items: list[Item]) -> list[int]:
    numbers = [10_001 + item.number for item in items]
    for item in items[_SAME_NUMBER_EVERY // 4 :: _SAME_NUMBER_EVERY]:
        for other in reversed(items[: item.number]):
            if _CATEGORY[other.garment.category_id] != _CATEGORY[item.garment.category_id]:
                numbers[item.number] = numbers[other.number]
                break
    return numbers


def _beside(rng: np.random.Generator, item: Item, items: list[Item]) -> Item | None:
    """Another product of a category that goes with it, sometimes."""
    if rng.random() > 0.25 or item.garment.category_id >= 10:
        return None
    category = companion_category(rng, item.garment.category_id)
    fitting = [other for other in items if other.garment.category_id == category]
    return fitting[int(rng.integers(len(fitting)))] if fitting else None


def _bbox(box: Box) -> dict[str, float]:
    x1, y1, x2, y2 = box
    return {"left": x1, "top": y1, "width": x2 - x1, "height": y2 - y1}


def _plant(rows: dict[str, list[dict[str, Any]]]) -> None:
    training = next(rows[f"train_pairs_{category}"] for category in _LISTED if rows[f"train_pairs_{category}"])
    tests = next(name for name in rows if name.startswith("train_pairs") and rows[name] is training)
    first, last = training[0], training[-1]
    rows[tests.replace("train", "test")].append(dict(first))
    off = {**first["bbox"], "left": first["bbox"]["left"] + 1}
    training.append({**first, "bbox": off})
    training.append({**last, "bbox": {"left": 12.5, "top": 3.25, "width": 0.0, "height": 0.0}})
