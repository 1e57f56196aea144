"""How a photo and its annotation are laid into a network's input, plainly or with random changes.

Coordinates are continuous pixels; a point (x, y) of the photo goes to (x · scale_x, y · scale_y).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.detection.settings import Augmentation

Photo = NDArray[np.uint8]
Polygon = NDArray[np.float64]

MULTIPLE_PX = 32
"""Sides of the input are multiples of this: the coarsest of the networks' first strides."""

SMALLEST_PX = 2.0
"""A box that cropping leaves narrower than this is dropped."""

_SMALLEST_PART = 0.3
"""A box of which cropping leaves less than this part is dropped."""


@dataclass(frozen=True)
class Laid:
    """A training photo laid into the input.

    Attributes:
        photo: (H, W, 3) uint8 RGB.
        boxes_xyxy: (N, 4) float32, pixels of the input.
        kept: (N,) int64, which of the photo's items these are.
        polygons: per kept item its polygons, pixels of the input.
    """

    photo: Photo
    boxes_xyxy: NDArray[np.float32]
    kept: NDArray[np.int64]
    polygons: list[list[Polygon]]


def fitted_size_wh(size_wh: tuple[int, int], input_px: tuple[int, int]) -> tuple[int, int]:
    """Size of a photo after it is resized to fit, its aspect kept.

    Args:
        size_wh: width and height of the photo, pixels.
        input_px: longest and shortest side that it may have afterwards.
    """
    width, height = size_wh
    long_px, short_px = input_px
    factor = min(long_px / max(width, height), short_px / min(width, height))
    return max(1, min(long_px, round(width * factor))), max(1, min(long_px, round(height * factor)))


def canvas_hw(size_wh: tuple[int, int], input_px: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the network's input for a training photo: one for upright ones, one for the others."""
    long_px, short_px = (-(-side // MULTIPLE_PX) * MULTIPLE_PX for side in input_px)
    width, height = size_wh
    return (long_px, short_px) if height > width else (short_px, long_px)


def resized(photo: Photo, input_px: tuple[int, int]) -> Photo:
    """The photo at its fitted size."""
    height, width = photo.shape[:2]
    new_wh = fitted_size_wh((width, height), input_px)
    shrinks = new_wh[0] < width
    result = cv2.resize(photo, new_wh, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.ascontiguousarray(result, dtype=np.uint8)


def snug_canvas_hw(photo: Photo) -> tuple[int, int]:
    """Height and width of the smallest canvas that a fitted photo goes into: what detection lays it on.

    It depends on the photo alone, so that what is found in it cannot depend on its batch. At 1333 x 800 a photo of 4:3
    takes 19 % fewer pixels than on the canvas of training.
    """
    height, width = photo.shape[:2]
    return -(-height // MULTIPLE_PX) * MULTIPLE_PX, -(-width // MULTIPLE_PX) * MULTIPLE_PX


def laid_snugly(photo: Photo, padding_rgb: tuple[int, int, int]) -> Photo:
    """A fitted photo at the top left of its smallest canvas."""
    canvas = np.empty((*snug_canvas_hw(photo), 3), np.uint8)
    canvas[:] = padding_rgb
    canvas[: photo.shape[0], : photo.shape[1]] = photo
    return canvas


def laid_randomly(
    photo: Photo,
    boxes_xyxy: NDArray[np.float64],
    polygons: Sequence[Sequence[Polygon]],
    input_px: tuple[int, int],
    padding_rgb: tuple[int, int, int],
    settings: Augmentation,
    rng: np.random.Generator,
) -> Laid:
    """A fitted photo with its items, randomly flipped, zoomed, shifted and recoloured.

    Where the crop would leave no item, the photo is laid plainly instead: mmdet's CenterNet has
    no meaningful loss without a box.

    Args:
        photo: (h, w, 3) uint8 RGB at its fitted size.
        boxes_xyxy: (N, 4) pixels of the fitted photo.
        polygons: per item its polygons, pixels of the fitted photo.
        input_px: as in the recipe.
        padding_rgb: colour outside the photo.
        settings: how much of what.
        rng: all randomness comes from here.
    """
    height, width = photo.shape[:2]
    canvas_h, canvas_w = canvas_hw((width, height), input_px)
    flips = rng.random() < settings.flip
    low, high = np.log(settings.zoom)
    zoom = float(np.exp(rng.uniform(low, high)))
    where_x, where_y = rng.random(2)
    shift_x = where_x * (canvas_w - width * zoom) if settings.shift else 0.0
    shift_y = where_y * (canvas_h - height * zoom) if settings.shift else 0.0

    sign, origin = (-1.0, width * zoom) if flips else (1.0, 0.0)
    matrix = np.array([[sign * zoom, 0.0, origin + shift_x], [0.0, zoom, shift_y]])
    laid_boxes, kept = _moved_boxes(boxes_xyxy, matrix, (canvas_h, canvas_w))
    if len(kept) == 0:
        matrix = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        laid_boxes, kept = _moved_boxes(boxes_xyxy, matrix, (canvas_h, canvas_w), smallest_part=0.0, smallest_px=0.0)
    # OpenCV puts whole numbers at pixel centres, annotations at pixel corners.
    for_cv = matrix.copy()
    for_cv[:, 2] += 0.5 * (matrix[:, 0] + matrix[:, 1]) - 0.5
    recoloured = _recoloured(photo, settings, rng)
    canvas = cv2.warpAffine(
        recoloured, for_cv, (canvas_w, canvas_h), flags=cv2.INTER_LINEAR, borderValue=tuple(map(float, padding_rgb))
    )
    moved = [[_moved_points(polygon, matrix) for polygon in polygons[row]] for row in kept] if polygons else []
    return Laid(np.asarray(canvas, np.uint8), laid_boxes.astype(np.float32), kept, moved)


def masks_of(polygons: Sequence[Sequence[Polygon]], shape_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Filled polygons, (N, H, W) uint8 of 0 and 1."""
    masks = np.zeros((len(polygons), *shape_hw), np.uint8)
    for mask, parts in zip(masks, polygons, strict=True):
        whole = [np.round(part - 0.5).astype(np.int32) for part in parts if len(part) >= 3]
        if whole:
            cv2.fillPoly(mask, whole, 1)
    return masks


def _moved_points(points: Polygon, matrix: NDArray[np.float64]) -> Polygon:
    moved: Polygon = points @ matrix[:, :2].T + matrix[:, 2]
    return moved


def _moved_boxes(
    boxes_xyxy: NDArray[np.float64],
    matrix: NDArray[np.float64],
    shape_hw: tuple[int, int],
    smallest_part: float = _SMALLEST_PART,
    smallest_px: float = SMALLEST_PX,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    corners = _moved_points(boxes_xyxy.reshape(-1, 2), matrix).reshape(-1, 2, 2)
    whole = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    limits = np.array([shape_hw[1], shape_hw[0]] * 2, np.float64)
    cut = np.clip(whole, 0, limits)
    sides, before = cut[:, 2:] - cut[:, :2], whole[:, 2:] - whole[:, :2]
    part = sides.prod(axis=1) / np.maximum(before.prod(axis=1), 1e-9)
    kept = np.flatnonzero((part >= smallest_part) & (sides > 0).all(axis=1) & (sides >= smallest_px).all(axis=1))
    return cut[kept], kept


def _recoloured(photo: Photo, settings: Augmentation, rng: np.random.Generator) -> Photo:
    brightness, contrast, saturation = rng.uniform(-1, 1, 3) * (settings.brightness, settings.contrast, settings.colour)
    gains = 1 + rng.uniform(-1, 1, 3) * settings.colour
    if settings.brightness == settings.contrast == settings.colour == 0:
        return photo
    # One 3x4 colour matrix: saturation mixes in the grey, then each channel is scaled about mid-grey.
    grey = np.array([0.299, 0.587, 0.114])
    mix = np.eye(3) * (1 + saturation) - saturation * grey[None]
    mix = (1 + contrast) * gains[:, None] * mix
    offset = 127.5 * (1 - (1 + contrast)) + 255 * brightness
    colour = np.concatenate([mix, np.full((3, 1), offset)], axis=1)
    return np.asarray(cv2.transform(photo, colour), np.uint8)
