"""Everything in a photo that is not a garment: backdrop, body, things in the way, light and lens.

Colours are BGR. Sizes are pixels of the picture that is passed in.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Rng = np.random.Generator

SKINS = ((170, 196, 232), (140, 172, 216), (100, 138, 190), (70, 100, 150), (48, 66, 104))
MANNEQUINS = ((226, 228, 230), (206, 210, 214), (190, 200, 212))
HAIRS = ((30, 34, 40), (40, 62, 92), (70, 120, 170), (60, 60, 64), (110, 150, 190))


def any_colour(rng: Rng, low: int = 30, high: int = 225) -> tuple[int, int, int]:
    """A muted colour between two levels."""
    levels = rng.integers(low, high, 3)
    b, g, r = (int(v) for v in (levels + levels.mean()) / 2)
    return b, g, r


def shop_backdrop(rng: Rng, width_px: int, height_px: int) -> Image:
    """A plain wall: one light colour, a little darker towards the floor."""
    level = int(rng.integers(222, 253))
    tint = rng.integers(-8, 9, 3) if rng.random() < 0.5 else np.zeros(3, dtype=int)
    top = np.clip(level + tint, 0, 255)
    rows = np.linspace(0, float(rng.uniform(0, 8)), height_px)[:, None, None]
    return np.broadcast_to((top - rows).astype(np.uint8), (height_px, width_px, 3)).copy()


def consumer_backdrop(rng: Rng, width_px: int, height_px: int) -> Image:
    """A cluttered place: wall and floor, furniture, windows, lamps, cables, uneven light."""
    image: Image = np.empty((height_px, width_px, 3), np.uint8)
    image[:] = any_colour(rng, 60, 235)
    horizon = int(height_px * rng.uniform(0.55, 0.95))
    image[horizon:] = any_colour(rng, 40, 200)
    for _ in range(int(rng.integers(5, 13))):
        x, y = int(rng.integers(-20, width_px)), int(rng.integers(-20, height_px))
        w, h = int(rng.integers(8, width_px // 2)), int(rng.integers(8, height_px // 2))
        colour, kind = any_colour(rng), rng.random()
        if kind < 0.45:
            cv2.rectangle(image, (x, y), (x + w, y + h), colour, -1)
            if rng.random() < 0.5:
                cv2.rectangle(image, (x, y), (x + w, y + h), any_colour(rng), 2)
            if rng.random() < 0.4:
                for step in range(1, 4):
                    cv2.line(image, (x, y + h * step // 4), (x + w, y + h * step // 4), any_colour(rng), 2)
        elif kind < 0.7:
            cv2.ellipse(
                image, (x, y), (w // 3 + 2, h // 3 + 2), float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA
            )
        else:
            end = (int(rng.integers(0, width_px)), int(rng.integers(0, height_px)))
            cv2.line(image, (x, y), end, colour, int(rng.integers(1, 5)), cv2.LINE_AA)
    return multiply(image, soft_field(rng, width_px, height_px, 6, 0.3))


def surface(rng: Rng, width_px: int, height_px: int) -> Image:
    """A table, floor or bed that clothes lie on: boards or a cover, and a few small things."""
    image: Image = np.empty((height_px, width_px, 3), np.uint8)
    image[:] = any_colour(rng, 70, 235)
    if rng.random() < 0.6:
        line = tuple(int(v * 0.8) for v in image[0, 0])
        step = int(rng.integers(14, 40))
        for x in range(int(rng.integers(step)), width_px, step):
            cv2.line(image, (x, 0), (x + int(rng.integers(-6, 7)), height_px), line, 1, cv2.LINE_AA)
    for _ in range(int(rng.integers(1, 6))):
        centre = (int(rng.integers(width_px)), int(rng.integers(height_px)))
        cv2.circle(image, centre, int(rng.integers(4, 16)), any_colour(rng), -1, cv2.LINE_AA)
    return multiply(image, soft_field(rng, width_px, height_px, 6, 0.2))


def soft_field(rng: Rng, width_px: int, height_px: int, cells: int, depth: float) -> Image:
    """Slowly varying brightness, (height, width, 3) uint8; 128 leaves a pixel as it is."""
    small = 128 * (1 + depth * rng.uniform(-1, 1, (cells, cells, 1)))
    small = np.repeat(small, 3, axis=2).clip(0, 255).astype(np.uint8)
    return cv2.resize(small, (width_px, height_px), interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]


def multiply(image: Image, field: Image, factor: float = 1.0) -> Image:
    """The picture under a field of brightness in which 128 means unchanged."""
    return cv2.multiply(image, field, scale=factor / 128)  # type: ignore[return-value]


def cover(rng: Rng, image: Image, label: Image, box: tuple[float, float, float, float]) -> None:
    """Put one thing in front of the box (x1, y1, x2, y2): a bag, a phone in a hand, leaves, a post or an elbow.

    Args:
        rng: decides which and where.
        image: painted in place.
        label: set to 0 in place where the thing is.
        box: what it stands in front of.
    """
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    mask: Image = np.zeros(label.shape, np.uint8)
    x, y = x1 + width * rng.uniform(0.1, 0.9), y1 + height * rng.uniform(0.15, 0.9)
    size = float(np.sqrt(max(width * height, 1)) * rng.uniform(0.12, 0.3))
    colour, kind = any_colour(rng), int(rng.integers(5))
    painted: list[tuple[Any, tuple[int, int, int]]] = []
    if kind == 0:
        corners = cv2.boxPoints(((x, y), (2 * size, 1.6 * size), float(rng.uniform(-20, 20))))
        strap = np.array([corners[1], [x + size * rng.uniform(-2, 2), y1 - height * 0.2], corners[2]])
        cv2.polylines(mask, [fixed_point(strap)], False, 1, max(2, int(size / 5)), cv2.LINE_8, 3)
        painted = [(corners, colour)]
    elif kind == 1:
        turn = float(rng.uniform(-35, 35))
        painted = [
            (
                cv2.ellipse2Poly(
                    (int(x), int(y + size * 0.6)), (max(3, int(size * 0.75)), max(3, int(size * 0.6))), 0, 0, 360, 20
                ),
                SKINS[int(rng.integers(5))],
            ),
            (cv2.boxPoints(((x, y), (0.9 * size, 1.7 * size), turn)), (36, 34, 34)),
        ]
    elif kind == 2:
        for _ in range(int(rng.integers(2, 6))):
            centre = (int(x + rng.uniform(-1, 1) * size), int(y + rng.uniform(-1, 1) * size))
            axes = (max(2, int(size * 0.8)), max(2, int(size * 0.25)))
            painted.append(
                (
                    cv2.ellipse2Poly(centre, axes, int(rng.integers(180)), 0, 360, 20),
                    (50, int(rng.integers(90, 170)), 60),
                )
            )
    elif kind == 3:
        lean = width * rng.uniform(-0.3, 0.3)
        post = np.array(
            [
                [x - size / 3, y1 - 99],
                [x + size / 3, y1 - 99],
                [x + lean + size / 3, y2 + 99],
                [x + lean - size / 3, y2 + 99],
            ]
        )
        painted = [(post, colour)]
    else:
        side = x1 - 0.1 * width if rng.random() < 0.5 else x2 + 0.1 * width
        arm = cv2.boxPoints((((x + side) / 2, y), (abs(x - side) + size, 0.7 * size), float(rng.uniform(-30, 30))))
        painted = [(arm, SKINS[int(rng.integers(5))])]
    image[mask > 0] = colour
    for shape, shape_colour in painted:
        cv2.fillPoly(image, [fixed_point(shape)], shape_colour, cv2.LINE_8, 3)
        cv2.fillPoly(mask, [fixed_point(shape)], 1, cv2.LINE_8, 3)
    label[mask > 0] = 0


def fixed_point(points: Any) -> NDArray[np.int32]:
    """Points as OpenCV's fixed point numbers with three binary places."""
    return np.round(np.asarray(points, dtype=float) * 8).astype(np.int32)


def develop(rng: Rng, image: Image, is_consumer: bool) -> Image:
    """Light, lens and sensor: white balance, exposure, contrast, uneven light, blur and noise."""
    spread = 1.0 if is_consumer else 0.14
    gains = np.exp(spread * (rng.normal(0, 0.13, 3) + rng.normal(-0.07, 0.19)))
    gamma = float(np.exp(spread * rng.normal(0, 0.15)))
    lift = spread * float(rng.uniform(0, 20))
    ramp = np.linspace(0, 1, 256)[:, None]
    table = (lift + (255 - lift) * np.clip(gains * ramp**gamma, 0, 1)).astype(np.uint8)
    image = cv2.LUT(image, table[None])  # type: ignore[assignment]
    if not is_consumer:
        return image
    height_px, width_px = image.shape[:2]
    image = multiply(image, soft_field(rng, width_px, height_px, 2, 0.18))
    kind = rng.random()
    if kind < 0.45:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 0.9)))  # type: ignore[assignment]
    elif kind < 0.6:
        kernel = np.zeros((5, 5), np.float32)
        end = (4, int(rng.integers(5)))
        cv2.line(kernel, (0, 4 - end[1]), end, 1.0)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())  # type: ignore[assignment]
    noise = rng.integers(-5, 6, image.shape, dtype=np.int16)
    return (image + noise).clip(0, 255).astype(np.uint8)
