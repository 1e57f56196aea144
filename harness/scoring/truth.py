"""The ground truth of retrieval: the queries that are asked and the gallery items that answer them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.scoring.columns import box_column, int_column, read_rows
from harness.scoring.overlap import common_codes
from harness.types import Floats, InputError, Ints, Items


@dataclass(frozen=True, eq=False)
class Queries:
    """Annotated consumer items, one row an item, in the order of the query file.

    Attributes:
        image_ids: (N,) int64.
        boxes_xyxy: (N, 4) float64, pixels.
        category_ids: (N,) int64.
        styles: (N,) int64; only items of style > 0 are asked, but the others attract detected boxes too.
        pair_ids: (N,) int64, one per photo.
        source: the file that they were read from, for messages.
    """

    image_ids: Ints
    boxes_xyxy: Floats
    category_ids: Ints
    styles: Ints
    pair_ids: Ints
    source: str = "queries"

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def asked_rows(self) -> Ints:
        """(Q,) int64, the rows of style > 0: the queries of the score, in this order."""
        return np.flatnonzero(self.styles > 0)

    @classmethod
    def from_json(cls, path: Path) -> Queries:
        """Read ``val_query.json``: rows of ``query_image_id``, ``bbox`` (x1 y1 x2 y2), ``cls``, ``style``, ``pair_id``.

        Raises:
            InputError: the first row and field that is missing or has another type.
        """
        rows, source = read_rows(path), str(path)
        return cls(
            int_column(rows, "query_image_id", source),
            box_column(rows, "bbox", source),
            int_column(rows, "cls", source),
            int_column(rows, "style", source),
            int_column(rows, "pair_id", source),
            source,
        )


@dataclass(frozen=True, eq=False)
class Gallery:
    """Annotated shop items, one row an item, in the order of the gallery file.

    Attributes:
        image_ids: (N,) int64.
        boxes_xyxy: (N, 4) float64, pixels.
        styles: (N,) int64.
        pair_ids: (N,) int64.
        source: the file that they were read from, for messages.
    """

    image_ids: Ints
    boxes_xyxy: Floats
    styles: Ints
    pair_ids: Ints
    source: str = "gallery"

    def __len__(self) -> int:
        return len(self.image_ids)

    @classmethod
    def from_json(cls, path: Path) -> Gallery:
        """Read ``val_gallery.json``: rows of ``gallery_image_id``, ``bbox`` (x1 y1 x2 y2), ``style``, ``pair_id``.

        Raises:
            InputError: the first row and field that is missing or has another type.
        """
        rows, source = read_rows(path), str(path)
        return cls(
            int_column(rows, "gallery_image_id", source),
            box_column(rows, "bbox", source),
            int_column(rows, "style", source),
            int_column(rows, "pair_id", source),
            source,
        )


def truth_from_items(items: Items) -> tuple[Queries, Gallery]:
    """The queries and the gallery of an annotated split.

    A consumer item of style > 0 that no shop item of the split matches cannot be asked: it becomes an item of style 0,
    which still attracts detected boxes.

    Args:
        items: all items of the split.

    Returns:
        All consumer items, and all shop items.
    """
    asked, answers = items.take(items.is_consumer), items.take(~items.is_consumer)
    asked_codes, answer_codes = common_codes((asked.pair_ids, asked.styles), (answers.pair_ids, answers.styles))
    styles = np.where(np.isin(asked_codes, answer_codes), asked.styles, 0)
    queries = Queries(asked.image_ids, asked.boxes_xyxy, asked.category_ids, styles, asked.pair_ids)
    return queries, Gallery(answers.image_ids, answers.boxes_xyxy, answers.styles, answers.pair_ids)


def refuse_unanswerable(queries: Queries, gallery: Gallery) -> None:
    """Check that the two files belong together.

    Raises:
        InputError: no query has a style > 0, a photo's queries have several pair ids, or a query of style > 0 has no
            gallery item of its pair and style; names the first such row.
    """
    if not (queries.styles > 0).any():
        raise InputError(f"{queries.source}: style: no row has a style > 0, so there is no query to score")
    order = np.argsort(queries.image_ids, kind="stable")
    split_pair = np.flatnonzero(
        (np.diff(queries.image_ids[order]) == 0) & (np.diff(queries.pair_ids[order]) != 0),
    )
    if len(split_pair):
        before, row = (int(order[position]) for position in (split_pair[0], split_pair[0] + 1))
        raise InputError(
            f"{queries.source}: row {row}: pair_id: expected {queries.pair_ids[before]}, as in row {before} of "
            f"the same photo {queries.image_ids[row]}, got {queries.pair_ids[row]}"
        )
    asked_codes, answer_codes = common_codes((queries.pair_ids, queries.styles), (gallery.pair_ids, gallery.styles))
    alone = (queries.styles > 0) & ~np.isin(asked_codes, answer_codes)
    if alone.any():
        row = int(np.flatnonzero(alone)[0])
        raise InputError(
            f"{queries.source}: row {row}: style: {gallery.source} has no item of pair {queries.pair_ids[row]} and "
            f"style {queries.styles[row]}, so the query can have no right answer; give both files of one split, "
            "or give the query style 0"
        )
