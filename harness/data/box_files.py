"""Boxes from files of other programs, with scores and categories or without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.data.coco import read_coco_results
from harness.types import CATEGORIES, Bools, Detections, Floats, InputError, Ints, Split
from harness.unpacking import DAMAGED, unpacked

FORMS = (
    "a COCO results list (JSON; image_id and bbox [x, y, width, height] in pixels; other fields are ignored) or a "
    "boxes.parquet as the store has them (image_id, x1, y1, x2, y2)"
)

SCORED_FORMS = (
    "a COCO results list (JSON; image_id, category_id 1-13, bbox [x, y, width, height] in pixels, score in [0, 1]) or "
    "a boxes.parquet as the store has them (image_id, x1, y1, x2, y2, score, category_id)"
)


_MOST_OUTSIDE_PX = 5.0
"""A detector's boxes may stick out of their photo by so much."""


class _Box(msgspec.Struct, gc=False):
    image_id: int
    bbox: tuple[float, float, float, float]


def read_boxes(path: Path) -> tuple[Ints, Floats]:
    """The boxes of a file, in its order.

    Args:
        path: what `FORMS` says; a name in ``.parquet`` is taken for Parquet, any other for JSON (or a zip of it).

    Returns:
        Image ids (N,) and corners (N, 4), x1 y1 x2 y2 in pixels.

    Raises:
        InputError: the file is missing, of another form, or has a box that cannot be; the message names the row.
    """
    if path.suffix == ".parquet":
        image_ids, boxes_xyxy, _ = _parquet(path, (), FORMS)
    else:
        image_ids, boxes_xyxy = _json(path)
    _refuse_impossible(path, image_ids, boxes_xyxy)
    return image_ids, boxes_xyxy


def read_scored_boxes(path: Path) -> Detections:
    """Detections of a file, in its order.

    Args:
        path: what `SCORED_FORMS` says; a name in ``.parquet`` is taken for Parquet, any other for JSON or a zip of it.

    Raises:
        InputError: the file is missing, of another form, or has a box that cannot be; the message names the row.
    """
    if path.suffix != ".parquet":
        return read_coco_results(path)
    image_ids, boxes_xyxy, (scores, categories) = _parquet(path, ("score", "category_id"), SCORED_FORMS)
    _refuse_impossible(path, image_ids, boxes_xyxy)
    if categories.dtype.kind not in "iu":
        raise InputError(f"{path}: category_id: expected integers, got {categories.dtype}")
    for column, expected, values, wrong in (
        ("score", "a number from 0 to 1", scores, ~((scores >= 0) & (scores <= 1))),
        ("category_id", f"1 to {len(CATEGORIES)}", categories, (categories < 1) | (categories > len(CATEGORIES))),
    ):
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise InputError(f"{path}: row {row}: {column}: expected {expected}, got {values[row]}")
    return Detections(image_ids, boxes_xyxy, scores.astype(np.float64), categories.astype(np.int64))


def refuse_foreign_boxes(boxes: Path, image_ids: Ints, boxes_xyxy: Floats, split: Split) -> None:
    """Refuse boxes that are not of a split's photos.

    Args:
        boxes: the file, for messages.
        image_ids: (N,).
        boxes_xyxy: (N, 4) pixels.
        split: whose photos they should be of.

    Raises:
        InputError: a box is of a photo that the split does not have; or a tenth and more are far out of their photos,
            which is another convention, or another split.
    """
    foreign = ~np.isin(image_ids, split.photos.image_ids)
    if foreign.any():
        raise InputError(
            f"{boxes}: {foreign.sum():,} of {len(foreign):,} boxes are of photos that {split.name} does not have, "
            f"the first of photo {image_ids[foreign][0]}; give the split that they are of"
        )
    from harness.data.photos import photo_size

    photos, places = np.unique(image_ids, return_inverse=True)
    sizes = np.array([photo_size(split.photo_path(image_id)) for image_id in photos.tolist()]).reshape(-1, 2)[places]
    beyond = np.concatenate([boxes_xyxy[:, 2:] - sizes, -boxes_xyxy[:, :2]], axis=1).max(axis=1, initial=-np.inf)
    outside: Bools = beyond > _MOST_OUTSIDE_PX
    if 10 * outside.sum() > len(outside):
        first = int(np.flatnonzero(outside)[0])
        corners = ", ".join(f"{side:g}" for side in boxes_xyxy[first])
        raise InputError(
            f"{boxes}: {outside.sum():,} of {len(outside):,} boxes stick out of their photos, the first of photo "
            f"{image_ids[first]} with the corners {corners} in {sizes[first][0]} x {sizes[first][1]} pixels; are they "
            "of another split, or x1 y1 x2 y2 where COCO results have x y width height?"
        )


def _refuse_impossible(path: Path, image_ids: Ints, boxes_xyxy: Floats) -> None:
    for what, wrong in (
        ("an image id of at least 0", image_ids < 0),
        ("finite pixels", ~np.isfinite(boxes_xyxy).all(axis=1)),
        ("a box whose sides are not negative", (boxes_xyxy[:, 2:] < boxes_xyxy[:, :2]).any(axis=1)),
    ):
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise InputError(
                f"{path}: row {row}: expected {what}, got corners {boxes_xyxy[row].tolist()} in photo {image_ids[row]}"
            )


def _json(path: Path) -> tuple[Ints, Floats]:
    with unpacked(path) as stream:
        try:
            content = stream.read()
        except DAMAGED as error:
            raise InputError(f"{path}: cannot be read: {error}; expected {FORMS}") from error
    try:
        rows = msgspec.json.decode(content, type=list[_Box])
        image_ids = np.fromiter((row.image_id for row in rows), np.int64, len(rows))
    except (msgspec.MsgspecError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: {error}; expected {FORMS}") from error
    boxes = np.array([row.bbox for row in rows], dtype=np.float64).reshape(-1, 4)
    with np.errstate(over="ignore"):
        boxes[:, 2:] += boxes[:, :2]
    return image_ids, boxes


def _parquet(path: Path, more: Sequence[str], forms: str) -> tuple[Ints, Floats, list[NDArray[Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table: Any = pq.read_table(path)
        image_ids = table["image_id"].to_numpy()
        boxes = np.stack([table[name].to_numpy() for name in ("x1", "y1", "x2", "y2")], axis=1).astype(np.float64)
        others = [table[name].to_numpy() for name in more]
        numbers = all(column.dtype.kind in "iuf" for column in others)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; give {forms}") from error
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as boxes ({error}); expected {forms}") from error
    if image_ids.dtype.kind not in "iu":
        raise InputError(f"{path}: image_id: expected integers, got {image_ids.dtype}")
    if not numbers:
        raise InputError(f"{path}: {', '.join(more)}: expected numbers; give {forms}")
    return image_ids.astype(np.int64), boxes, others
