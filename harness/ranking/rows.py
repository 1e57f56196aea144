"""Rows of features where they lie: arrays, memory maps, and choices of their rows, read block by block.

Legend: N rows, D dimensions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.types import InputError, Ints


class FeatureRows(Protocol):
    """What ranking needs of one model's features: an array, a memory map, `ChosenRows` of one, or `JoinedRows`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """A floating type."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """The rows of a slice or of an index array, (n, D)."""


class ChosenRows:
    """Some rows of an array in a given order, copied only when they are read.

    Args:
        array: (M, D), may be a memory map.
        rows: (N,) int64, which of its rows.
    """

    def __init__(self, array: NDArray[Any], rows: Ints) -> None:
        self.array = array
        self.rows = np.asarray(rows, np.int64)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""
        return len(self.rows), *self.array.shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the array."""
        return self.array.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        wanted = self.rows[rows]
        if isinstance(rows, slice) and len(wanted) and bool((np.diff(wanted) == 1).all()):
            wanted = slice(wanted[0], wanted[-1] + 1)  # they follow one another: no copy
        found: NDArray[Any] = self.array[wanted]
        return found


class JoinedRows:
    """The rows of two sets of features below one another, copied only when they are read.

    Args:
        upper: (M, D), its rows come first.
        lower: (N - M, D).
    """

    def __init__(self, upper: FeatureRows, lower: FeatureRows) -> None:
        self.upper = upper
        self.lower = lower

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""
        return len(self), *self.upper.shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """One that holds the numbers of both."""
        return np.result_type(self.upper.dtype, self.lower.dtype)

    def __len__(self) -> int:
        return len(self.upper) + len(self.lower)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        border = len(self.upper)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1 and stop <= border:
                return self.upper[start:stop]
            if step == 1 and start >= border:
                return self.lower[start - border : stop - border]
            if step == 1:
                return np.concatenate([self.upper[start:border], self.lower[: stop - border]])
            rows = np.arange(start, stop, step)
        wanted = np.asarray(rows)
        if wanted.dtype == np.bool_:
            wanted = np.flatnonzero(wanted)
        found = np.empty((*wanted.shape, *self.shape[1:]), self.dtype)
        is_upper = wanted < border
        found[is_upper] = self.upper[wanted[is_upper]]
        found[~is_upper] = self.lower[wanted[~is_upper] - border]
        return found


def choose(array: NDArray[Any], rows: Ints) -> FeatureRows:
    """Rows of an array or memory map without a copy: a view where they follow one another, else `ChosenRows`."""
    rows = np.asarray(rows, np.int64)
    if len(rows) and bool((np.diff(rows) == 1).all()):
        view: NDArray[Any] = array[rows[0] : rows[-1] + 1]
        return view
    return ChosenRows(array, rows)


def place(part: FeatureRows, row: int, name: str) -> str:
    """How a message names a row: by its file where it is one of a memory map, and its number there.

    Args:
        part: the features.
        row: a row of them.
        name: what the features are called where they are no file's.
    """
    array = part
    if isinstance(part, JoinedRows):
        is_upper = row < len(part.upper)
        return place(part.upper if is_upper else part.lower, row if is_upper else row - len(part.upper), name)
    if isinstance(part, ChosenRows):
        array, row = part.array, int(part.rows[row])  # type: ignore[assignment]
    base = array
    while isinstance(getattr(base, "base", None), np.memmap):
        base = base.base  # type: ignore[attr-defined]
    file = getattr(array, "filename", None)
    if file is None or not isinstance(base, np.memmap) or not isinstance(array, np.ndarray):
        return f"{name}: row {row}"
    offset = array.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    return f"{Path(file)}: row {row + offset // max(1, base.strides[0])}"


def refuse_short_file(part: FeatureRows) -> None:
    """Raise `InputError` for a memory map whose file has become shorter: reading it would end the process."""
    array: Any = part
    while isinstance(array, ChosenRows):
        array = array.array
    if isinstance(array, JoinedRows):
        refuse_short_file(array.upper)
        refuse_short_file(array.lower)
        return
    while isinstance(getattr(array, "base", None), np.ndarray):
        array = array.base
    if isinstance(array, np.memmap) and array.filename is not None:
        path, wanted = Path(array.filename), array.offset + array.nbytes
        size = path.stat().st_size if path.exists() else None
        if size is not None and size < wanted:
            raise InputError(
                f"{path}: has {size} bytes, its shape {array.shape} of {array.dtype} needs {wanted}: it was cut off; "
                "make these features again"
            )
