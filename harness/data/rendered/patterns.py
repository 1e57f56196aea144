"""The cloth: periodic tiles and prints, drawn from a garment's identity.

A tile is one body unit square, `TILE_PX` pixels a side, and repeats without a seam.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.data.rendered.wardrobe import Garment

TILE_PX = 128
Image = NDArray[np.uint8]

_STEPS = {0: (0, 1), 1: (1, 1), 2: (1, 0), 3: (1, -1)}


@lru_cache(maxsize=1)
def _grid() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    axis = ((np.arange(TILE_PX) + 0.5) / TILE_PX).astype(np.float32)
    return np.tile(axis, (TILE_PX, 1)), np.tile(axis[:, None], (1, TILE_PX))


def _soft(values: Any, repeats: int) -> Any:
    """Signed distances (in periods) to a coverage in [0, 1] with an edge about two tile pixels wide."""
    return np.clip(values * TILE_PX / repeats / 2 + 0.5, 0, 1)


def _triangle(phase: Any) -> Any:
    """Distance to the nearest whole number: 0 … 0.5 … 0 over a period."""
    return np.abs(phase - np.round(phase))


def _coverage(garment: Garment) -> Any:
    """(TILE_PX, TILE_PX) float32 in [0, 1]: how much of the second colour shows."""
    x, y = _grid()
    n, (dx, dy) = garment.repeats, _STEPS[garment.direction]
    half = garment.duty / 2
    if garment.pattern == "stripes":
        return _soft(half - _triangle(n * (dx * x + dy * y)), n)
    if garment.pattern == "check":
        if garment.direction % 2:
            u, v = x + y, x - y
        else:
            u, v = x, y
        return (_soft(0.25 - _triangle(n * u), n) + _soft(0.25 - _triangle(n * v), n)) / 2
    if garment.pattern == "dots":
        row = np.floor(n * y) if garment.direction % 2 and n % 2 == 0 else 0
        u, v = n * x + 0.5 * row, n * y
        return _soft(0.2 + half / 2 - np.hypot(u - np.floor(u) - 0.5, v - np.floor(v) - 0.5), n)
    if garment.pattern == "diamonds":
        return _soft(0.25 + half / 4 - (_triangle(n * x) + _triangle(n * y)) / 2, n)
    if garment.pattern == "zigzag":
        u, v = (x, y) if garment.direction % 2 else (y, x)
        return _soft(half - _triangle(n * v + 1.2 * _triangle(n * u)), n)
    return np.zeros_like(x)


def _scatter(garment: Garment, tile: Image) -> None:
    """Flowers or blotches at places that the seed decides, wrapped round the tile's edges."""
    rng = np.random.default_rng(garment.seed)
    _, second, accent = garment.palette
    step = TILE_PX / garment.repeats
    for row in range(garment.repeats):
        for column in range(garment.repeats):
            x, y = (np.array([column, row]) + rng.uniform(0.15, 0.85, 2)) * step
            size = step * rng.uniform(0.22, 0.42)
            turn = rng.uniform(0, 360)
            for shift_x in (-TILE_PX, 0, TILE_PX):
                for shift_y in (-TILE_PX, 0, TILE_PX):
                    cx, cy = x + shift_x, y + shift_y
                    if -step < cx < TILE_PX + step and -step < cy < TILE_PX + step:
                        if garment.pattern == "floral":
                            _flower(tile, cx, cy, size, turn, second, accent)
                        else:
                            axes = (round(size * 1.2), max(2, round(size * 0.7)))
                            cv2.ellipse(tile, (round(cx), round(cy)), axes, turn, 0, 360, second, -1, cv2.LINE_AA)


def _flower(tile: Image, cx: float, cy: float, size: float, turn: float, petals: Any, heart: Any) -> None:
    for petal in range(5):
        angle = np.deg2rad(turn + 72 * petal)
        centre = (round(cx + 0.6 * size * np.cos(angle)), round(cy + 0.6 * size * np.sin(angle)))
        cv2.circle(tile, centre, max(2, round(0.42 * size)), petals, -1, cv2.LINE_AA)
    cv2.circle(tile, (round(cx), round(cy)), max(1, round(0.36 * size)), heart, -1, cv2.LINE_AA)


@lru_cache(maxsize=64)
def cloth(garment: Garment) -> tuple[Image, int]:
    """The garment's cloth and how it goes on beyond its edge.

    Args:
        garment: the identity.

    Returns:
        (TILE_PX, TILE_PX, 3) uint8 BGR, and the OpenCV border mode to sample it with.
    """
    base, second, accent = (np.array(colour, dtype=np.float32) for colour in garment.palette)
    x, y = _grid()
    if garment.pattern == "gradient":
        share = y if garment.direction % 2 else 1 - y
        return (base + (second - base) * share[..., None]).astype(np.uint8), cv2.BORDER_REPLICATE
    if garment.pattern == "plaid":
        n = garment.repeats
        bands = _soft(0.2 - _triangle(n * x), n) * 0.5 + _soft(0.2 - _triangle(n * y), n) * 0.5
        lines = np.maximum(_soft(0.05 - _triangle(n * x + 0.5), n), _soft(0.05 - _triangle(n * y + 0.5), n))
        tile = base + (second - base) * bands[..., None]
        return (tile + (accent - tile) * lines[..., None]).astype(np.uint8), cv2.BORDER_WRAP
    tile = (base + (second - base) * _coverage(garment)[..., None]).astype(np.uint8)
    if garment.pattern in ("floral", "blotches"):
        _scatter(garment, tile)
    return tile, cv2.BORDER_WRAP


def motif_polygons(garment: Garment) -> list[tuple[NDArray[np.float64], int]]:
    """The print's shapes, in units of its half size about its centre.

    Args:
        garment: an identity whose pattern is ``print``.

    Returns:
        Polygons (M, 2) float64 with the number of their palette colour; a base-coloured one is a hole.
    """
    turn = np.linspace(0, 2 * np.pi, 25)[:-1]
    circle = np.stack([np.cos(turn), np.sin(turn)], 1)
    if garment.motif == "disc":
        return [(circle, 1), (circle * 0.45, 2)]
    if garment.motif == "ring":
        return [(circle, 1), (circle * 0.6, 0)]
    if garment.motif == "star":
        spikes = np.arange(10)
        radius = np.where(spikes % 2 == 0, 1.15, 0.48)
        angle = spikes * np.pi / 5 - np.pi / 2
        return [(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), 1)]
    if garment.motif == "heart":
        x = 16 * np.sin(turn) ** 3
        y = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
        return [(np.stack([x, -y], 1) / 15, 1)]
    if garment.motif == "triangle":
        shape = np.array([[0, -1.1], [1.1, 0.9], [-1.1, 0.9]])
        return [(shape, 1), (shape * 0.4, 2)]
    if garment.motif == "bars":
        bar = np.array([[-1.3, -0.2], [1.3, -0.2], [1.3, 0.2], [-1.3, 0.2]])
        below = np.array([0, 0.7])
        return [(bar - below, 1), (bar, 2), (bar * [0.7, 1] + below, 1)]
    if garment.motif == "cross":
        bar = np.array([[-1.1, -0.32], [1.1, -0.32], [1.1, 0.32], [-1.1, 0.32]])
        return [(bar, 1), (bar[:, ::-1], 1)]
    return [(np.array([[0.3, -1.2], [-0.8, 0.25], [-0.1, 0.25], [-0.4, 1.2], [0.8, -0.3], [0.1, -0.3]]), 1)]


def panel_polygon(garment: Garment, top: float, hem: float) -> NDArray[np.float64] | None:
    """The plain field over the cloth of a torso, a skirt or trousers.

    Args:
        garment: the identity.
        top, hem: heights between which the cloth lies, body units.

    Returns:
        (M, 2) float64 body units, reaching beyond the garment's sides; None if there is none.
    """
    height, wide = hem - top, 1.5
    low, high = {
        "yoke": (-0.2, 0.3), "band": (0.68, 1.2), "half": (0.46, 1.2), "belt": (0.42, 0.6),
    }.get(garment.panel, (0.0, 0.0))  # fmt: skip
    if high:
        y1, y2 = top + low * height, top + high * height
        return np.array([[-wide, y1], [wide, y1], [wide, y2], [-wide, y2]])
    y1, y2 = top - 0.3, hem + 0.3
    if garment.panel == "centre":
        return np.array([[-0.1, y1], [0.1, y1], [0.1, y2], [-0.1, y2]])
    if garment.panel == "sides":
        return np.array([[0.02, y1], [wide, y1], [wide, y2], [0.02, y2]])
    if garment.panel == "sash":
        middle, slope = top + 0.45 * height, 0.7
        return np.array(
            [[-1, middle + slope], [-1, middle + slope - 0.24], [1, middle - slope - 0.24], [1, middle - slope]]
        )
    return None
