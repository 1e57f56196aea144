"""The crops that a retriever trains on, held in memory where they fit and decoded as needed where not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
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

MEMORY_SHARE = 0.25
"""Canvases up to this share of the memory that is free are held in memory, by all processes of a machine together."""
SOON_DECODED_BYTES = 1 << 30
"""More canvases than this are held only for a training that draws every crop at least once."""

REDUCED_FROM_PX = 512
"""Photos of a shorter longest side are decoded as they are: there is little to gain."""

_NONE = np.zeros(0, np.int64)


class PhotoPaths(Sequence[Path]):
    """Paths as one block of memory: a process that is started does not copy a million objects, nor count references."""

    def __init__(self, paths: Iterable[Path]) -> None:
        names = [os.fsencode(path) for path in paths]
        self._ends = np.cumsum([0, *map(len, names)])
        self._names = np.frombuffer(b"".join(names), np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, row: Any) -> Any:
        """The path of a row."""
        return Path(os.fsdecode(self._names[self._ends[row] : self._ends[row + 1]].tobytes()))


@dataclass(frozen=True, eq=False)
class TrainingCrops:
    """Garments of one or more sources that have an identity and a second view of it.

    Attributes:
        photos: (P,) the photos, each once.
        photo_rows: (N,) int64, the photo of each garment as a row of ``photos``.
        boxes_xyxy: (N, 4) float64, pixels; NaN stands for the whole photo.
        labels: (N,) int64, 0 … number of identities − 1 without gaps.
        is_consumer: (N,) bool.
    """

    photos: Sequence[Path]
    photo_rows: Ints
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
    photo_rows, boxes, labels, views = [_NONE], [np.zeros((0, 4))], [_NONE], [np.zeros(0, bool)]
    for part, numbers in zip(parts, identities, strict=True):
        keep = np.flatnonzero((numbers >= 0) & (counts[numbers] >= 2)) if len(counts) else _NONE
        shown, rows = np.unique(part.photo_rows[keep], return_inverse=True)
        photo_rows.append(len(paths) + rows.reshape(-1))
        paths += [part.photos[row] for row in shown.tolist()]
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
    columns = (np.concatenate(photo_rows), np.concatenate(boxes), inverse.reshape(-1), np.concatenate(views))
    return TrainingCrops(PhotoPaths(paths), *columns)


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


def reductions(crops: TrainingCrops, settings: RetrieverSettings) -> Floats:
    """How many times larger than a canvas the regions of a photo's crops are at least, (P,) float64.

    The whole photo is as large as it is; for crops of it alone there is infinity.
    """
    size = np.array(canvas_wh(settings), dtype=np.float64)
    sides = (crops.boxes_xyxy[:, 2:] - crops.boxes_xyxy[:, :2]) * (1 + 2 * (settings.margin + CANVAS_MARGIN))
    least = np.full(len(crops.photos), np.inf)
    np.fmin.at(least, crops.photo_rows, (sides / size).min(axis=1))  # NaN does not count
    return least


class CropDataset(torch.utils.data.Dataset[Any]):
    """Batches of canvases with their views and labels, asked for by lists of (step, row).

    A large JPEG is decoded at a half, a quarter or an eighth of its size where all its crops remain at least as large
    as a canvas, whichever of them is asked for.

    Args:
        crops: what to train on.
        settings: size and margin.
        num_threads: decode every photo now, once, in so many threads, and hold the canvases in memory; 0 decodes them
            as batches ask.

    Raises:
        InputError: a photo is missing or cannot be decoded.
    """

    def __init__(self, crops: TrainingCrops, settings: RetrieverSettings, *, num_threads: int) -> None:
        self.crops = crops
        self.settings = settings
        self._room_P = reductions(crops, settings)
        self.held: tuple[NDArray[np.uint8], NDArray[np.float32]] | None = None
        if num_threads:
            self.held = self._decode(np.arange(len(crops.labels)), num_threads)

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

    def _decode(self, rows: Ints, num_threads: int = 1) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        width, height = canvas_wh(self.settings)
        canvases = np.empty((len(rows), height, width, 3), dtype=np.uint8)
        views = np.empty((len(rows), 4), dtype=np.float32)
        order = np.argsort(self.crops.photo_rows[rows], kind="stable")
        photos, starts = np.unique(self.crops.photo_rows[rows][order], return_index=True)

        def fill(photo: int, places: Ints) -> None:
            pixels, factor = self._photo(photo)
            for place in places.tolist():
                box = self.crops.boxes_xyxy[rows[place]] / factor
                canvases[place], views[place] = canvas_and_view(pixels, box, self.settings)

        jobs = zip(photos.tolist(), np.split(order, starts[1:]), strict=True)
        if num_threads == 1:
            for photo, places in jobs:
                fill(photo, places)
        else:
            with ThreadPoolExecutor(num_threads) as pool:
                for _ in pool.map(lambda job: fill(*job), jobs):
                    pass
        return canvases, views

    def _photo(self, photo: int) -> tuple[NDArray[np.uint8], int]:
        """A photo's pixels and how many times smaller they are than the file's."""
        from harness.data.photos import decode_reduced

        return decode_reduced(self.crops.photos[photo], partial(self._reduction, self._room_P[photo]))

    def _reduction(self, room: float, width: int, height: int) -> int:
        if max(width, height) < REDUCED_FROM_PX:
            return 1
        canvas_width, canvas_height = canvas_wh(self.settings)
        room = min(room, width / canvas_width, height / canvas_height)
        return next(factor for factor in (8, 4, 2, 1) if factor == 1 or room >= factor)


def fits_in_memory(crops: TrainingCrops, settings: RetrieverSettings, num_drawn: int, free_bytes: int) -> bool:
    """Whether all canvases are to be held in memory.

    Args:
        crops: what to train on.
        settings: size and margin.
        num_drawn: crops that the training draws in all.
        free_bytes: of memory, for this process.
    """
    width, height = canvas_wh(settings)
    needed = len(crops.labels) * width * height * 3
    return needed <= MEMORY_SHARE * free_bytes and (num_drawn >= len(crops.labels) or needed <= SOON_DECODED_BYTES)
