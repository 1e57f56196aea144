"""The challenge result file, written block by block in constant memory, plain or as a zip.

Legend: Q queries, K gallery entries of a query (20 in the challenge).
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from harness.types import GALLERY_LENGTH, Detections, InputError, Ranking
from submissions.rows import SubmissionRow, encode_block

REFUSED_BYTES = 300_000_000
"""File size at which the challenge server is reported to have refused files."""

DECIMALS = 3
"""Of box coordinates, where nothing else is asked: no coordinate moves by more than half a thousandth of a pixel."""

ZIPPED_SHARE = 0.4
"""About what is left of a result file in a zip."""

_BLOCK = 1024
_ENCODED_BLOCK = 128
_SAMPLE = 256


@dataclass(frozen=True)
class Written:
    """What `write_submission` wrote.

    Attributes:
        path: the file.
        num_rows: entries in it.
        num_bytes: its size; of a zip the size of the zip.
        warning: None, or why the server might refuse it.
    """

    path: Path
    num_rows: int
    num_bytes: int
    warning: str | None


def write_submission(path: Path, rows: Iterable[SubmissionRow], decimals: int = DECIMALS) -> Written:
    """Write a challenge result file, whole or not at all.

    Boxes that have no more decimals than are written read back exactly, and so does their score. Of other boxes a
    coordinate moves by at most half a unit of the last decimal: only a query can change its outcome for which an
    overlap lies that close to 0.5, or a box overlaps two annotated items equally but for that much.

    Args:
        path: the file; replaced if it exists. Its folder exists. If its name ends in ``.zip``, it becomes a zip of one
            member, named after it with ``.json``; the same rows always give the same bytes.
        rows: any number of entries; no more than 128 of them are held together.
        decimals: of box coordinates, 0–9. Scores keep all their digits: rounding them would make ties,
            and of tied boxes the official scorer hears only the first.

    Returns:
        path, rows, bytes, and a warning from `REFUSED_BYTES` on.

    Raises:
        ValueError: a row is not what the scorer can read (see `SubmissionRow`); nothing is left behind.
        InputError: the folder does not exist.
    """
    _check(decimals)
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; make it, or choose another place for {path.name}")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    num_rows = 0
    waiting = iter(rows)
    try:
        with _stream(partial, path) as stream:
            stream.write(b"[")
            while block := list(islice(waiting, _ENCODED_BLOCK)):
                stream.write(b",\n" if num_rows else b"\n")
                stream.write(encode_block(block, num_rows, decimals))
                num_rows += len(block)
            stream.write(b"\n]\n")
        num_bytes = partial.stat().st_size
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return Written(path, num_rows, num_bytes, _warning(num_bytes, is_zip(path), "is"))


def is_zip(path: Path) -> bool:
    """Whether `write_submission` makes a zip of this name."""
    return path.suffix.lower() == ".zip"


def size_warning(
    num_rows: int, decimals: int = DECIMALS, boxes: Detections | None = None, zipped: bool = False
) -> str | None:
    """Why the server might refuse a file that is still to be written; None if it should not.

    Args:
        num_rows: entries of the file: boxes on consumer photos.
        decimals: of box coordinates, as for `write_submission`.
        boxes: the boxes that will stand in it, if they are known.
        zipped: whether it will be a zip.
    """
    num_bytes = estimate_bytes(num_rows, decimals, boxes)
    return _warning(round(num_bytes * ZIPPED_SHARE) if zipped else num_bytes, zipped, "will be about")


def estimate_bytes(num_rows: int, decimals: int = DECIMALS, boxes: Detections | None = None) -> int:
    """About how large a result file will be, so that too many boxes are noticed before the search.

    Args:
        num_rows: entries of the file.
        decimals: of box coordinates, as for `write_submission`.
        boxes: the boxes that will stand in it; without them, such as DeepFashion2's photos have.

    Returns:
        bytes of JSON, from encoding a sample of rows that are drawn blindly; within a tenth of the real size.

    Raises:
        ValueError: decimals is out of range.
    """
    _check(decimals)
    rng = np.random.default_rng(0)
    if boxes is None or len(boxes) == 0:
        corner = rng.uniform(0, 250, (_SAMPLE, 2))
        boxes = Detections(
            rng.integers(1, 32_154, _SAMPLE),
            np.concatenate([corner, corner + rng.uniform(80, 400, (_SAMPLE, 2))], axis=1),
            rng.random(_SAMPLE),
            rng.integers(1, 14, _SAMPLE),
        )
    shape = _SAMPLE, GALLERY_LENGTH
    drawn = Ranking(
        rng.integers(0, len(boxes), _SAMPLE), rng.integers(0, len(boxes), shape), np.zeros(shape, np.float32)
    )
    encoded = len(encode_block(list(rows_from_ranking(boxes, drawn)), 0, decimals)) + len(",\n")
    return round(num_rows * encoded / _SAMPLE) + len("[]\n\n")


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


@contextmanager
def _stream(partial: Path, path: Path) -> Iterator[IO[bytes]]:
    """Where the JSON goes: into the file, or into the one member of a zip."""
    if not is_zip(path):
        with open(partial, "wb") as stream:
            yield stream
        return
    name = path.stem if path.stem.lower().endswith(".json") else f"{path.stem}.json"
    member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))  # no clock, so that equal rows make equal bytes
    member.compress_type = zipfile.ZIP_DEFLATED
    member.create_system = 3
    member.external_attr = 0o644 << 16
    with (
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive,
        archive.open(member, "w", force_zip64=True) as stream,
    ):
        yield stream


def _check(decimals: int) -> None:
    if not 0 <= decimals <= 9:
        raise ValueError(f"decimals: expected 0 to 9, got {decimals}")


def _warning(num_bytes: int, zipped: bool, verb: str) -> str | None:
    if num_bytes < REFUSED_BYTES:
        return None
    return (
        f"the file {verb} {num_bytes / 1e6:,.0f} MB: the challenge server is reported to have refused files of about "
        f"{REFUSED_BYTES / 1e6:.0f} MB; write "
        + ("" if zipped else "a zip (--out FILE.zip), ")
        + "fewer decimals (--decimals 1), or fewer boxes (WBF_5@126k, say)"
    )
