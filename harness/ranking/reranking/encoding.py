"""The steps of k-reciprocal encoding, compiled: one row after another, each in time of its neighbours.

Every function takes a range of rows and lets go of Python's lock, so that threads share the rows out.

Legend: N rows (queries, then gallery), G gallery rows, K neighbours of a row, E entries of sparse rows.

Source: Z. Zhong, L. Zheng, D. Cao, S. Li 2017, "Re-ranking Person Re-identification with k-reciprocal Encoding",
equations 2, 3, 7, 10 and 11.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from harness.types import Floats, Ints

Ints32 = NDArray[np.int32]


_NEAR = 1 << 24  # more than a row has neighbours


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def find_reciprocal(ids: Ints32, start: int, stop: int, members: Ints32, counts: Ints32) -> None:
    """R of some rows: the neighbours that have the row among theirs.

    Args:
        ids: (N, K) int32, the row itself first.
        start: first row to do.
        stop: row after the last.
        members: (N, k) int32 with k <= K, whose first places are filled: neighbours of which the row is among the
            first k, in their order.
        counts: (N,) int32, is filled: how many they are.
    """
    k = members.shape[1]
    for row in range(start, stop):
        end = 0
        for place in range(k):
            found = False
            for other in ids[ids[row, place], :k]:
                found |= other == row
            members[row, end] = ids[row, place]
            end += found
        counts[row] = end


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def with_room(array: NDArray[Any], needed: int) -> NDArray[Any]:
    """The array, or a longer one that begins with it, so that it has ``needed`` places."""
    if needed <= len(array):
        return array
    longer = np.empty(max(needed, 2 * len(array)), array.dtype)
    longer[: len(array)] = array
    return longer


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def expand_sets(
    ids: Ints32,
    distances: Floats,
    near: Ints32,
    num_near: Ints32,
    joining: Ints32,
    num_joining: Ints32,
    start: int,
    stop: int,
) -> tuple[Ints, Ints32, Floats]:
    """R* of some rows: R(i, k1), and R(j, k1/2) of those j in it of which more than two thirds lie in R(i, k1).

    Args:
        ids: (N, K) int32, the row itself first.
        distances: (N, K) float64, to those.
        near: (N, k1 + 1) int32, R(i, k1), see `find_reciprocal`.
        num_near: (N,) int32, how many those are.
        joining: (N, k1/2 + 1) int32, R(j, k1/2).
        num_joining: (N,) int32, how many those are.
        start: first row to do.
        stop: row after the last.

    Returns:
        lengths (stop - start,) of the sets, their members, and the distances to those; NaN where neither row has
        the other in its list.
    """
    num_rows, num_neighbours = ids.shape
    seats = np.zeros(num_rows, np.int32)  # 1 + the place in the row's list, _NEAR more in R; -1: joined from elsewhere
    lengths = np.zeros(stop - start, np.int64)
    columns = np.empty(2 * near.shape[1] * (stop - start), np.int32)
    values = np.empty(len(columns), np.float64)
    end = 0
    for row in range(start, stop):
        most = near.shape[1] * (1 + joining.shape[1])
        columns, values = with_room(columns, end + most), with_room(values, end + most)
        first = end
        for place in range(num_neighbours):
            seats[ids[row, place]] = place + 1
        for other in near[row, : num_near[row]]:
            columns[end], values[end] = other, distances[row, seats[other] - 1]
            seats[other] += _NEAR
            end += 1
        for candidate in near[row, : num_near[row]]:
            members = joining[candidate, : num_joining[candidate]]
            shared = 0
            for other in members:
                shared += seats[other] > _NEAR
            if 3 * shared <= 2 * len(members):
                continue
            for other in members:
                seat = seats[other]
                if seat < 0 or seat > _NEAR:
                    continue
                columns[end], values[end] = other, np.nan
                if seat > 0:
                    values[end] = distances[row, seat - 1]
                else:
                    for place in range(num_neighbours):
                        if ids[other, place] == row:
                            values[end] = distances[other, place]
                            break
                seats[other] = -1
                end += 1
        for member in range(first, end):
            seats[columns[member]] = 0
        for place in range(num_neighbours):
            seats[ids[row, place]] = 0
        lengths[row - start] = end - first
    return lengths, columns[:end].copy(), values[:end].copy()


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def weigh(starts: Ints, values: Floats, largest: Floats, start: int, stop: int) -> None:
    """Turn distances into weights exp(-distance / largest distance of the row) that add to 1, in place."""
    for row in range(start, stop):
        total = 0.0
        for entry in range(starts[row], starts[row + 1]):
            values[entry] = np.exp(-values[entry] / largest[row])
            total += values[entry]
        for entry in range(starts[row], starts[row + 1]):
            values[entry] /= total


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def average(
    starts: Ints, columns: Ints32, values: Floats, ids: Ints32, k2: int, rows: Ints, start: int, stop: int
) -> tuple[Ints, Ints32, Floats]:
    """The mean of the sparse rows of a row's first k2 neighbours.

    Args:
        starts: (N + 1,) int64, of the sparse rows.
        columns: (E,) int32.
        values: (E,) float64, above 0.
        ids: (N, K) int32, the row itself first; k2 <= K.
        k2: how many, at least 1.
        rows: (n,) int64, the rows wanted.
        start: first of those to do.
        stop: the one after the last.

    Returns:
        lengths (stop - start,), columns and values of the means.
    """
    sums = np.zeros(len(starts) - 1, np.float64)
    lengths = np.zeros(stop - start, np.int64)
    out_columns = np.empty(64 * (stop - start), np.int32)
    end = 0
    out_values = np.empty(len(out_columns), np.float64)
    for wanted in range(start, stop):
        row = rows[wanted]
        first = end
        for place in range(k2):
            neighbour = ids[row, place]
            low, high = starts[neighbour], starts[neighbour + 1]
            out_columns = with_room(out_columns, end + high - low)
            for entry in range(low, high):
                column = columns[entry]
                if sums[column] == 0.0:
                    out_columns[end] = column
                    end += 1
                sums[column] += values[entry]
        out_values = with_room(out_values, end)
        for entry in range(first, end):
            column = out_columns[entry]
            out_values[entry] = sums[column] / k2
            sums[column] = 0.0
        lengths[wanted - start] = end - first
    return lengths, out_columns[:end].copy(), out_values[:end].copy()


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def count_columns(columns: Ints32, counts: Ints) -> None:
    """Add the entries of each column to ``counts``, (N,) int64."""
    for column in columns:
        counts[column] += 1


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def file_by_column(
    lengths: Ints, columns: Ints32, values: Floats, first_row: int, ends: Ints, out_rows: Ints32, out_values: Floats
) -> None:
    """Put a block of sparse rows into the lists of their columns.

    Args:
        lengths: (n,) int64, entries of the rows.
        columns: (e,) int32.
        values: (e,) float64.
        first_row: number of the first row.
        ends: (N,) int64, where each column's next entry goes; is moved on.
        out_rows: (E,) int32, is filled.
        out_values: (E,) float64, is filled.
    """
    entry = 0
    for row in range(len(lengths)):
        for _ in range(lengths[row]):
            place = ends[columns[entry]]
            out_rows[place] = first_row + row
            out_values[place] = values[entry]
            ends[columns[entry]] += 1
            entry += 1


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def add_minima(
    starts: Ints,
    columns: Ints32,
    values: Floats,
    start: int,
    stop: int,
    list_starts: Ints,
    list_rows: Ints32,
    list_values: Floats,
    num_gallery: int,
) -> tuple[Ints, Ints32, Floats]:
    """Per query and gallery row that share a column: the sum over columns of the smaller of their values.

    Args:
        starts: (n + 1,) int64, of the queries' sparse rows.
        columns: (e,) int32.
        values: (e,) float64, above 0.
        start: first query to do.
        stop: the one after the last.
        list_starts: (N + 1,) int64, of the gallery's entries by column.
        list_rows: (E,) int32, gallery rows.
        list_values: (E,) float64, above 0.
        num_gallery: G.

    Returns:
        lengths (stop - start,), gallery rows and sums.
    """
    sums = np.zeros(num_gallery, np.float64)
    lengths = np.zeros(stop - start, np.int64)
    rows = np.empty(256 * (stop - start), np.int32)
    end = 0
    out_sums = np.empty(len(rows), np.float64)
    for query in range(start, stop):
        first = end
        for entry in range(starts[query], starts[query + 1]):
            low, high = list_starts[columns[entry]], list_starts[columns[entry] + 1]
            rows = with_room(rows, end + high - low)
            value = values[entry]
            for place in range(low, high):
                row = list_rows[place]
                before = sums[row]
                if before == 0.0:
                    rows[end] = row
                    end += 1
                sums[row] = before + min(value, list_values[place])
        out_sums = with_room(out_sums, end)
        for entry in range(first, end):
            out_sums[entry] = sums[rows[entry]]
            sums[rows[entry]] = 0.0
        lengths[query - start] = end - first
    return lengths, rows[:end].copy(), out_sums[:end].copy()
