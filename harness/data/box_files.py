"""Boxes without scores or categories, from files of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from harness.types import Floats, InputError, Ints
from harness.unpacking import DAMAGED, unpacked

FORMS = (
    "a COCO results list (JSON; image_id and bbox [x, y, width, height] in pixels; other fields are ignored) or a "
    "boxes.parquet as the store has them (image_id, x1, y1, x2, y2)"
)


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
    image_ids, boxes_xyxy = _parquet(path) if path.suffix == ".parquet" else _json(path)
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
    return image_ids, boxes_xyxy


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


def _parquet(path: Path) -> tuple[Ints, Floats]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table: Any = pq.read_table(path)
        image_ids = table["image_id"].to_numpy()
        boxes = np.stack([table[name].to_numpy() for name in ("x1", "y1", "x2", "y2")], axis=1).astype(np.float64)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; give {FORMS}") from error
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as boxes ({error}); expected {FORMS}") from error
    if image_ids.dtype.kind not in "iu":
        raise InputError(f"{path}: image_id: expected integers, got {image_ids.dtype}")
    return image_ids.astype(np.int64), boxes
