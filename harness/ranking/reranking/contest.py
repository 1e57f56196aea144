"""Which gallery rows answer a query after re-ranking, by bounds first and exact distances where those decide.

A candidate's value is (1 - lambda)·Jaccard + lambda·d, where d is known for the rows in the query's list of neighbours
and at least the list's last distance for all others: their value is a lower bound until d is computed.

Legend: B queries of a block, G gallery rows, L listed rows of a query, C candidates of the block, T answers.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from harness.ranking.reranking.encoding import Ints32, with_room
from harness.types import Bools, Floats, Ints


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _value(jaccard: float, distance: float, floor: float, lambda_value: float) -> float:
    if lambda_value == 0.0:
        return jaccard
    return jaccard + lambda_value * (floor if np.isnan(distance) else distance)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _keep_smallest(values: Floats, low: int, high: int, value: float) -> None:
    """Put a value among the smallest ones, ascending from ``low`` to ``high``."""
    if low == high or value >= values[high - 1]:
        return
    seat = high - 1
    while seat > low and values[seat - 1] > value:
        values[seat] = values[seat - 1]
        seat -= 1
    values[seat] = value


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def enter(
    starts: Ints,
    rows: Ints32,
    sums: Floats,
    near_ids: Ints32,
    near_distances: Floats,
    floors: Floats,
    query_groups: Ints,
    gallery_groups: Ints,
    wanted: Ints,
    num_answers: int,
    lambda_value: float,
    start: int,
    stop: int,
    found: Ints,
) -> tuple[Ints, Ints32, Floats, Floats]:
    """The candidates of some queries: rows that share neighbours with them or are near, and may be among the best.

    Args:
        starts: (B + 1,) int64, of the rows that share neighbours.
        rows: (c,) int32, gallery rows.
        sums: (c,) float64, the sums of minima with them.
        near_ids: (B, L) int32, gallery rows near each query; a negative one is none, of equal ones the first counts.
        near_distances: (B, L) float64, scaled distances to those; NaN where not known.
        floors: (B,) float64, no other row has a smaller scaled distance.
        query_groups: (B,) int64.
        gallery_groups: (G,) int64.
        wanted: (B,) int64, how many answers are to be of the query's own group.
        num_answers: T.
        lambda_value: weight of the distance.
        start: first query to do.
        stop: the one after the last.
        found: (B, 2) int64, is filled: the rows looked at of the own group, and of the others.

    Returns:
        lengths (stop - start,), gallery rows, (1 - lambda)·Jaccard, and scaled distances, NaN where not known.
    """
    num_near = near_ids.shape[1]
    seats = np.zeros(len(gallery_groups), np.int32)
    shared = np.empty(num_near, np.float64)
    best = np.empty(num_answers, np.float64)
    lengths = np.zeros(stop - start, np.int64)
    out_rows = np.empty(2 * num_answers * (stop - start), np.int32)
    out_jaccard, out_distances = np.empty(len(out_rows), np.float64), np.empty(len(out_rows), np.float64)
    end = 0
    for query in range(start, stop):
        group, border = query_groups[query], wanted[query]
        low, high = starts[query], starts[query + 1]
        for place in range(num_near):
            row = near_ids[query, place]
            if row >= 0 and seats[row] == 0:
                seats[row] = place + 1
        shared[:] = 0.0
        for entry in range(low, high):
            if seats[rows[entry]] > 0:
                shared[seats[rows[entry]] - 1] = min(sums[entry], 1.0)
        # The values that are known set what others have to reach.
        best[:] = np.inf
        for place in range(num_near):
            row = near_ids[query, place]
            if row >= 0 and seats[row] == place + 1 and not np.isnan(near_distances[query, place]):
                jaccard = (1.0 - lambda_value) * (1.0 - shared[place] / (2.0 - shared[place]))
                value = _value(jaccard, near_distances[query, place], floors[query], lambda_value)
                if gallery_groups[row] == group:
                    _keep_smallest(best, 0, border, value)
                else:
                    _keep_smallest(best, border, num_answers, value)
        own_limit = best[border - 1] if border > 0 else -np.inf
        other_limit = best[num_answers - 1] if border < num_answers else -np.inf
        out_rows = with_room(out_rows, end + high - low + num_near)
        out_jaccard = with_room(out_jaccard, end + high - low + num_near)
        out_distances = with_room(out_distances, end + high - low + num_near)
        first = end
        for entry in range(low, high):
            row = rows[entry]
            is_own = gallery_groups[row] == group
            found[query, 0 if is_own else 1] += 1
            if seats[row] > 0:
                continue
            jaccard = (1.0 - lambda_value) * (1.0 - sums[entry] / (2.0 - sums[entry]))
            if _value(jaccard, np.nan, floors[query], lambda_value) <= (own_limit if is_own else other_limit):
                out_rows[end], out_jaccard[end], out_distances[end] = row, jaccard, np.nan
                end += 1
        for place in range(num_near):
            row = near_ids[query, place]
            if row >= 0 and seats[row] == place + 1:
                out_rows[end] = row
                out_jaccard[end] = (1.0 - lambda_value) * (1.0 - shared[place] / (2.0 - shared[place]))
                out_distances[end] = near_distances[query, place]
                end += 1
                if shared[place] == 0.0:
                    found[query, 0 if gallery_groups[row] == group else 1] += 1
        for place in range(num_near):
            if near_ids[query, place] >= 0:
                seats[near_ids[query, place]] = 0
        lengths[query - start] = end - first
    return lengths, out_rows[:end].copy(), out_jaccard[:end].copy(), out_distances[:end].copy()


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
    start: int,
    stop: int,
    places: Ints,
    values: Floats,
) -> None:
    """The best candidates of some queries: by value, equal ones by gallery row; those of its own group first.

    Args:
        starts: (B + 1,) int64, of the candidates.
        rows: (C,) int32, gallery rows.
        jaccard: (C,) float64, (1 - lambda)·Jaccard.
        distances: (C,) float64, scaled; NaN where not known.
        floors: (B,) float64, in place of distances that are not known.
        is_own: (C,) bool, of the query's own group.
        wanted: (B,) int64, how many answers are to be of the own group; the others are not.
        lambda_value: weight of the distance.
        start: first query to do.
        stop: the one after the last.
        places: (B, T) int64, is filled: the candidates; -1 where there are too few.
        values: (B, T) float64, is filled: their values; infinite where there are too few.
    """
    places[start:stop] = -1
    values[start:stop] = np.inf
    for query in range(start, stop):
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
