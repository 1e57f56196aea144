"""The entries of a block as columns: at once where every row is of the right type, field by field where one is not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from harness.scoring.rows import Block, ResultRow
from harness.types import CATEGORIES, GALLERY_LENGTH, Floats, Ints
from submissions.problems import FIELDS, Kind, Tally
from submissions.values import INTEGER_LIMIT, as_number, as_whole, is_box, is_number, shown

NOT_AN_OBJECT = Kind("not-an-object", "error", "expected an object")
MISSING_FIELD = Kind("missing-field", "error", "is missing")
REPEATED_FIELD = Kind("repeated-field", "error", "is given twice in one row; which of them counts is open")
UNKNOWN_FIELD = Kind("unknown-field", "warning", "has fields that nobody reads")
TEXT_ID = Kind("text-id", "error", "expected an integer, got a text: the scorer would silently find nothing")
NOT_AN_ID = Kind("not-an-id", "error", "expected an integer")
NOT_A_BOX = Kind("not-a-box", "error", "expected [x1, y1, x2, y2] in finite pixels")
NOT_A_CATEGORY = Kind("not-a-category", "error", f"expected an integer from 1 to {len(CATEGORIES)}")
NOT_A_SCORE = Kind("not-a-score", "error", "expected a finite number")
NOT_A_LIST = Kind("not-a-list", "error", f"expected a list of {GALLERY_LENGTH}")
WRONG_LENGTH = Kind("wrong-length", "error", f"expected {GALLERY_LENGTH} entries")

MENDS = "; --fix mends this"

_QUOTES_OF_A_ROW = 2 * len(FIELDS)


class Column(NamedTuple):
    """Sound values of one field.

    Attributes:
        values: (N,), or (N, 4) for boxes.
        rows: (N,) the number of the entry of each, ascending.
        places: (N,) the place of each in the field's list; None for a field without one.
        image_ids: (N,) for boxes: the photo of each, -1 where unknown.
    """

    values: Any
    rows: Ints
    places: Ints | None = None
    image_ids: Ints | None = None


@dataclass(frozen=True, slots=True)
class Entries:
    """The sound values of some rows.

    Attributes:
        columns: for each field of `FIELDS` its sound values.
        boxed: the photo id, box and category of every row where all three are sound: (B,) rows, (B,) ids, (B, 4)
            boxes, (B,) categories.
        answers: (A,) rows whose two gallery lists are sound and have 20 entries, (A, 20) ids, (A, 20, 4) boxes.
    """

    columns: dict[str, Column]
    boxed: tuple[Ints, Ints, Floats, Ints]
    answers: tuple[Ints, Ints, Floats]


class RepeatedFields(dict[str, Any]):
    """An object with a field given more than once; the last counts, as for Python's ``json``."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def read_entries(block: Block[ResultRow], tally: Tally) -> Entries:
    """The columns of a block; whatever has another type is left out of them and goes to the tally.

    Args:
        block: the rows.
        tally: gets the problems of types, lengths, missing and repeated fields.
    """
    entries = None if block.rows is None else typed_entries(block.first_row, block.rows)
    if entries is None or block.text.count(b'"') != _QUOTES_OF_A_ROW * block.num_rows:
        return _Walk(tally).entries(block)
    return entries


def walk_rows(block: Block[Any]) -> Iterator[tuple[str, Any]]:
    """Every row of a block, as its text and as Python's ``json`` reads it; see `RepeatedFields`.

    Raises:
        RecursionError: a row is nested so deep that ``json`` gives up.
    """
    text = block.text.decode("utf-8", "surrogatepass")  # as Python's json does
    decode = json.JSONDecoder(object_pairs_hook=_object).raw_decode
    position = 1
    for _ in range(block.num_rows):
        while text[position] in " \t\r\n,":
            position += 1
        value, end = decode(text, position)
        yield text[position:end], value
        position = end


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    return value if len(value) == len(pairs) else RepeatedFields(pairs)


def typed_entries(first_row: int, rows: list[ResultRow]) -> Entries | None:
    """The columns of rows of the right type; None if a list is not of 20 or an integer is too large."""
    num_rows = len(rows)
    wanted = num_rows * GALLERY_LENGTH
    for lists in ([row.gallery_image_id for row in rows], [row.gallery_bbox for row in rows]):
        if set(map(len, lists)) != {GALLERY_LENGTH}:
            return None
    try:
        ids = np.fromiter((row.query_image_id for row in rows), np.int64, num_rows)
        categories = np.fromiter((row.query_cls for row in rows), np.int64, num_rows)
        answer_ids = np.fromiter(chain.from_iterable(row.gallery_image_id for row in rows), np.int64, wanted)
    except OverflowError:
        return None
    if any(np.abs(column).max() >= INTEGER_LIMIT for column in (ids, categories, answer_ids)):
        return None
    scores = np.fromiter((row.query_score for row in rows), np.float64, num_rows)
    boxes = np.fromiter(chain.from_iterable(row.query_bbox for row in rows), np.float64, 4 * num_rows).reshape(-1, 4)
    coordinates = chain.from_iterable(chain.from_iterable(row.gallery_bbox for row in rows))
    answer_boxes = np.fromiter(coordinates, np.float64, 4 * wanted).reshape(-1, 4)
    numbers = np.arange(first_row, first_row + num_rows)
    answer_rows, places = np.repeat(numbers, GALLERY_LENGTH), np.tile(np.arange(GALLERY_LENGTH), num_rows)
    return Entries(
        {
            "query_image_id": Column(ids, numbers),
            "query_bbox": Column(boxes, numbers, None, ids),
            "query_cls": Column(categories, numbers),
            "query_score": Column(scores, numbers),
            "gallery_image_id": Column(answer_ids, answer_rows, places),
            "gallery_bbox": Column(answer_boxes, answer_rows, places, answer_ids),
        },
        (numbers, ids, boxes, categories),
        (numbers, answer_ids.reshape(-1, GALLERY_LENGTH), answer_boxes.reshape(-1, GALLERY_LENGTH, 4)),
    )


class _Walk:
    """Goes through rows one by one; ``found`` has the sound values of each field with row, place and photo."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.found: dict[str, list[tuple[Any, int, int, int]]] = {name: [] for name in FIELDS}
        self.boxed: list[tuple[int, int, list[float], int]] = []
        self.answers: list[tuple[int, list[int], list[list[float]]]] = []

    def entries(self, block: Block[ResultRow]) -> Entries:
        for number, (_, row) in enumerate(walk_rows(block), block.first_row):
            if isinstance(row, dict):
                self._row(row, number)
            else:
                self.tally.add(NOT_AN_OBJECT, number, "", f"expected an object, got {shown(row)}")
        boxes = np.array([box for _, _, box, _ in self.boxed], np.float64).reshape(-1, 4)
        rows, ids, categories = (np.array([one[n] for one in self.boxed], np.int64) for n in (0, 1, 3))
        return Entries(
            {name: self._column(name) for name in FIELDS},
            (rows, ids, boxes, categories),
            (
                np.array([row for row, _, _ in self.answers], np.int64),
                np.array([ids for _, ids, _ in self.answers], np.int64).reshape(-1, GALLERY_LENGTH),
                np.array([boxes for *_, boxes in self.answers], np.float64).reshape(-1, GALLERY_LENGTH, 4),
            ),
        )

    def _column(self, name: str) -> Column:
        found = self.found[name]
        is_boxes, is_list = name.endswith("bbox"), name.startswith("gallery")
        dtype = np.float64 if is_boxes or name == "query_score" else np.int64
        values = np.array([one[0] for one in found], dtype)
        rows, places, ids = (np.array([one[n] for one in found], np.int64) for n in (1, 2, 3))
        return Column(
            values.reshape(-1, 4) if is_boxes else values, rows, places if is_list else None, ids if is_boxes else None
        )

    def _row(self, row: dict[str, Any], number: int) -> None:
        for name in FIELDS:
            if name not in row:
                self.tally.add(MISSING_FIELD, number, name, f"is missing (the row has {_names(row)})")
        if isinstance(row, RepeatedFields):
            for name, count in Counter(name for name, _ in row.pairs).items():
                if count > 1:
                    self.tally.add(
                        REPEATED_FIELD, number, name if name in FIELDS else "", f"{shown(name)} is given {count} times"
                    )
        unknown = [name for name in row if name not in FIELDS]
        if unknown:
            self.tally.add(UNKNOWN_FIELD, number, "", f"has fields that nobody reads: {_names(unknown)}")
        image_id = self._id(row.get("query_image_id"), number, "query_image_id") if "query_image_id" in row else -1
        is_boxed = "query_bbox" in row and self._box(row["query_bbox"], number, "query_bbox", image_id)
        category = self._category(row["query_cls"], number) if "query_cls" in row else None
        if "query_score" in row:
            self._score(row["query_score"], number)
        if image_id >= 0 and is_boxed and category is not None:
            self.boxed.append((number, image_id, row["query_bbox"], category))
        self._answers(row, number)

    def _id(self, value: Any, number: int, name: str, place: int | None = None) -> int:
        """The id; -1 if it is none."""
        mends = MENDS if as_whole(value) is not None else ""
        if isinstance(value, str):
            what = f"expected an integer, got {shown(value)}: the scorer would silently find nothing under a text"
            self.tally.add(TEXT_ID, number, name, what + mends, place)
        elif type(value) is not int or abs(value) >= INTEGER_LIMIT:
            self.tally.add(NOT_AN_ID, number, name, f"expected an integer, got {shown(value)}{mends}", place)
        else:
            self.found[name].append((value, number, place or 0, 0))
            return max(value, -1)
        return -1

    def _box(self, value: Any, number: int, name: str, image_id: int, place: int | None = None) -> bool:
        if is_box(value):
            self.found[name].append((value, number, place or 0, image_id))
            return True
        mends = MENDS if type(value) is list and is_box([_given(as_number(one), one) for one in value]) else ""
        self.tally.add(NOT_A_BOX, number, name, f"{NOT_A_BOX.what}, got {shown(value)}{mends}", place)
        return False

    def _category(self, value: Any, number: int) -> int | None:
        if type(value) is int and abs(value) < INTEGER_LIMIT:
            self.found["query_cls"].append((value, number, 0, 0))
            return value
        mends = MENDS if (as_whole(value) or 0) in range(1, len(CATEGORIES) + 1) else ""
        self.tally.add(NOT_A_CATEGORY, number, "query_cls", f"{NOT_A_CATEGORY.what}, got {shown(value)}{mends}")
        return None

    def _score(self, value: Any, number: int) -> None:
        if is_number(value):
            self.found["query_score"].append((value, number, 0, 0))
        else:
            mends = MENDS if as_number(value) is not None else ""
            self.tally.add(NOT_A_SCORE, number, "query_score", f"expected a finite number, got {shown(value)}{mends}")

    def _answers(self, row: dict[str, Any], number: int) -> None:
        lists: list[list[Any]] = []
        for name in ("gallery_image_id", "gallery_bbox"):
            value = row.get(name)
            if isinstance(value, list):
                lists.append(value[:GALLERY_LENGTH])  # nobody reads further
                if len(value) != GALLERY_LENGTH:
                    self.tally.add(WRONG_LENGTH, number, name, f"{WRONG_LENGTH.what}, got {len(value):,}")
            else:
                lists.append([])
                if name in row:
                    self.tally.add(NOT_A_LIST, number, name, f"{NOT_A_LIST.what}, got {shown(value)}")
        raw_ids, boxes = lists
        ids = [self._id(value, number, "gallery_image_id", place) for place, value in enumerate(raw_ids)]
        ids_of_boxes = ids + [-1] * (len(boxes) - len(ids))
        sound = [
            self._box(box, number, "gallery_bbox", image_id, place)
            for place, (box, image_id) in enumerate(zip(boxes, ids_of_boxes, strict=False))
        ]
        lengths = {
            len(value) for value in (row.get("gallery_image_id"), row.get("gallery_bbox")) if isinstance(value, list)
        }
        if lengths == {GALLERY_LENGTH} and len(ids) == len(sound) and all(sound) and min(ids) >= 0:
            self.answers.append((number, ids, boxes))


def _given(number: float | None, value: Any) -> Any:
    return value if number is None else number


def _names(names: Any) -> str:
    listed = [shown(name) for name in names]
    return ", ".join(listed[:6]) + (", …" if len(listed) > 6 else "") if listed else "none"
