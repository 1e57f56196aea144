"""DARN as rendered, in the neutral list's form: users' and shops' photos, no boxes.

Planted: a line without a photo, a product under two categories, a user's photo that is the shop's file, and a line
that says too little.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.data.rendered.layouts.drawing import Box, Layout, LayoutPhoto, items_of, shot

_NAME = "DARN"


def layout(seed: int, num_garments: int) -> Layout:
    """The photos and the list of so many garments."""
    items = items_of(_NAME, seed, num_garments, range(1, 14))
    photos: list[LayoutPhoto] = []
    lines: list[str] = []
    for item in items:
        rng = np.random.default_rng([seed, 0, item.number])
        num_user, num_shop = 1 + int(rng.choice(2, p=[0.75, 0.25])), 1 + int(rng.choice(4, p=[0.25, 0.35, 0.25, 0.15]))
        product = 500 + item.number
        for turn in range(num_user + num_shop):
            is_user = turn < num_user
            file = f"images/{product}_{turn}.jpg"
            copies: tuple[str, ...] = ()
            category = item.garment.category_id - 1
            if item.number == 4 and turn == num_user:  # the user's photo is the shop's
                copies = (f"images/{product}_{turn}u.jpg",)
                lines.append(f"{copies[0]} {product} 0 {category}")
            plan = shot(_NAME, seed, item, turn, is_consumer=is_user, view="any" if is_user else "worn")
            photos.append(LayoutPhoto(file, plan, copies=copies))
            named = category if (item.number, turn) != (5, 0) else (category + 1) % 13
            lines.append(f"{file} {product} {0 if is_user else 1} {named}")
    lines.insert(len(lines) // 2, f"images/{500 + num_garments}_0.jpg")

    def lists(_boxes: Mapping[str, Mapping[int, Box]]) -> Mapping[str, bytes]:
        return {"image.txt": ("\n".join(lines) + "\n").encode()}

    return Layout(tuple(photos[:-1]), lists)
