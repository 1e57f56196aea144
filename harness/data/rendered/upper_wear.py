"""Tops, outwear and dresses: silhouettes, details and landmarks in body units."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.data.rendered.silhouette import SHOULDER_X, Part, Points, Pose, Shape, Stroke, along, tube
from harness.data.rendered.wardrobe import DRESSES, LONG_SLEEVED, OUTWEAR, SLEEVED, SLINGS, Garment


def _half_width(garment: Garment, y: Any) -> Any:
    """Half the garment's width at a height below the armpits, body units."""
    hips = 0.33 * garment.fit
    waist = hips * (0.78 if garment.category_id in DRESSES else 0.9)
    widths = np.interp(y, [0.3, 0.72, 1.05], [0.31 * garment.fit, waist, hips])
    below = np.maximum(np.asarray(y, dtype=float) - 0.75, 0)
    flare = garment.flare if garment.category_id in DRESSES else 0.25 * garment.flare
    return widths + flare * below * (0.6 if garment.category_id in DRESSES else 1)


def _neckline(garment: Garment, back: bool) -> Points:
    """(9, 2) the front edge of the neck opening from picture left to right."""
    width = garment.neck_width * (1.5 if garment.neckline == "boat" else 1)
    depth = {"boat": 0.06, "high": 0.03, "shirt": 0.14}.get(garment.neckline, garment.neck_depth)
    if garment.category_id in OUTWEAR:
        depth = 0.12
    t = np.linspace(-1, 1, 9)
    if back:
        depth, dip = 0.04, np.sqrt(1 - t**2)
    elif garment.neckline in ("v", "shirt"):
        dip = 1 - np.abs(t)
    elif garment.neckline == "square":
        dip = np.minimum(1, 5 * (1 - np.abs(t)))
    else:
        dip = np.sqrt(1 - t**2)
    return np.stack([width * t, -0.02 + depth * dip], 1)


def _sleeve(garment: Garment, pose: Pose, side: int) -> tuple[Part, Points, Points]:
    """One sleeve, its cuff edge (2, 2) and its landmarks from the shoulder to the armpit."""
    shares = np.linspace(0, garment.sleeve, 7)
    path = along(pose.arm(side), shares)
    loose = 0.02 * (garment.fit - 0.9) / 0.3 + (0.02 if garment.category_id in OUTWEAR else 0)
    widths = np.interp(shares, [0, 0.25, 1], [0.125, 0.105, 0.07]) + loose
    outer, inner = tube(path, widths, side)
    outer[0] = [side * SHOULDER_X * 0.96, 0.015]
    # The inner edge begins at the armpit: the tube's own first points would cut back into the torso.
    armpit = np.array([[side * 0.3 * garment.fit, 0.33]])
    inner = np.concatenate([armpit, inner[shares >= min(0.22, 0.9 * garment.sleeve)]])
    arm = path[-1] - path[0]
    part = Part(
        np.concatenate([[[side * 0.235, 0.02]], outer, inner[::-1], [[side * 0.225, 0.37]]]),
        outer[0] - [0.1, 0],
        float(np.arctan2(-arm[0], arm[1])),
        layer="sleeve",
        shade=0.93,
        contrast=garment.panel == "sleeves",
    )
    if garment.category_id in LONG_SLEEVED:
        marks = np.array([*along(outer, [0, 0.25, 0.5, 0.75, 1]), *along(inner, [1, 0.67, 0.33, 0])])
    else:
        marks = np.array([*along(outer, [0, 0.5, 1]), *along(inner, [1, 0])])
    return part, np.stack([outer[-1], inner[-1]]), marks


def _side_line(garment: Garment, side: int, top: float) -> Points:
    ys = np.linspace(top, garment.hem, 8)
    return np.stack([side * _half_width(garment, ys), ys], 1)


def upper_wear(garment: Garment, pose: Pose) -> Shape:
    """Tops, outwear and dresses."""
    sling, sleeved = garment.category_id in SLINGS, garment.category_id in SLEEVED
    parts: list[Part] = []
    strokes: list[Stroke] = []
    neck = _neckline(garment, pose.back)
    hem_edge = np.stack([np.linspace(-0.9, 0.9, 7), np.full(7, garment.hem)], 1)
    hem_edge[:, 0] *= float(_half_width(garment, garment.hem))
    hem_edge[:, 1] += 0.03 * (1 - np.linspace(-1, 1, 7) ** 2)
    origin = np.array([-0.5, 0.0])
    sleeve_marks: dict[int, Points] = {-1: np.zeros((0, 2)), 1: np.zeros((0, 2))}
    if pose.flat and not sling:
        back = np.concatenate([neck, neck[::-1] * [0.96, 0] + [0, -0.005]])
        parts.append(Part(back, origin, shade=0.6))
    lines = {side: _side_line(garment, side, 0.33) for side in (-1, 1)}
    if sling:
        edge = 0.2 if not pose.back else 0.26
        strap_x = 0.19 * garment.fit
        dip = 0.06 if garment.neckline in ("v", "round") else -0.02
        for side in (-1, 1):
            strap = np.array([[side * strap_x * 0.92, -0.02], [side * strap_x, edge + 0.03]])
            outer, inner = tube(strap, [garment.strap, garment.strap], side)
            parts.append(Part(np.concatenate([outer, inner[::-1]]), origin))
        top = np.array(
            [
                [-0.28 * garment.fit, 0.28],
                [-strap_x, edge],
                [0, edge + dip],
                [strap_x, edge],
                [0.28 * garment.fit, 0.28],
            ]
        )
        body = np.concatenate([top, lines[1], hem_edge[::-1], lines[-1][::-1]])
        neck_marks = np.array(
            [
                [0, edge + 0.05],
                [-strap_x * 0.92, -0.02],
                [-strap_x, edge],
                [0, edge + dip],
                [strap_x, edge],
                [strap_x * 0.92, -0.02],
            ]
        )
        shoulder = {side: np.array([[side * 0.28 * garment.fit, 0.28]]) for side in (-1, 1)}
    else:
        neck_marks = np.array([[0, -0.03], neck[0], neck[2], neck[4], neck[6], neck[-1]])
        if sleeved:
            tip = {side: np.array([[side * SHOULDER_X * 0.97, 0.015]]) for side in (-1, 1)}
        else:
            tip = {
                side: np.array(
                    [
                        [side * (garment.neck_width + 2 * garment.strap), 0.0],
                        [side * (garment.neck_width + 1.7 * garment.strap), 0.2],
                    ]
                )
                for side in (-1, 1)
            }
        body = np.concatenate([neck, tip[1], lines[1], hem_edge[::-1], lines[-1][::-1], tip[-1][::-1]])
        shoulder = {side: tip[side][:1] for side in (-1, 1)}
        if sleeved:
            for side in (-1, 1):
                part, cuff, sleeve_marks[side] = _sleeve(garment, pose, side)
                parts.append(part)
                if garment.trim:
                    strokes.append(Stroke(cuff, 0.05, 2, layer="sleeve"))
    front_marks = np.zeros((0, 2))
    if garment.category_id in OUTWEAR:
        panels, front_marks, neck_marks, front_strokes = _open_front(garment, pose, neck, lines, body)
        parts += [Part(panel, origin, field=(0.0, garment.hem)) for panel in panels]
        strokes += front_strokes
    else:
        parts.append(Part(body, origin, field=(0.0, garment.hem)))
        strokes += _front_details(garment, pose, neck)
    if garment.trim:
        strokes.append(Stroke(np.array([lines[-1][-1], *hem_edge, lines[1][-1]]), 0.045, 2))
        if garment.category_id not in OUTWEAR and not sling:
            strokes.append(Stroke(neck, 0.03, 2))
    hem_mark = np.array([[0.0, garment.hem + 0.02]])
    if garment.category_id in OUTWEAR:
        hem_mark = np.array([[lines[-1][-1][0] * 0.6, garment.hem + 0.01]])
    num_side = 6 if garment.category_id in DRESSES else 4
    walks = {}
    for side in (-1, 1):
        if sleeved:
            walks[side] = [*sleeve_marks[side], *along(lines[side], np.arange(1, num_side + 1) / num_side)]
        elif sling:
            walks[side] = [*shoulder[side], *along(lines[side], np.arange(1, num_side) / (num_side - 1))]
        else:
            walks[side] = [*shoulder[side], *along(lines[side], np.arange(num_side - 1) / (num_side - 2))]
    landmarks = np.array([*neck_marks, *walks[-1], *hem_mark, *front_marks, *walks[1][::-1]])
    shape = Shape(parts, landmarks, strokes)
    if garment.pattern == "print" and not pose.back and garment.category_id not in OUTWEAR:
        shape.print_at = (garment.motif_x, garment.motif_y, garment.motif_size * 1.15)
    elif garment.pattern == "print" and garment.category_id in OUTWEAR:
        shape.print_at = (
            0.0 if pose.back else 0.2,
            garment.motif_y - 0.05,
            garment.motif_size * (1.2 if pose.back else 0.55),
        )
    return shape


def _open_front(
    garment: Garment, pose: Pose, neck: Points, lines: dict[int, Points], body: Points
) -> tuple[list[Points], Points, Points, list[Stroke]]:
    """The two panels of outwear, six front landmarks, the neck's six, and lapels or a zip."""
    gap_top, gap_hem = 0.05 + 0.2 * garment.neck_width, 0.07 + 0.9 * (garment.neck_depth - 0.05)
    ys = np.linspace(neck[4][1], garment.hem, 4)
    edge = {side: np.stack([side * np.linspace(gap_top, gap_hem, 4), ys], 1) for side in (-1, 1)}
    tip = {side: [side * SHOULDER_X * 0.97, 0.015] for side in (-1, 1)}
    ends = {-1: neck[0], 1: neck[-1]}
    panels = [np.array([ends[side], tip[side], *lines[side], *edge[side][::-1]]) for side in (-1, 1)]
    marks = np.array([*edge[-1][:0:-1], *edge[1][1:]])
    middle = {side: (ends[side] + edge[side][0]) / 2 for side in (-1, 1)}
    neck_marks = np.array([[0, -0.03], neck[0], middle[-1], edge[-1][0], middle[1], neck[-1]])
    if pose.back:
        return [body], marks, neck_marks, []
    strokes = [Stroke(edge[side], 0.02, 1, "torso") for side in (-1, 1)]
    if garment.neckline in ("v", "shirt", "square"):
        for side in (-1, 1):
            lapel = np.array([ends[side] * [1.15, 1], edge[side][1] + [side * 0.05, -0.12], edge[side][1]])
            strokes.append(Stroke(lapel, 0.035, 1, "torso"))
    if garment.buttons:
        for y in np.linspace(0.4, garment.hem - 0.1, 4):
            x = float(np.interp(y, ys, edge[1][:, 0])) + 0.04
            strokes.append(Stroke(np.array([[x, y]]), 0.045, 2))
    if garment.pockets:
        for side in (-1, 1):
            strokes.append(Stroke(np.array([[side * 0.16, 0.78], [side * 0.27, 0.74]]), 0.025, 2))
    return panels, marks, neck_marks, strokes


def _front_details(garment: Garment, pose: Pose, neck: Points) -> list[Stroke]:
    if pose.back:
        return []
    strokes = []
    low = neck[4][1]
    if garment.neckline == "shirt" and garment.category_id not in SLINGS:
        for side in (-1, 1):
            strokes.append(Stroke(np.array([neck[4], [side * 0.13, 0.12], neck[4 + 4 * side]]), 0.035, 1))
    if garment.buttons:
        end = 0.5 if garment.category_id in DRESSES else garment.hem - 0.08
        strokes += [Stroke(np.array([[0.0, y]]), 0.045, 2) for y in np.linspace(max(low, 0.22) + 0.06, end, 5)]
    if garment.pockets == 1 and garment.category_id not in SLINGS:
        box = np.array([[0.08, 0.32], [0.08, 0.46], [0.2, 0.46], [0.2, 0.32], [0.08, 0.32]])
        strokes.append(Stroke(box, 0.018, 2))
    if garment.seam:
        y = 0.72 if garment.category_id in DRESSES else 0.8
        x = float(_half_width(garment, y))
        strokes.append(Stroke(np.array([[-x, y], [x, y]]), 0.05 if garment.category_id in DRESSES else 0.02, 2))
    return strokes
