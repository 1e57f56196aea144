"""The crops that a retriever trains on, held in memory where they fit and decoded as needed where not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.garments import Garments
from harness.retrieval.settings import RetrieverSettings
from harness.types import Bools, Floats, InputError, Ints

CANVAS_MARGIN = 0.1
"""Context of a canvas beyond the model's view, as a share of the box: room for zoom, shift and turn."""

MEMORY_LIMIT_BYTES = 1 << 30
"""Canvases up to this much in all are held in memory."""

_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class TrainingCrops:
    """Garments of one or more sources that have an identity and a second view of it.

    Attributes:
        paths: (N,) the photo of each.
        boxes_xyxy: (N, 4) float64, pixels; NaN stands for the whole photo.
        labels: (N,) int64, 0 … number of identities − 1 without gaps.
        is_consumer: (N,) bool.
    """

    paths: Sequence[Path]
    boxes_xyxy: Floats
    labels: Ints
    is_consumer: Bools

    @property
    def num_identities(self) -> int:
        """Classes of the auxiliary classifier."""
        return int(self.labels.max()) + 1 if len(self.labels) else 0


def collect(parts: Sequence[Garments]) -> TrainingCrops:
    """The garments to train on: those of an identity, with at least two crops of it.

    Args:
        parts: garments of different sources, whose identities are different ones unless the parts share them.

    Raises:
        InputError: fewer than two identities remain.
    """
    identities = _identities(parts)
    counts = np.bincount(np.concatenate([_NONE, *(one[one >= 0] for one in identities)]))
    paths: list[Path] = []
    boxes, labels, views = [np.zeros((0, 4))], [_NONE], [np.zeros(0, bool)]
    for part, numbers in zip(parts, identities, strict=True):
        keep = np.flatnonzero((numbers >= 0) & (counts[numbers] >= 2)) if len(counts) else _NONE
        paths += [part.photos[row] for row in part.photo_rows[keep].tolist()]
        boxes.append(part.boxes_xyxy[keep])
        labels.append(numbers[keep])
        views.append(part.is_consumer[keep])
    used, inverse = np.unique(np.concatenate(labels), return_inverse=True)
    num_identities = len(used)
    if num_identities < 2:
        places = ", ".join(part.source for part in parts)
        raise InputError(
            f"{places}: only {num_identities} garment identities have two or more photos among those to train on; "
            "expected at least 2: give more photos"
        )
    return TrainingCrops(paths, np.concatenate(boxes), inverse.reshape(-1), np.concatenate(views))


def _identities(parts: Sequence[Garments]) -> list[Ints]:
    """The identities of each part, numbered so that equal ones are the same item; negative ones match nothing."""
    shared = [part.identities.max(initial=-1) for part in parts if part.shares_identities]
    begin = int(max(shared, default=-1)) + 1
    numbered = []
    for part in parts:
        if part.shares_identities:
            numbered.append(part.identities)
            continue
        numbered.append(np.where(part.identities >= 0, part.identities + begin, part.identities))
        begin += int(part.identities.max(initial=-1)) + 1
    return numbered


def canvas_wh(settings: RetrieverSettings) -> tuple[int, int]:
    """Width and height of a canvas, px: the view keeps the model's input size."""
    growth = (1 + 2 * (settings.margin + CANVAS_MARGIN)) / (1 + 2 * settings.margin)
    return round(settings.input_wh[0] * growth), round(settings.input_wh[1] * growth)


def canvas_and_view(
    photo_HW3: NDArray[np.uint8], box_xyxy: Floats, settings: RetrieverSettings
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A box's canvas, and where in it the model's own crop would lie.

    Args:
        photo_HW3: (H, W, 3) uint8.
        box_xyxy: (4,) float64, pixels; NaN for the whole photo.
        settings: size and margin.

    Returns:
        (h, w, 3) uint8 and (4,) float32, x1 y1 x2 y2 in [0, 1] of the canvas. Both regions are clipped to the
        photo, so the view of a garment at the photo's edge is off the centre.
    """
    from harness.data.crops import crop

    height, width = photo_HW3.shape[:2]
    if np.isnan(box_xyxy[0]):
        box_xyxy = np.array([0.0, 0.0, width, height])
    canvas = crop(photo_HW3, box_xyxy, canvas_wh(settings), settings.margin + CANVAS_MARGIN)
    limits = np.array([width, height, width, height], dtype=np.float64)
    side = np.tile(box_xyxy[2:] - box_xyxy[:2], 2) * np.array([-1, -1, 1, 1])
    inner = np.clip(box_xyxy + side * settings.margin, 0, limits)
    outer = np.clip(box_xyxy + side * (settings.margin + CANVAS_MARGIN), 0, limits)
    size = np.maximum(outer[2:] - outer[:2], 1.0)
    view = np.clip((inner - np.tile(outer[:2], 2)) / np.tile(size, 2), 0, 1)
    if (view[2:] <= view[:2]).any():  # a box of no area
        view = np.array([0.0, 0.0, 1.0, 1.0])
    return canvas, view.astype(np.float32)


class CropDataset(torch.utils.data.Dataset[Any]):
    """Batches of canvases with their views and labels, asked for by lists of (step, row).

    Args:
        crops: what to train on.
        settings: size and margin.
        in_memory: decode every photo now, once; otherwise photos are decoded as batches ask.

    Raises:
        InputError: a photo is missing or cannot be decoded.
    """

    def __init__(self, crops: TrainingCrops, settings: RetrieverSettings, *, in_memory: bool) -> None:
        self.crops = crops
        self.settings = settings
        self.held: tuple[NDArray[np.uint8], NDArray[np.float32]] | None = None
        if in_memory:
            self.held = self._decode(np.arange(len(crops.labels)))

    def __len__(self) -> int:
        return len(self.crops.labels)

    def __getitems__(self, places: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """The batch at (step, row) places: ``canvases``, ``views``, ``labels`` and the ``step``."""
        rows = np.array([row for _, row in places], dtype=np.int64)
        canvases, views = (self.held[0][rows], self.held[1][rows]) if self.held else self._decode(rows)
        return {
            "canvases": torch.from_numpy(canvases),
            "views": torch.from_numpy(views),
            "labels": torch.from_numpy(self.crops.labels[rows]),
            "step": places[0][0],
        }

    def _decode(self, rows: Ints) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        from harness.data.photos import decode_rgb

        width, height = canvas_wh(self.settings)
        canvases = np.empty((len(rows), height, width, 3), dtype=np.uint8)
        views = np.empty((len(rows), 4), dtype=np.float32)
        by_photo: dict[Path, list[int]] = {}
        for place, row in enumerate(rows.tolist()):
            by_photo.setdefault(self.crops.paths[row], []).append(place)
        for path, places in by_photo.items():
            photo = decode_rgb(path)
            for place in places:
                canvases[place], views[place] = canvas_and_view(
                    photo, self.crops.boxes_xyxy[rows[place]], self.settings
                )
        return canvases, views


def fits_in_memory(crops: TrainingCrops, settings: RetrieverSettings) -> bool:
    """Whether the canvases stay below `MEMORY_LIMIT_BYTES`."""
    width, height = canvas_wh(settings)
    return len(crops.labels) * width * height * 3 <= MEMORY_LIMIT_BYTES
