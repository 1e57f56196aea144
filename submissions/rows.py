"""Rows of the challenge result file, checked and written as JSON.

Legend: R rows of a block, K = 20 gallery entries of a row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from harness.types import CATEGORIES, GALLERY_LENGTH, Floats, Ints


@dataclass(frozen=True, eq=False)
class SubmissionRow:
    """One detected consumer garment and its answer.

    Attributes:
        query_image_id: the number in the photo's file name.
        query_bbox: (4,) x1, y1, x2, y2 in pixels.
        query_cls: category 1–13.
        query_score: the detector's score; the scorer lets the highest speak for a garment.
        gallery_image_id: (20,) int64, best first.
        gallery_bbox: (20, 4) x1, y1, x2, y2 in pixels.
    """

    query_image_id: int
    query_bbox: Floats
    query_cls: int
    query_score: float
    gallery_image_id: Ints
    gallery_bbox: Floats


def encode_block(rows: Sequence[SubmissionRow], first_number: int, decimals: int) -> bytes:
    """Rows as JSON objects, one a line, with a comma at the end of every line but the last.

    Args:
        rows: at least one.
        first_number: the number of the first of them in the file, for messages.
        decimals: of box coordinates, 0–9. Scores keep all their digits.

    Raises:
        ValueError: the first row that the scorer cannot read (see `SubmissionRow`).
    """
    columns = _columns(rows)
    if columns is None:
        return b",\n".join(_encode_alone(row, first_number + n, decimals) for n, row in enumerate(rows))
    gallery_ids_RK, query_boxes, gallery_boxes_RK4 = columns
    query_boxes, gallery_boxes_RK4 = np.round(query_boxes, decimals), np.round(gallery_boxes_RK4, decimals)
    text = orjson.dumps(
        [
            _object(row, query_box, gallery_ids, gallery_boxes)
            for row, query_box, gallery_ids, gallery_boxes in zip(
                rows, query_boxes, gallery_ids_RK, gallery_boxes_RK4, strict=True
            )
        ],
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
    # No value is a text, so this can stand nowhere but between two rows.
    return text[1:-1].replace(b'},{"query_image_id"', b'},\n{"query_image_id"')


def _columns(rows: Sequence[SubmissionRow]) -> tuple[Ints, Floats, Floats] | None:
    """Gallery ids, query boxes and gallery boxes of all rows; None if a row has to be looked at alone."""
    try:
        gallery_ids_RK = np.array([row.gallery_image_id for row in rows])
        query_boxes = np.array([row.query_bbox for row in rows], dtype=np.float64)
        gallery_boxes_RK4 = np.array([row.gallery_bbox for row in rows], dtype=np.float64)
        scores = np.array([row.query_score for row in rows], dtype=np.float64)
        categories = np.array([row.query_cls for row in rows])
    except ValueError:
        return None
    shapes = gallery_ids_RK.shape, query_boxes.shape, gallery_boxes_RK4.shape
    if (
        shapes != ((len(rows), GALLERY_LENGTH), (len(rows), 4), (len(rows), GALLERY_LENGTH, 4))
        or gallery_ids_RK.dtype.kind not in "iu"
        or not np.isfinite(scores).all()
        or not ((categories >= 1) & (categories <= len(CATEGORIES))).all()
        or not (_are_boxes(query_boxes) and _are_boxes(gallery_boxes_RK4))
    ):
        return None
    return gallery_ids_RK, query_boxes, gallery_boxes_RK4


def _are_boxes(boxes: Floats) -> bool:
    return bool(np.isfinite(boxes).all() and (boxes[..., :2] <= boxes[..., 2:]).all())


def _encode_alone(row: SubmissionRow, number: int, decimals: int) -> bytes:
    ids = np.asarray(row.gallery_image_id)
    if ids.shape != (GALLERY_LENGTH,) or ids.dtype.kind not in "iu":
        raise ValueError(
            f"row {number}: gallery_image_id: expected {GALLERY_LENGTH} integers, got {ids.dtype} {ids.shape}"
        )
    if not 1 <= row.query_cls <= len(CATEGORIES):
        raise ValueError(f"row {number}: query_cls: expected 1 to {len(CATEGORIES)}, got {row.query_cls}")
    if not math.isfinite(row.query_score):
        raise ValueError(f"row {number}: query_score: expected a finite number, got {row.query_score}")
    query_box = _rounded(row.query_bbox, (4,), f"row {number}: query_bbox", decimals)
    boxes = _rounded(row.gallery_bbox, (GALLERY_LENGTH, 4), f"row {number}: gallery_bbox", decimals)
    return orjson.dumps(_object(row, query_box.tolist(), ids.tolist(), boxes.tolist()))


def _object(row: SubmissionRow, query_box: Any, gallery_ids: Any, gallery_boxes: Any) -> dict[str, Any]:
    return {
        "query_image_id": int(row.query_image_id),
        "query_bbox": query_box,
        "query_cls": int(row.query_cls),
        "query_score": float(row.query_score),
        "gallery_image_id": gallery_ids,
        "gallery_bbox": gallery_boxes,
    }


def _rounded(boxes: Floats, shape: tuple[int, ...], where: str, decimals: int) -> NDArray[np.float64]:
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.shape != shape:
        raise ValueError(f"{where}: expected shape {shape}, got {boxes.shape}")
    if not np.isfinite(boxes).all():
        raise ValueError(f"{where}: is not finite")
    if (boxes[..., :2] > boxes[..., 2:]).any():
        raise ValueError(f"{where}: is inverted")
    return np.round(boxes, decimals)
