"""The challenge's result file as columns.

Legend: R result rows, K gallery entries of a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from harness.scoring.columns import (
    box_column,
    box_lists,
    float_column,
    int_column,
    int_lists,
    list_lengths,
    object_rows,
)
from harness.scoring.halves import Columns, read_halves
from harness.scoring.rows import MAX_ROWS, Block, ResultRow, blocks, stream_blocks
from harness.types import GALLERY_LENGTH, Detections, Floats, InputError, Ints, Ranking


@dataclass(frozen=True, eq=False)
class Results:
    """What a team hands in: for every detected consumer box its nearest gallery boxes, best first.

    Attributes:
        image_ids: (R,) int64, the consumer photo.
        boxes_xyxy: (R, 4) float64, pixels.
        scores: (R,) float64, finite; the detector's certainty.
        category_ids: (R,) int64; a number outside 1–13 never matches.
        gallery_image_ids_RK: (R, 20) int64.
        gallery_boxes_xyxy_RK4: (R, 20, 4) float64, pixels.
        num_entries: gallery entries of each row in the file; those after the 20th count nothing.

    Raises:
        ValueError: a column has another shape, or a number is not finite.
    """

    image_ids: Ints
    boxes_xyxy: Floats
    scores: Floats
    category_ids: Ints
    gallery_image_ids_RK: Ints
    gallery_boxes_xyxy_RK4: Floats
    num_entries: int = GALLERY_LENGTH

    def __post_init__(self) -> None:
        num_rows = len(self.image_ids)
        shapes = {
            "image_ids": (num_rows,),
            "boxes_xyxy": (num_rows, 4),
            "scores": (num_rows,),
            "category_ids": (num_rows,),
            "gallery_image_ids_RK": (num_rows, GALLERY_LENGTH),
            "gallery_boxes_xyxy_RK4": (num_rows, GALLERY_LENGTH, 4),
        }
        for name, shape in shapes.items():
            column = getattr(self, name)
            if column.shape != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {column.shape}")
            if not np.isfinite(column).all():
                raise ValueError(f"{name}: row {int(np.argwhere(~np.isfinite(column))[0][0])} is not finite")

    def __len__(self) -> int:
        return len(self.image_ids)

    @classmethod
    def from_json(cls, path: Path) -> Results:
        """Read a challenge result file.

        Args:
            path: a JSON list; each row has ``query_image_id``, ``query_bbox``, ``query_cls``, ``query_score``,
                ``gallery_image_id`` and ``gallery_bbox``. All rows have the same number of gallery entries, at least
                20; the first 20 count.

        Raises:
            InputError: the first row and field that is not so. The official script crashes there, or scores zero.
        """
        columns = read_halves(path, lambda stream: _read(stream_blocks(stream, str(path), ResultRow), str(path)))
        if columns is None or len(columns[0]) > MAX_ROWS or (columns[_LENGTH] != columns[_LENGTH][0]).any():
            columns = _joined(_read(blocks(path, ResultRow), str(path)))
        image_ids, boxes, scores, category_ids, gallery_image_ids, gallery_boxes, lengths = columns
        num_entries = int(lengths[0]) if len(lengths) else GALLERY_LENGTH
        return cls(image_ids, boxes, scores, category_ids, gallery_image_ids, gallery_boxes, num_entries)

    @classmethod
    def from_ranking(cls, ranking: Ranking, boxes: Detections, gallery: Detections | None = None) -> Results:
        """The result file that a ranking would be written as, without the file.

        Args:
            ranking: its query rows are rows of ``boxes``; fewer than 20 gallery rows a query are filled up by repeating
                the last, as the writer does.
            boxes: the box set that asked, and that was searched if no other is given.
            gallery: the box set that was searched, whose rows the ranking's gallery rows are.

        Raises:
            ValueError: the ranking has no gallery rows.
        """
        length = ranking.gallery_rows_QK.shape[1]
        if len(ranking.query_rows) and not length:
            raise ValueError("ranking: there are no gallery rows")
        asking = boxes.take(ranking.query_rows)
        answers = np.zeros((0, GALLERY_LENGTH), np.int64)
        if len(ranking.query_rows):
            answers = ranking.gallery_rows_QK[:, np.minimum(np.arange(GALLERY_LENGTH), length - 1)]
        searched = boxes if gallery is None else gallery
        return cls(
            asking.image_ids,
            asking.boxes_xyxy,
            asking.scores,
            asking.category_ids,
            searched.image_ids[answers],
            searched.boxes_xyxy[answers],
        )


_LENGTH = 6
"""The column that holds how many gallery entries the file has in each row."""


def _read(found: Iterator[Block[ResultRow]], source: str) -> list[Columns]:
    parts: list[Columns] = []
    length = None
    for block in found:
        quick = None if block.rows is None else _quick_columns(block.rows, length)
        columns = quick or _columns(block, length, source)
        length = int(columns[_LENGTH][0])
        parts.append(columns)
    return parts


def _quick_columns(rows: list[ResultRow], length: int | None) -> Columns | None:
    """The columns of rows that are all right; None where one is not."""
    lengths = {*map(len, (row.gallery_image_id for row in rows)), *map(len, (row.gallery_bbox for row in rows))}
    if len(lengths) > 1 or min(lengths) < GALLERY_LENGTH or length not in (None, *lengths):
        return None
    length = lengths.pop()
    num_rows, num_entries = len(rows), len(rows) * length
    ids = chain.from_iterable([row.gallery_image_id for row in rows])
    boxes = chain.from_iterable(chain.from_iterable([row.gallery_bbox for row in rows]))
    try:
        return (
            np.fromiter([row.query_image_id for row in rows], np.int64, num_rows),
            np.array([row.query_bbox for row in rows], np.float64),
            np.fromiter([row.query_score for row in rows], np.float64, num_rows),
            np.fromiter([row.query_cls for row in rows], np.int64, num_rows),
            np.fromiter(ids, np.int64, num_entries).reshape(num_rows, -1)[:, :GALLERY_LENGTH],
            np.fromiter(boxes, np.float64, 4 * num_entries).reshape(num_rows, -1, 4)[:, :GALLERY_LENGTH],
            np.full(num_rows, length),
        )
    except OverflowError:  # an id of more than 64 bits
        return None


def _columns(block: Block[ResultRow], length: int | None, source: str) -> Columns:
    """The columns of rows that are written in another way, or the first thing that is wrong with them."""
    rows, first = object_rows(block, ResultRow, source), block.first_row
    lengths = list_lengths(rows, "gallery_image_id", source, first)
    if (lengths < GALLERY_LENGTH).any():
        row = int(np.flatnonzero(lengths < GALLERY_LENGTH)[0])
        raise InputError(
            f"{source}: row {first + row}: gallery_image_id: expected {GALLERY_LENGTH} entries, got {lengths[row]}; "
            "write that many gallery boxes for every query box"
        )
    wanted = int(lengths[0]) if length is None else length
    for field, found in (
        ("gallery_image_id", lengths),
        ("gallery_bbox", list_lengths(rows, "gallery_bbox", source, first)),
    ):
        if (found != wanted).any():
            row = int(np.flatnonzero(found != wanted)[0])
            raise InputError(
                f"{source}: row {first + row}: {field}: expected {wanted} entries as in gallery_image_id of row 0, "
                f"got {found[row]}; write as many for every row"
            )
    return (
        int_column(rows, "query_image_id", source, first),
        box_column(rows, "query_bbox", source, first),
        float_column(rows, "query_score", source, first),
        int_column(rows, "query_cls", source, first),
        int_lists(rows, "gallery_image_id", source, GALLERY_LENGTH, first),
        box_lists(rows, "gallery_bbox", source, GALLERY_LENGTH, first),
        lengths,
    )


def _joined(parts: list[Columns]) -> Columns:
    """The blocks' columns end to end; each is freed once copied, so that only one is held twice."""
    if not parts:
        parts = [_NO_ROWS]
    columns = [list(column) for column in zip(*parts, strict=True)]
    parts.clear()
    columns.reverse()
    return tuple(np.concatenate(columns.pop()) for _ in range(len(columns)))


_NO_ROWS: Columns = (
    np.zeros(0, np.int64),
    np.zeros((0, 4)),
    np.zeros(0),
    np.zeros(0, np.int64),
    np.zeros((0, GALLERY_LENGTH), np.int64),
    np.zeros((0, GALLERY_LENGTH, 4)),
    np.zeros(0, np.int64),
)
