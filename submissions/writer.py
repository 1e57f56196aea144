"""The challenge result file, written row by row in constant memory.

Legend: Q queries, K gallery entries of a query (20 in the challenge).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from harness.types import CATEGORIES, GALLERY_LENGTH, Detections, Floats, InputError, Ints, Ranking

REFUSED_BYTES = 300_000_000
"""File size at which the challenge server is reported to have refused files."""

_BLOCK = 1024


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


@dataclass(frozen=True)
class Written:
    """What `write_submission` wrote.

    Attributes:
        path: the file.
        num_rows: entries in it.
        num_bytes: its size.
        warning: None, or why the server might refuse it.
    """

    path: Path
    num_rows: int
    num_bytes: int
    warning: str | None


def write_submission(path: Path, rows: Iterable[SubmissionRow], decimals: int = 3) -> Written:
    """Write a challenge result file, whole or not at all.

    Args:
        path: the file; replaced if it exists. Its folder exists.
        rows: any number of entries; they are taken one by one and never held together.
        decimals: of box coordinates, 0–9. Scores keep all their digits: rounding them would make ties,
            and of tied boxes the official scorer hears only the first.

    Returns:
        path, rows, bytes, and a warning from `REFUSED_BYTES` on.

    Raises:
        ValueError: a row is not what the scorer can read (see `SubmissionRow`); nothing is left behind.
        InputError: the folder does not exist.
    """
    if not 0 <= decimals <= 9:
        raise ValueError(f"decimals: expected 0 to 9, got {decimals}")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; make it, or choose another place for {path.name}")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    num_rows = 0
    try:
        with open(partial, "wb") as stream:
            stream.write(b"[")
            for row in rows:
                stream.write(b",\n" if num_rows else b"\n")
                stream.write(_encode(row, num_rows, decimals))
                num_rows += 1
            stream.write(b"\n]\n")
        num_bytes = partial.stat().st_size
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return Written(path, num_rows, num_bytes, _size_warning(num_bytes))


def estimate_bytes(num_rows: int, decimals: int = 3) -> int:
    """About how large a result file will be, so that too many boxes are noticed before the search.

    Args:
        num_rows: entries of the file.
        decimals: of box coordinates, as for `write_submission`.

    Returns:
        bytes, taking photos of 100 to 999 pixels and image ids of five digits: within a fifth of the real size.
    """
    coordinate = 3 + (1 + decimals if decimals else 2) + 1  # "123.456,"; whole numbers are written "123.0,"
    box = 4 * coordinate + 2
    names_and_score = 140
    return num_rows * (names_and_score + box + GALLERY_LENGTH * (box + len("12345,")))


def rows_from_ranking(boxes: Detections, ranking: Ranking) -> Iterator[SubmissionRow]:
    """The challenge entries of a ranking.

    The challenge wants exactly 20 gallery entries, and its scorer crashes on fewer: a longer ranking is
    cut, and a gallery of fewer than 20 boxes is filled up by repeating the last entry, which can turn no
    miss into a hit and no hit into a miss.

    Args:
        boxes: the box set whose rows the ranking speaks of.
        ranking: (Q, K) gallery rows with K >= 1.

    Yields:
        one row a query, in the order of the ranking.

    Raises:
        InputError: the ranking has no gallery entry at all.
    """
    num_queries, length = ranking.gallery_rows_QK.shape
    if num_queries and not length:
        raise InputError("the gallery is empty: no shop box was found, so there is nothing to answer with")
    places = np.minimum(np.arange(GALLERY_LENGTH), length - 1)
    for start in range(0, num_queries, _BLOCK):
        query_rows = ranking.query_rows[start : start + _BLOCK]
        gallery_rows_Q20 = ranking.gallery_rows_QK[start : start + _BLOCK][:, places]
        image_ids_Q20 = boxes.image_ids[gallery_rows_Q20]
        boxes_Q20x4 = boxes.boxes_xyxy[gallery_rows_Q20]
        for offset, row in enumerate(query_rows.tolist()):
            yield SubmissionRow(
                query_image_id=int(boxes.image_ids[row]),
                query_bbox=boxes.boxes_xyxy[row],
                query_cls=int(boxes.category_ids[row]),
                query_score=float(boxes.scores[row]),
                gallery_image_id=image_ids_Q20[offset],
                gallery_bbox=boxes_Q20x4[offset],
            )


def _encode(row: SubmissionRow, number: int, decimals: int) -> bytes:
    ids = np.asarray(row.gallery_image_id)
    if ids.shape != (GALLERY_LENGTH,) or ids.dtype.kind not in "iu":
        raise ValueError(
            f"row {number}: gallery_image_id: expected {GALLERY_LENGTH} integers, got {ids.dtype} {ids.shape}"
        )
    if not 1 <= row.query_cls <= len(CATEGORIES):
        raise ValueError(f"row {number}: query_cls: expected 1 to {len(CATEGORIES)}, got {row.query_cls}")
    if not math.isfinite(row.query_score):
        raise ValueError(f"row {number}: query_score: expected a finite number, got {row.query_score}")
    return orjson.dumps(
        {
            "query_image_id": int(row.query_image_id),
            "query_bbox": _rounded(row.query_bbox, (4,), f"row {number}: query_bbox", decimals).tolist(),
            "query_cls": int(row.query_cls),
            "query_score": float(row.query_score),
            "gallery_image_id": ids.tolist(),
            "gallery_bbox": _rounded(
                row.gallery_bbox, (GALLERY_LENGTH, 4), f"row {number}: gallery_bbox", decimals
            ).tolist(),
        }
    )


def _rounded(boxes: Floats, shape: tuple[int, ...], where: str, decimals: int) -> NDArray[np.float64]:
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.shape != shape:
        raise ValueError(f"{where}: expected shape {shape}, got {boxes.shape}")
    if not np.isfinite(boxes).all():
        raise ValueError(f"{where}: is not finite")
    if (boxes[..., :2] > boxes[..., 2:]).any():
        raise ValueError(f"{where}: is inverted")
    return np.round(boxes, decimals)


def _size_warning(num_bytes: int) -> str | None:
    if num_bytes < REFUSED_BYTES:
        return None
    return (
        f"{num_bytes / 1e6:,.0f} MB: the challenge server is reported to have refused files of about "
        f"{REFUSED_BYTES / 1e6:.0f} MB; write fewer decimals, or fewer boxes (WBF_5@126k, say)"
    )
