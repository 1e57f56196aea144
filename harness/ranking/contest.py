"""Which gallery rows answer a query after re-ranking, by bounds first and exact distances where those decide.

A candidate's value is (1 - lambda)·Jaccard + lambda·d, where d is known for the rows in the query's list of neighbours
and at least the list's last distance for all others: their value is a lower bound until d is computed.

Legend: B queries of a block, G gallery rows, L listed rows of a query, C candidates of the block, T answers.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from harness.ranking.reciprocal import Ints32
from harness.types import Bools, Floats, Ints


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def enter(
    starts: Ints,
    rows: Ints32,
    sums: Floats,
    near_ids: Ints32,
    near_distances: Floats,
    floors: Floats,
    lambda_value: float,
    num_gallery: int,
) -> tuple[Ints, Ints32, Floats, Floats]:
    """The candidates of each query: rows that share neighbours with it, and rows near to it.

    Args:
        starts: (B + 1,) int64, of the rows that share neighbours.
        rows: (c,) int32, gallery rows.
        sums: (c,) float64, the sums of minima with them.
        near_ids: (B, L) int32, gallery rows near each query; a negative one is none, of equal ones the first counts.
        near_distances: (B, L) float64, scaled distances to those; NaN where not known.
        floors: (B,) float64, no other row has a smaller scaled distance.
        lambda_value: weight of the distance.
        num_gallery: G.

    Returns:
        starts (B + 1,), gallery rows (C,), (1 - lambda)·Jaccard (C,), and scaled distances (C,), NaN where not known.
    """
    num_queries, num_near = near_ids.shape
    seats = np.zeros(num_gallery, np.int32)
    out_starts = np.zeros(num_queries + 1, np.int64)
    most = len(rows) + near_ids.size
    out_rows, out_distances = np.empty(most, np.int32), np.empty(most, np.float64)
    out_jaccard = np.empty(most, np.float64)
    end = 0
    for query in range(num_queries):
        for place in range(num_near):
            row = near_ids[query, place]
            if row >= 0 and seats[row] == 0:
                seats[row] = place + 1
        for entry in range(starts[query], starts[query + 1]):
            row = rows[entry]
            shared = min(sums[entry], 1.0)
            out_rows[end] = row
            out_jaccard[end] = (1.0 - lambda_value) * (1.0 - shared / (2.0 - shared))
            out_distances[end] = near_distances[query, seats[row] - 1] if seats[row] > 0 else np.nan
            end += 1
            seats[row] = -1
        for place in range(num_near):
            row = near_ids[query, place]
            if row >= 0 and seats[row] > 0:
                out_rows[end] = row
                out_jaccard[end] = 1.0 - lambda_value
                out_distances[end] = near_distances[query, place]
                end += 1
                seats[row] = -1
        for entry in range(out_starts[query], end):
            seats[out_rows[entry]] = 0
        for place in range(num_near):
            if near_ids[query, place] >= 0:
                seats[near_ids[query, place]] = 0
        out_starts[query + 1] = end
    return out_starts, out_rows[:end].copy(), out_jaccard[:end].copy(), out_distances[:end].copy()


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _value(jaccard: float, distance: float, floor: float, lambda_value: float) -> float:
    if lambda_value == 0.0:
        return jaccard
    return jaccard + lambda_value * (floor if np.isnan(distance) else distance)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def choose_best(
    starts: Ints,
    rows: Ints32,
    jaccard: Floats,
    distances: Floats,
    floors: Floats,
    is_own: Bools,
    wanted: Ints,
    lambda_value: float,
    places: Ints,
    values: Floats,
) -> None:
    """The best candidates of each query: by value, equal ones by gallery row; those of its own group first.

    Args:
        starts: (B + 1,) int64, of the candidates.
        rows: (C,) int32, gallery rows.
        jaccard: (C,) float64, (1 - lambda)·Jaccard.
        distances: (C,) float64, scaled; NaN where not known.
        floors: (B,) float64, in place of distances that are not known.
        is_own: (C,) bool, of the query's own group.
        wanted: (B,) int64, how many answers are to be of the own group; the others are not.
        lambda_value: weight of the distance.
        places: (B, T) int64, is filled: the candidates; -1 where there are too few.
        values: (B, T) float64, is filled: their values; infinite where there are too few.
    """
    places[:] = -1
    values[:] = np.inf
    for query in range(len(wanted)):
        for entry in range(starts[query], starts[query + 1]):
            low, high = (0, wanted[query]) if is_own[entry] else (wanted[query], places.shape[1])
            if low == high:
                continue
            value = _value(jaccard[entry], distances[entry], floors[query], lambda_value)
            seat = high
            while seat > low:
                other = places[query, seat - 1]
                if other >= 0 and (
                    values[query, seat - 1] < value or (values[query, seat - 1] == value and rows[other] < rows[entry])
                ):
                    break
                seat -= 1
            if seat == high:
                continue
            for place in range(high - 1, seat, -1):
                places[query, place] = places[query, place - 1]
                values[query, place] = values[query, place - 1]
            places[query, seat] = entry
            values[query, seat] = value


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def find_contenders(
    starts: Ints,
    jaccard: Floats,
    distances: Floats,
    floors: Floats,
    is_own: Bools,
    wanted: Ints,
    lambda_value: float,
    values: Floats,
) -> Ints:
    """Candidates of unknown distance whose bound does not lie above the last chosen value, see `choose_best`."""
    found = np.empty(len(jaccard), np.int64)
    end = 0
    for query in range(len(wanted)):
        own, other = -np.inf, -np.inf  # the largest value chosen; infinite where there are too few
        for place in range(values.shape[1]):
            if place < wanted[query]:
                own = max(own, values[query, place])
            else:
                other = max(other, values[query, place])
        for entry in range(starts[query], starts[query + 1]):
            if np.isnan(distances[entry]):
                bound = _value(jaccard[entry], distances[entry], floors[query], lambda_value)
                if bound <= (own if is_own[entry] else other):
                    found[end] = entry
                    end += 1
    return found[:end].copy()
