"""The challenge's result file as columns.

Legend: R result rows, K gallery entries of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.scoring.columns import box_column, box_lists, float_column, int_column, int_lists, list_lengths, read_rows
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

    Raises:
        ValueError: a column has another shape, or a number is not finite.
    """

    image_ids: Ints
    boxes_xyxy: Floats
    scores: Floats
    category_ids: Ints
    gallery_image_ids_RK: Ints
    gallery_boxes_xyxy_RK4: Floats

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
        source = str(path)
        rows = read_rows(path)
        lengths = list_lengths(rows, "gallery_image_id", source)
        if (lengths < GALLERY_LENGTH).any():
            row = int(np.flatnonzero(lengths < GALLERY_LENGTH)[0])
            raise InputError(
                f"{source}: row {row}: gallery_image_id: expected {GALLERY_LENGTH} entries, got {lengths[row]}; "
                "write that many gallery boxes for every query box"
            )
        for field, found in (
            ("gallery_image_id", lengths),
            ("gallery_bbox", list_lengths(rows, "gallery_bbox", source)),
        ):
            if len(rows) and (found != lengths[0]).any():
                row = int(np.flatnonzero(found != lengths[0])[0])
                raise InputError(
                    f"{source}: row {row}: {field}: expected {lengths[0]} entries as in gallery_image_id of row 0, "
                    f"got {found[row]}; write as many for every row"
                )
        return cls(
            int_column(rows, "query_image_id", source),
            box_column(rows, "query_bbox", source),
            float_column(rows, "query_score", source),
            int_column(rows, "query_cls", source),
            int_lists(rows, "gallery_image_id", source, GALLERY_LENGTH),
            box_lists(rows, "gallery_bbox", source, GALLERY_LENGTH),
        )

    @classmethod
    def from_ranking(cls, ranking: Ranking, boxes: Detections) -> Results:
        """The result file that a ranking would be written as, without the file.

        Args:
            ranking: its rows are rows of ``boxes``; at least 20 gallery rows a query.
            boxes: the box set that was searched, consumer and shop boxes together.

        Raises:
            ValueError: the ranking has fewer than 20 gallery rows a query.
        """
        asking = boxes.take(ranking.query_rows)
        answers = ranking.gallery_rows_QK[:, :GALLERY_LENGTH]
        return cls(
            asking.image_ids,
            asking.boxes_xyxy,
            asking.scores,
            asking.category_ids,
            boxes.image_ids[answers],
            boxes.boxes_xyxy[answers],
        )
