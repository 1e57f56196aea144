"""Columns out of parsed JSON rows: fast when the rows are right, exact about the first place where they are not.

``first_row`` is the number of the first of the rows in their file, for messages.
"""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from harness.scoring.rows import Block, RowT, blocks, objects, repeated_field
from harness.types import Floats, InputError, Ints

_NUMBERS = {int, float}


def typed_rows(path: Path, row_type: type[RowT]) -> list[RowT] | None:
    """All rows of a file of moderate size; None where one is of another type or has a field twice (see `read_rows`).

    Raises:
        InputError: the file cannot be read, or is not a JSON list.
    """
    rows: list[RowT] = []
    for block in blocks(path, row_type):
        if block.rows is None:
            return None
        rows += block.rows
    return rows


def read_rows(path: Path, row_type: type[msgspec.Struct]) -> list[dict[str, Any]]:
    """The objects of a file that holds one JSON list of objects.

    Args:
        path: the file.
        row_type: the fields that matter; what they hold is not looked at.

    Raises:
        InputError: the file cannot be read, is not JSON, or is not a list of objects, or one has a field twice; names
            the row where there is one.
    """
    return [row for block in blocks(path, row_type) for row in object_rows(block, row_type, str(path))]


def object_rows(block: Block[Any], row_type: type[msgspec.Struct], source: str) -> list[dict[str, Any]]:
    """The rows of a block as Python objects.

    Raises:
        InputError: the first row that is no object, or the first that has a field of the type twice.
    """
    rows = objects(block)
    if set(map(type, rows)) - {dict}:
        row = next(number for number, value in enumerate(rows) if type(value) is not dict)
        raise InputError(f"{source}: row {block.first_row + row}: expected an object, got {_described(rows[row])}")
    repeated = None if block.rows is not None else repeated_field(block.text, row_type)
    if repeated is not None:
        row, field = repeated
        raise InputError(f"{source}: row {block.first_row + row}: has the field {field!r} twice; keep one of them")
    return rows


def int_column(rows: list[dict[str, Any]], field: str, source: str, first_row: int = 0) -> Ints:
    """One integer a row; a number such as 7.0 is read as 7.

    Raises:
        InputError: the first row whose value is missing or no whole number.
    """
    values = _field(rows, field, source, first_row)
    if not set(map(type, values)) <= _NUMBERS:
        row = next(number for number, value in enumerate(values) if type(value) not in _NUMBERS)
        raise _wrong(source, first_row + row, field, "an integer", values[row])
    try:
        exact = np.fromiter(values, np.float64, len(values))
        column = np.fromiter(map(int, values), np.int64, len(values))
    except (OverflowError, ValueError) as error:
        row = next(number for number, value in enumerate(values) if not -(2**63) <= value < 2**63)
        raise _wrong(source, first_row + row, field, "an integer of at most 64 bits", values[row]) from error
    if not (np.floor(exact) == exact).all():
        row = int(np.flatnonzero(np.floor(exact) != exact)[0])
        raise _wrong(source, first_row + row, field, "an integer", values[row])
    return column


def float_column(rows: list[dict[str, Any]], field: str, source: str, first_row: int = 0) -> Floats:
    """One finite number a row.

    Raises:
        InputError: the first row whose value is missing or no finite number.
    """
    values = _field(rows, field, source, first_row)
    if not set(map(type, values)) <= _NUMBERS:
        row = next(number for number, value in enumerate(values) if type(value) not in _NUMBERS)
        raise _wrong(source, first_row + row, field, "a number", values[row])
    column = _finite(values)
    if column is None:
        row = next(number for number, value in enumerate(values) if _finite([value]) is None)
        raise _wrong(source, first_row + row, field, "a finite number", values[row])
    return column


def box_column(rows: list[dict[str, Any]], field: str, source: str, first_row: int = 0) -> Floats:
    """One box [x1, y1, x2, y2] a row, as (rows, 4).

    Raises:
        InputError: the first row whose value is missing or is not four finite numbers.
    """
    column = _boxes(_field(rows, field, source, first_row))
    if column is None:
        row = next(number for number, value in enumerate(rows) if _boxes([value[field]]) is None)
        raise _wrong(source, first_row + row, field, "a box [x1, y1, x2, y2] of four finite numbers", rows[row][field])
    return column


def list_lengths(rows: list[dict[str, Any]], field: str, source: str, first_row: int = 0) -> Ints:
    """The length of the list in each row.

    Raises:
        InputError: the first row whose value is missing or is no list.
    """
    values = _field(rows, field, source, first_row)
    if set(map(type, values)) - {list}:
        row = next(number for number, value in enumerate(values) if type(value) is not list)
        raise _wrong(source, first_row + row, field, "a list", values[row])
    return np.fromiter(map(len, values), np.int64, len(values))


def int_lists(rows: list[dict[str, Any]], field: str, source: str, length: int, first_row: int = 0) -> Ints:
    """The first ``length`` integers of the list in each row, as (rows, length); see `list_lengths` for the lengths.

    Raises:
        InputError: the first row with a value that is no whole number.
    """
    values = list(chain.from_iterable(row[field][:length] for row in rows))
    if set(map(type, values)) <= {int}:
        try:
            return np.fromiter(values, np.int64, len(values)).reshape(len(rows), length)
        except OverflowError:
            pass  # the walk below names the row
    parts = []
    for number, row in enumerate(rows):
        entries = [{field: value} for value in row[field][:length]]
        try:
            parts.append(int_column(entries, field, source))
        except InputError as error:
            raise _wrong(source, first_row + number, field, f"a list of {length} integers", row[field]) from error
    return np.stack(parts)


def box_lists(rows: list[dict[str, Any]], field: str, source: str, length: int, first_row: int = 0) -> Floats:
    """The first ``length`` boxes of the list in each row, as (rows, length, 4).

    Raises:
        InputError: the first row and entry that is not four finite numbers.
    """
    column = _boxes(list(chain.from_iterable(row[field][:length] for row in rows)))
    if column is not None:
        return column.reshape(len(rows), length, 4)
    for number, row in enumerate(rows):
        for entry, box in enumerate(row[field][:length]):
            if _boxes([box]) is None:
                place = f"{field}[{entry}]"
                raise _wrong(source, first_row + number, place, "a box [x1, y1, x2, y2] of four finite numbers", box)
    raise AssertionError("the boxes of no single row are wrong")


def _field(rows: list[dict[str, Any]], field: str, source: str, first_row: int) -> list[Any]:
    try:
        return [row[field] for row in rows]
    except KeyError:
        number = next(number for number, row in enumerate(rows) if field not in row)
        raise InputError(
            f"{source}: row {first_row + number}: the field {field!r} is missing (it has {sorted(rows[number])})"
        ) from None


def _boxes(boxes: list[Any]) -> Floats | None:
    if set(map(type, boxes)) - {list} or set(map(len, boxes)) - {4}:
        return None
    flat = list(chain.from_iterable(boxes))
    if set(map(type, flat)) - _NUMBERS:
        return None
    column = _finite(flat)
    return None if column is None else column.reshape(-1, 4)


def _finite(values: list[Any]) -> Floats | None:
    try:
        column = np.fromiter(values, np.float64, len(values))
    except OverflowError:
        return None
    return column if np.isfinite(column).all() else None


def _wrong(source: str, row: int, field: str, expected: str, got: Any) -> InputError:
    return InputError(f"{source}: row {row}: {field}: expected {expected}, got {_described(got)}")


def _described(value: Any) -> str:
    if isinstance(value, (dict, list)) and len(value) > 4:
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
