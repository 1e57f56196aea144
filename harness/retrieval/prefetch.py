"""Crops of photos, cut in threads a little ahead of the networks that embed them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.data import photos
from harness.data.crops import crop, window
from harness.types import Detections, Ints, Split

CropSize = tuple[tuple[int, int], float]
"""What crops depend on: width and height in px, and the margin."""

MOST_AHEAD_BYTES = 256 << 20
"""Crops that wait for the networks, in bytes; at least those of one photo do."""


@dataclass(frozen=True, eq=False)
class PhotoCrops:
    """The different crops of a photo.

    Attributes:
        rows: for each crop the boxes that show it: a detector that leaves a garment under several categories gives
            one crop several times.
        crops: for every size one (h, w, 3) uint8 a crop.
    """

    rows: Sequence[Ints]
    crops: Mapping[CropSize, Sequence[NDArray[np.uint8]]]


def crops_ahead(split: Split, boxes: Detections, sizes: Sequence[CropSize], num_threads: int) -> Iterator[PhotoCrops]:
    """The crops of every photo that has boxes, in ascending order of image id; each photo is decoded once.

    Args:
        split: where the photos are.
        boxes: N boxes of the split's photos, in any order.
        sizes: of the crops.
        num_threads: that decode and cut; OpenCV works without Python's lock.

    Raises:
        InputError: a photo is missing or damaged.
    """
    order = np.argsort(boxes.image_ids, kind="stable")
    _, starts = np.unique(boxes.image_ids[order], return_index=True)
    bytes_a_box = sum(3 * width * height for (width, height), _ in sizes)
    with ThreadPoolExecutor(num_threads) as pool:
        waiting: deque[tuple[int, Future[PhotoCrops]]] = deque()
        ahead = 0
        try:
            for rows in np.split(order, starts[1:]):
                cost = len(rows) * bytes_a_box
                while waiting and ahead + cost > MOST_AHEAD_BYTES:
                    freed, first = waiting.popleft()
                    ahead -= freed
                    yield first.result()
                waiting.append((cost, pool.submit(_cut, split, boxes, rows, sizes)))
                ahead += cost
            while waiting:
                yield waiting.popleft()[1].result()
        finally:  # also where the reader has failed: nobody wants the rest
            for _, left in waiting:
                left.cancel()


def _cut(split: Split, boxes: Detections, rows: Ints, sizes: Sequence[CropSize]) -> PhotoCrops:
    photo = photos.decode_rgb(split.photo_path(int(boxes.image_ids[rows[0]])))
    margins = tuple(dict.fromkeys(margin for _, margin in sizes))
    size_wh = (photo.shape[1], photo.shape[0])
    alike: dict[tuple[tuple[int, int, int, int], ...], list[int]] = {}
    for row in rows.tolist():
        box = boxes.boxes_xyxy[row]
        alike.setdefault(tuple(window(box, size_wh, margin) for margin in margins), []).append(row)
    firsts = [boxes.boxes_xyxy[some[0]] for some in alike.values()]
    return PhotoCrops(
        [np.array(some) for some in alike.values()],
        {(wh, margin): [crop(photo, box, wh, margin) for box in firsts] for wh, margin in sizes},
    )
