"""MVC as rendered: four shop views of every colourway, three row-aligned lists.

Planted: an address that names another style, an address that comes twice, a photo whose bytes stand under two styles,
a photo that is gone, and information that is not UTF-8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from harness.data.rendered.layouts.drawing import Box, Layout, LayoutPhoto, items_of, shot
from harness.types import CATEGORIES

_NAME = "MVC"
_NUM_VIEWS = 4


def layout(seed: int, num_garments: int) -> Layout:
    """The photos and lists of so many colourways."""
    items = items_of(_NAME, seed, num_garments, range(1, 14))
    photos: list[LayoutPhoto] = []
    labels: list[dict[str, Any]] = []
    links: list[dict[str, Any]] = []
    information: list[dict[str, Any]] = []
    for item in items:
        product, style = 7_250_000 + item.model, 3_160_000 + item.number
        for view in range(_NUM_VIEWS):
            name = f"p{product}_s{style}_v{view}"
            plan = shot(_NAME, seed, item, view, is_consumer=False, view="worn" if view else "any")
            copied = f"p{product}_s{style}_v{view}_copied"
            photos.append(
                LayoutPhoto(f"{name}.jpg", plan, copies=(f"{copied}.jpg",) if (item.number, view) == (6, 2) else ())
            )
            address = f"http://photos.invalid/images/z/{style}-{view}-4x.jpg"
            if (item.number, view) == (2, 3):
                address = address.replace(str(style), str(style + 1))
            if (item.number, view) == (3, 3):
                address = links[-1]["image_url_4x"]
            labels.append({"filename": name, "itemN": style, **_attributes(item.garment.category_id)})
            links.append({"itemN": style, "image_url_4x": address})
            information.append(_information(product, style, view, item.garment.category_id))
    copied = next(photo.copies[0] for photo in photos if photo.copies)
    other = 3_160_000 + items[8].number
    labels.append(
        {"filename": copied.removesuffix(".jpg"), "itemN": other, **_attributes(items[8].garment.category_id)}
    )
    links.append({"itemN": other, "image_url_4x": f"http://photos.invalid/images/z/{other}-9-4x.jpg"})
    information.append(_information(7_250_000 + items[8].model, other, 9, items[8].garment.category_id))

    def lists(_boxes: Mapping[str, Mapping[int, Box]]) -> Mapping[str, bytes]:
        latin = orjson.dumps(information).replace(b"Rendered brand", "Rendered décor".encode("cp1252"), 1)
        return {
            "attribute_labels.json": orjson.dumps(labels),
            "image_links.json": orjson.dumps(links),
            "mvc_info.json": latin,
        }

    return Layout(tuple(photos[:-1]), lists)


def _attributes(category_id: int) -> dict[str, int]:
    return {name.replace(" ", "_"): int(number == category_id) for number, name in enumerate(CATEGORIES, 1)}


def _information(product: int, style: int, view: int, category_id: int) -> dict[str, Any]:
    return {
        "viewId": view,
        "colourId": style % 1000,
        "styleId": style,
        "productId": product,
        "category": "Clothing",
        "subCategory2": CATEGORIES[category_id - 1],
        "productGender": '"Women"',
        "brandName": "Rendered brand",
    }
