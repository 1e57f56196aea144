"""Rows of which few entries are not zero.

Legend: N rows, E entries of all of them together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.types import Floats, Ints


@dataclass(frozen=True)
class SparseRows:
    """The entries of row n are those from ``starts[n]`` to ``starts[n + 1]``, in no particular order.

    Attributes:
        starts: (N + 1,) int64, the first is 0.
        columns: (E,) int32.
        values: (E,) float64.
    """

    starts: Ints
    columns: NDArray[np.int32]
    values: Floats

    def __len__(self) -> int:
        return len(self.starts) - 1

    def rows_of_entries(self) -> Ints:
        """The row of each entry, (E,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def take(self, rows: Ints) -> SparseRows:
        """Some of the rows, in the given order."""
        lengths = np.diff(self.starts)[rows]
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        entries = np.arange(starts[-1]) + np.repeat(self.starts[:-1][rows] - starts[:-1], lengths)
        return SparseRows(starts, self.columns[entries], self.values[entries])


def stack(blocks: Iterable[tuple[Ints, NDArray[np.int32], Floats]]) -> SparseRows:
    """Blocks of rows below one another.

    Args:
        blocks: of each, the entries of its rows (n,) int64, then columns (e,) int32 and values (e,) float64.
    """
    parts = list(blocks)
    if not parts:
        return SparseRows(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0))
    lengths, columns, values = zip(*parts, strict=True)
    starts = np.concatenate([np.zeros(1, np.int64), *lengths])
    np.cumsum(starts, out=starts)
    return SparseRows(starts, np.concatenate(columns), np.concatenate(values))
