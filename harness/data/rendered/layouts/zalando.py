"""Zalando as rendered, in the VITON data set's original layout: a top as worn, and the top alone.

Planted: test rows that are try-on swaps (as published: nearly all), a photo that is gone, and a PNG under a ``.jpg``
name.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.data.rendered.layouts.drawing import Box, Item, Layout, LayoutPhoto, items_of, shot
from harness.data.rendered.plan import PhotoPlan

_NAME = "Zalando"
_TOPS = (1, 2, 5, 6)


def worn_and_alone(seed: int, item: Item) -> tuple[PhotoPlan, PhotoPlan]:
    """The two photos of a top."""
    worn = shot(_NAME, seed, item, 0, is_consumer=False, view="worn")
    return worn, shot(_NAME, seed, item, 1, is_consumer=False, view="flat")


def tops(seed: int, count: int) -> list[Item]:
    """The first tops."""
    return items_of(_NAME, seed, count, _TOPS)


def layout(seed: int, num_garments: int) -> Layout:
    """The photos and lists of so many tops."""
    photos: list[LayoutPhoto] = []
    rows: dict[str, list[str]] = {"train": [], "test": []}
    items = tops(seed, num_garments)
    num_test = max(2, num_garments // 8)
    for item in items:
        for suffix, plan in enumerate(worn_and_alone(seed, item)):
            is_png = (item.number, suffix) == (5, 1)
            photos.append(LayoutPhoto(f"women_top/{item.number:06d}_{suffix}.jpg", plan, "png" if is_png else "jpeg"))
        if item.number < num_garments - num_test:
            rows["train"].append(f"{item.number:06d}_0.jpg {item.number:06d}_1.jpg")
        else:
            tried_on = item.number + 1 if item.number + 1 < num_garments else num_garments - num_test
            rows["test"].append(f"{item.number:06d}_0.jpg {tried_on:06d}_1.jpg")

    def lists(_boxes: Mapping[str, Mapping[int, Box]]) -> Mapping[str, bytes]:
        return {f"viton_{split}_pairs.txt": ("\n".join(found) + "\n").encode() for split, found in rows.items()}

    return Layout(tuple(photos[:-1]), lists)
