"""MPV as rendered: a person in poses and the cloth alone, a folder a model, its colours told apart by name.

Planted: the first garments are Zalando's of the same seed, with the same two photos; a row of the test list that pairs
another cloth; a photo that is gone; a photo that no row names.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.data.rendered.layouts import zalando
from harness.data.rendered.layouts.drawing import Box, Layout, LayoutPhoto, items_of, shot

_NAME = "MPV"
_POSES = ("person_whole_front", "person_half_front", "person_whole_side", "person_half_back")
_SHARED_SHARE = 0.02


def layout(seed: int, num_garments: int) -> Layout:
    """The photos and the list of so many garments."""
    num_shared = max(1, round(_SHARED_SHARE * num_garments))
    shared = zalando.tops(seed, num_shared)
    photos: list[LayoutPhoto] = []
    rows: list[str] = []
    cloth = ""
    for item in items_of(_NAME, seed, num_garments, (1, 2, 5, 6, 10, 11)):
        rng = np.random.default_rng([seed, 0, item.number])
        folder = f"SC{item.model:03d}E00D"
        stem = f"MPV_192_256/{folder}/{folder}-{'KOQ'[item.number % 3]}{item.number:02d}"
        split = "test" if rng.random() < 0.15 else "train"
        previous, cloth = cloth, f"{stem}@12.1=cloth_front.jpg"
        if item.number < num_shared:
            plans = list(zalando.worn_and_alone(seed, shared[item.number]))
        else:
            num_poses = 2 + int(rng.choice(3, p=[0.5, 0.3, 0.2]))
            plans = [shot(_NAME, seed, item, turn, is_consumer=False, view="worn") for turn in range(num_poses)]
            plans.append(shot(_NAME, seed, item, num_poses, is_consumer=False, view="flat"))
        poses = [f"{stem}@{13 - turn}={_POSES[turn]}.jpg" for turn in range(len(plans) - 1)]
        photos += [LayoutPhoto(file, plan) for file, plan in zip([*poses, cloth], plans, strict=True)]
        for first, second in [(a, b) for a in poses for b in poses if a != b] or [(poses[0], poses[0])]:
            rows.append(_row(first, second, cloth, split))
        if item.number == num_shared:
            rows.append(_row(poses[1], poses[0], previous, "test"))
        if item.number == num_shared + 1:
            plan = shot(_NAME, seed, item, 50, is_consumer=False, view="worn")
            photos.append(LayoutPhoto(f"{stem}@9=person_half_side.jpg", plan))

    def lists(_boxes: Mapping[str, Mapping[int, Box]]) -> Mapping[str, bytes]:
        return {"all_poseA_poseB_clothes.txt": ("\n".join(rows) + "\n").encode()}

    return Layout(tuple(photos[:-1]), lists)


def _row(first: str, second: str, cloth: str, split: str) -> str:
    return "\t".join([*(name.removeprefix("MPV_192_256/") for name in (first, second, cloth)), split])
