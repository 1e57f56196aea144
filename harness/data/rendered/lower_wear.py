"""Shorts, trousers and skirts: silhouettes, details and landmarks in body units."""

from __future__ import annotations

import numpy as np

from harness.data.rendered.silhouette import Part, Points, Pose, Shape, Stroke, along, tube
from harness.data.rendered.wardrobe import Garment

_WAIST_Y = 0.72


def lower_wear(garment: Garment, pose: Pose) -> Shape:
    """Shorts, trousers and skirts; ``hem`` counts from the waist."""
    waist_x, hip_x = 0.255 * min(garment.fit, 1.08), 0.34 * garment.fit
    origin = np.array([-0.5, 0.7])
    strokes = [
        Stroke(np.array([[-waist_x, _WAIST_Y + 0.035], [waist_x, _WAIST_Y + 0.035]]), 0.06, 2 if garment.trim else 0)
    ]
    waist_marks = np.array([[-waist_x, _WAIST_Y], [0, _WAIST_Y], [waist_x, _WAIST_Y]])
    if garment.category_id == 9:
        hem_y = _WAIST_Y + garment.hem
        hem_x = hip_x + 0.8 * garment.flare * garment.hem - 0.03
        sides = {}
        for side in (-1, 1):
            knots = np.array([[side * waist_x, _WAIST_Y], [side * hip_x * 0.97, 1.05], [side * hem_x, max(hem_y, 1.1)]])
            sides[side] = along(knots, np.linspace(0, 1, 6))
        hem = np.stack([np.linspace(-hem_x, hem_x, 9), max(hem_y, 1.1) + 0.05 * (1 - np.linspace(-1, 1, 9) ** 2)], 1)
        outline = np.concatenate([waist_marks, sides[1], hem[::-1], sides[-1][::-1]])
        marks = np.array(
            [*waist_marks[:1], waist_marks[1], waist_marks[2], *sides[1][[3, 5]], hem[4], *sides[-1][[5, 3]]]
        )
        if garment.seam:
            for share in np.linspace(-0.7, 0.7, 6):
                strokes.append(Stroke(np.array([[share * hip_x, 1.0], [share * hem_x, hem[4][1] - 0.02]]), 0.014, 2))
        if garment.trim:
            strokes.append(Stroke(hem, 0.05, 2))
        return Shape(
            [Part(outline, origin, field=(_WAIST_Y, float(outline[:, 1].max())))],
            marks,
            strokes,
            _lower_print(garment, pose, 0.0, 1.15),
        )
    crotch = np.array([0.0, 1.24])
    edges: dict[int, tuple[Points, Points]] = {}
    for side in (-1, 1):
        leg = pose.leg(side)
        shares = np.linspace(0.12, min(0.98, garment.hem * 0.6), 6)
        wide = 0.175 * garment.fit
        cuff = wide * (0.62 + 0.9 * garment.flare) if garment.category_id == 8 else wide * (0.95 + 0.3 * garment.flare)
        edges[side] = tube(along(leg, shares), np.interp(shares, [0.12, shares[-1]], [wide, cuff]), side)
        edges[side][1][0] = crotch
        gap = np.minimum(edges[side][1][:, 0] * side, 10)
        edges[side][1][1:, 0] = side * np.maximum(gap[1:], 0.015)
    right, left = edges[1], edges[-1]
    hips = {side: np.array([[side * waist_x, _WAIST_Y], [side * hip_x, 1.06]]) for side in (-1, 1)}
    outline = np.concatenate([waist_marks, hips[1][1:], right[0], right[1][::-1], left[1], left[0][::-1], hips[-1][1:]])
    walks = {}
    for side in (-1, 1):
        outer, inner = edges[side]
        line = np.concatenate([hips[side], outer])
        if garment.category_id == 7:
            walks[side] = [line[1], outer[-1], inner[-1]]
        else:
            walks[side] = [*along(line, [0.3, 0.65]), outer[-1], inner[-1], inner[3]]
    marks = np.array([*waist_marks, *walks[1], crotch, *walks[-1][::-1]])
    if not pose.back:
        strokes.append(Stroke(np.array([[0.0, _WAIST_Y + 0.06], crotch]), 0.014, 2))
    if garment.pockets:
        for side in (-1, 1):
            strokes.append(Stroke(np.array([[side * 0.14, 0.8], [side * 0.27, 0.93]]), 0.022, 2))
    if garment.seam:
        for side in (-1, 1):
            strokes.append(
                Stroke(
                    along(np.concatenate([hips[side], edges[side][0]]), np.linspace(0.05, 1, 8)) - [side * 0.025, 0],
                    0.035,
                    1,
                )
            )
    if garment.trim:
        strokes += [Stroke(np.stack([edges[side][0][-1], edges[side][1][-1]]), 0.05, 2) for side in (-1, 1)]
    return Shape(
        [Part(outline, origin, field=(_WAIST_Y, float(outline[:, 1].max())))],
        marks,
        strokes,
        _lower_print(garment, pose, 0.17, 1.3),
    )


def _lower_print(garment: Garment, pose: Pose, x: float, y: float) -> tuple[float, float, float] | None:
    return (x, y, garment.motif_size * 0.8) if garment.pattern == "print" and not pose.back else None
