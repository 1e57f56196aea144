"""The ground truth of retrieval: the queries that are asked and the gallery items that answer them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from harness.scoring.columns import box_column, int_column, read_rows, typed_rows
from harness.scoring.overlap import common_codes
from harness.scoring.rows import GalleryRow, QueryRow
from harness.types import Floats, InputError, Ints, Items

ATTRIBUTES = ("scale", "occlusion", "zoom_in", "viewpoint")
"""How a garment is shown, 1–3 each; the annotations have them, the official query file has not."""


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
        attributes: (N,) int64 for those of `ATTRIBUTES` that are known, 1–3; 0 where an item is not annotated so.
        is_rendered: whether the file says that its photos are rendered ones, not DeepFashion2's.
    """

    image_ids: Ints
    boxes_xyxy: Floats
    category_ids: Ints
    styles: Ints
    pair_ids: Ints
    source: str = "queries"
    attributes: Mapping[str, Ints] = field(default_factory=dict)
    is_rendered: bool = False

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def asked_rows(self) -> Ints:
        """(Q,) int64, the rows of style > 0: the queries of the score, in this order."""
        return np.flatnonzero(self.styles > 0)

    @classmethod
    def from_json(cls, path: Path) -> Queries:
        """Read ``val_query.json``: rows of ``query_image_id``, ``bbox`` (x1 y1 x2 y2), ``cls``, ``style``, ``pair_id``.

        Each of ``scale``, ``occlusion``, ``zoom_in``, ``viewpoint`` and ``rendered`` is in all rows or in none.

        Raises:
            InputError: the first row and field that is missing or has another type.
        """
        columns = _columns(
            path, QueryRow, ("query_image_id", "bbox", "cls", "style", "pair_id"), (*ATTRIBUTES, "rendered")
        )
        image_ids, boxes_xyxy, category_ids, styles, pair_ids = columns[:5]
        *found, rendered = columns[5:]
        attributes = {name: column for name, column in zip(ATTRIBUTES, found, strict=True) if column is not None}
        for name, column in attributes.items():
            outside = np.flatnonzero((column < 0) | (column > 3))
            if len(outside):
                raise InputError(
                    f"{path}: row {outside[0]}: {name}: expected 1, 2 or 3, or 0 where it is not known, "
                    f"got {column[outside[0]]}"
                )
        is_rendered = rendered is not None and bool((rendered > 0).any())
        return cls(image_ids, boxes_xyxy, category_ids, styles, pair_ids, str(path), attributes, is_rendered)


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
        image_ids, boxes_xyxy, styles, pair_ids = _columns(
            path, GalleryRow, ("gallery_image_id", "bbox", "style", "pair_id")
        )
        return cls(image_ids, boxes_xyxy, styles, pair_ids, str(path))


def _columns(
    path: Path, row_type: type[msgspec.Struct], fields: Sequence[str], optional: Sequence[str] = ()
) -> list[Any]:
    """A column for each field, and for each optional one a column or None; exact about the first row that is wrong."""
    typed, source = typed_rows(path, row_type), str(path)
    if typed:
        given = [name for name in optional if getattr(typed[0], name) is not msgspec.UNSET]
        try:
            columns = {name: _column([getattr(row, name) for row in typed]) for name in (*fields, *given)}
        except (OverflowError, TypeError):
            pass  # a number of more than 64 bits, or an optional field that only some rows have
        else:
            if all(getattr(row, name) is msgspec.UNSET for name in set(optional) - {*given} for row in typed):
                return [columns.get(name) for name in (*fields, *optional)]
    rows = read_rows(path, row_type)
    read = [(box_column if name == "bbox" else int_column)(rows, name, source) for name in fields]
    return [*read, *(_optional_column(rows, name, source) for name in optional)]


def _column(values: list[Any]) -> Any:
    if isinstance(values[0], tuple):
        return np.array(values, np.float64)
    return np.fromiter(values, np.int64, len(values))


def _optional_column(rows: list[dict[str, Any]], name: str, source: str) -> Ints | None:
    has = [name in row for row in rows]
    if not any(has):
        return None
    if not all(has):
        row = has.index(not has[0])
        raise InputError(
            f"{source}: row {row}: {name}: expected in all rows or in none, got it in {sum(has):,} of "
            f"{len(has):,}; write it for every item, 0 where it is not known"
        )
    return int_column(rows, name, source)


def read_truth(queries: Path, gallery: Path) -> tuple[Queries, Gallery]:
    """The two files of a split.

    Raises:
        InputError: a file cannot be read, a row is wrong, or they do not belong together.
    """
    truth = Queries.from_json(queries), Gallery.from_json(gallery)
    refuse_unanswerable(*truth)
    return truth


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
    queries = Queries(
        asked.image_ids,
        asked.boxes_xyxy,
        asked.category_ids,
        styles,
        asked.pair_ids,
        attributes=dict(zip(ATTRIBUTES, _attribute_columns(asked), strict=True)),
    )
    return queries, Gallery(answers.image_ids, answers.boxes_xyxy, answers.styles, answers.pair_ids)


def with_attributes(queries: Queries, items: Items, source: str = "the annotations") -> Queries:
    """Join queries with the attributes of the annotated items that they were made from.

    Args:
        queries: of a query file.
        items: of the same photos; an item is a query's if photo, box, category and style are the same.
        source: where the items are from, for messages.

    Returns:
        The same queries; unasked ones that no item equals (a style that nothing answers is written as 0) have zeros.

    Raises:
        InputError: a query of style > 0 has no such item; names the first row.
    """
    query_keys, item_keys = common_codes(
        *(
            (rows.image_ids, *_exact(rows.boxes_xyxy), rows.category_ids, rows.styles)
            for rows in (queries, items.take(items.is_consumer))
        )
    )
    known, first = np.unique(item_keys, return_index=True)
    places = np.searchsorted(known, query_keys)
    is_known = np.isin(query_keys, known)
    unknown = np.flatnonzero(~is_known & (queries.styles > 0))
    if len(unknown):
        row = int(unknown[0])
        raise InputError(
            f"{queries.source}: row {row}: {source} has no consumer item of photo {queries.image_ids[row]} with this "
            f"box, category and style ({len(unknown):,} such rows of {len(queries):,}); give the data set and split "
            "that the query file was made from"
        )
    attributes = {}
    for name, column in zip(ATTRIBUTES, _attribute_columns(items.take(items.is_consumer)), strict=True):
        values = np.zeros(len(queries), np.int64)
        values[is_known] = column[first[places[is_known]]]
        attributes[name] = values
    return replace(queries, attributes=attributes)


def _attribute_columns(items: Items) -> tuple[Ints, Ints, Ints, Ints]:
    """In the order of `ATTRIBUTES`."""
    return items.scales, items.occlusions, items.zoom_ins, items.viewpoints


def _exact(boxes_xyxy: Floats) -> tuple[Any, ...]:
    """The four sides as integers that are equal where the numbers are; -0.0 equals 0.0."""
    return tuple(np.ascontiguousarray(boxes_xyxy.T + 0.0).view(np.int64))


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
