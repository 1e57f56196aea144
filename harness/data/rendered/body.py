"""The body under the clothes: how it stands, and how it is painted between their layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.data.rendered import scene
from harness.data.rendered.canvas import Canvas
from harness.data.rendered.plan import View
from harness.data.rendered.silhouette import Layer, Points, Pose, Shape, tube
from harness.data.rendered.wardrobe import Garment


def _ellipse(centre: Any, rx: float, ry: float) -> Points:
    turn = np.linspace(0, 2 * np.pi, 21)[:-1]
    ellipse: Points = np.stack([rx * np.cos(turn), ry * np.sin(turn)], 1) + centre
    return ellipse


_TRUNK = np.array([[0.1, -0.05], [0.33, 0.03], [0.3, 0.33], [0.235, 0.72], [0.32, 1.05], [0.31, 1.2], [0, 1.25]])


def _paint_body(rng: scene.Rng, canvas: Canvas, pose: Pose, skin: Any) -> None:
    for side in (-1, 1):
        outer, inner = tube(pose.leg(side), np.array([0.15, 0.095, 0.055]), side)
        canvas.blob(np.concatenate([outer, inner[::-1]]), skin)
        canvas.blob(_ellipse(pose.leg(side)[2] + [side * 0.04, 0.06], 0.11, 0.06), (40, 40, 46))
    canvas.blob(np.concatenate([_TRUNK, _TRUNK[::-1] * [-1, 1]]), skin)
    canvas.blob(np.array([[-0.09, -0.2], [0.09, -0.2], [0.1, 0.03], [-0.1, 0.03]]), tuple(int(v * 0.92) for v in skin))


def _paint_head(rng: scene.Rng, canvas: Canvas, pose: Pose, skin: Any) -> None:
    if skin in scene.MANNEQUINS:
        canvas.blob(_ellipse((0, -0.33), 0.13, 0.18), skin)
        return
    hair = scene.HAIRS[int(rng.integers(len(scene.HAIRS)))]
    canvas.blob(_ellipse((0, -0.37), 0.165, 0.2), hair)
    if not pose.back:
        canvas.blob(_ellipse((0, -0.31), 0.125, 0.165), skin)


def paint(rng: scene.Rng, canvas: Canvas, pose: Pose, worn: list[tuple[int, Garment, Shape]], skin: Any) -> None:
    """Body and garments from back to front."""
    if not pose.flat and skin is not None:
        _paint_body(rng, canvas, pose, skin)
    layers: tuple[Layer, Layer] = ("torso", "sleeve")
    for layer in layers:
        if layer == "sleeve" and not pose.flat and skin is not None:
            for side in (-1, 1):
                outer, inner = tube(pose.arm(side), np.array([0.075, 0.06, 0.045]), side)
                canvas.blob(np.concatenate([outer, inner[::-1]]), skin)
                canvas.blob(_ellipse(pose.arm(side)[2] + [0, 0.05], 0.06, 0.08), skin)
        for item, garment, shape in worn:
            for part in shape.parts:
                if part.layer == layer:
                    canvas.part(item, garment, part)
            canvas.details(item, garment, shape, layer)
    if not pose.flat and skin is not None:
        _paint_head(rng, canvas, pose, skin)


def draw_pose(rng: scene.Rng, is_consumer: bool, view: View) -> tuple[Pose, int]:
    """A pose and its viewpoint: 1 not worn, 2 frontal, 3 side or back."""
    kind = rng.random()
    share_flat = {"any": 0.16 if is_consumer else 0.22, "worn": 0.0, "flat": 1.0}[view]
    if kind < share_flat:
        spread = rng.uniform(0.35, 0.85)
        return Pose((spread, spread), (spread, spread), (0.05, 0.05), flat=True), 1
    wild = 1.0 if is_consumer else 0.35
    upper = 0.14 + wild * np.abs(rng.normal(0, 0.28, 2))
    lower = upper * rng.uniform(0.2, 1, 2) - wild * rng.uniform(0, 1, 2) * (rng.random(2) < 0.35)
    stride = 0.02 + wild * rng.uniform(0, 0.14, 2)
    turned = is_consumer and rng.random() < 0.22
    pose = Pose(
        (float(upper[0]), float(upper[1])),
        (float(lower[0]), float(lower[1])),
        (float(stride[0]), float(stride[1])),
        back=turned and rng.random() < 0.4,
    )
    return pose, 3 if turned else 2
