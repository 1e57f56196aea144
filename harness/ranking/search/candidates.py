"""The rows that may still be among the best of each query, compiled: what passes the threshold of a block is kept.

An approximate similarity with a bound on its error says that the exact one lies between two numbers. The k-th largest
of the lower ones is a floor: what lies below it for certain is none of the best k. So each block of products is read
once against a number, and only what passes is looked at.

Legend: Q queries, G gallery rows of a block, C candidates of a query at most.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from harness.types import Floats, Ints

CHUNK = 256
"""Similarities that are compared at once: their number that passes is counted first, which takes no branch."""


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def shrink(keep: int, lower: Floats, upper: Floats, ids: Ints, count: int, floor: float) -> tuple[int, float]:
    """Drop the candidates of a query that cannot be among the best ``keep``; how many are left, and the new floor."""
    if count >= keep:
        floor = max(floor, np.partition(lower[:count], count - keep)[count - keep])
    left = 0
    for place in range(count):
        if upper[place] >= floor:
            lower[left], upper[left], ids[left] = lower[place], upper[place], ids[place]
            left += 1
    return left, floor


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def lowest_product(floor: float, shift: float, error: float, step: float) -> np.float32:
    """The lowest value of a product, apart from its shift, whose upper bound reaches the floor."""
    margin = floor - error - shift
    margin = margin * (1 + 2 * step) if margin < 0 else margin * (1 - 2 * step)
    return np.float32(margin - abs(margin) * 1e-6 - 1e-37)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def scan(
    first_query: int,
    end_query: int,
    products: NDArray[np.float32],
    errors: Floats,
    sign: float,
    first_id: int,
    keep: int,
    floors: Floats,
    lower: Floats,
    upper: Floats,
    ids: Ints,
    counts: Ints,
    starts: Ints,
) -> None:
    """Keep what passes of a block of products, for some of the queries.

    Args:
        first_query: the first of them.
        end_query: one past the last.
        products: (Q, G) float32.
        errors: (Q,) float64, how far each product may be from the exact one.
        sign: 1 for the largest, -1 for the smallest.
        first_id: gallery row of the first column.
        keep: how many are wanted.
        floors: (Q,) float64, is raised.
        lower: (Q, C) float64, is filled: what the similarity, times the sign, is at least.
        upper: (Q, C) float64, is filled: what it is at most.
        ids: (Q, C) int64, is filled.
        counts: (Q,) int64, how many there are.
        starts: (Q,) int64, the column to go on from; is set to G, or to where the candidates did not fit any more.
    """
    length = products.shape[1]
    capacity = lower.shape[1]
    side = np.float32(sign)
    for query in range(first_query, end_query):
        error = errors[query]
        threshold = lowest_product(floors[query], 0.0, error, 0.0)
        begin = starts[query]
        while begin < length:
            end = min(length, begin + CHUNK)
            passing = 0
            # What is no number passes: it is scored exactly. Slices, because an index from 0 cannot be negative: so the
            # compiler takes several at once.
            some = products[query, begin:end]
            for column in range(len(some)):
                passing += not (side * some[column] < threshold)
            if passing == 0:
                begin = end
                continue
            column = begin
            while column < end:
                value = side * products[query, column]
                if not (value < threshold):
                    count = counts[query]
                    if count == capacity:
                        count, floors[query] = shrink(
                            keep, lower[query], upper[query], ids[query], count, floors[query]
                        )
                        counts[query] = count
                        threshold = lowest_product(floors[query], 0.0, error, 0.0)
                        if count > capacity - capacity // 4:
                            break
                        continue
                    low, high = np.float64(value) - error, np.float64(value) + error
                    lower[query, count] = low if low == low else -np.inf
                    upper[query, count] = high if high == high else np.inf
                    ids[query, count] = first_id + column
                    counts[query] = count + 1
                column += 1
            begin = column
            if column < end:
                break
        starts[query] = begin


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def take(
    bounds: Ints,
    columns: Ints,
    values: NDArray[Any],
    errors: Floats,
    sign: float,
    first_id: int,
    keep: int,
    floors: Floats,
    lower: Floats,
    upper: Floats,
    ids: Ints,
    counts: Ints,
    starts: Ints,
) -> None:
    """Keep what passes of products that were chosen already; arguments as for `scan`, but for these.

    Args:
        bounds: (Q + 1,) int64, query q has the products ``bounds[q]`` to ``bounds[q + 1]``.
        columns: (P,) int64, the column of each product.
        values: (P,) floats, the products.
        errors: (Q,) float64.
        sign: as for `scan`, and so are those that follow, but that ``starts`` counts products of the query.
    """
    capacity = lower.shape[1]
    for query in range(len(bounds) - 1):
        length = bounds[query + 1] - bounds[query]
        place = starts[query]
        while place < length:
            middle = sign * np.float64(values[bounds[query] + place])
            low, high = middle - errors[query], middle + errors[query]
            if not (high < floors[query]):
                count = counts[query]
                if count == capacity:
                    count, floors[query] = shrink(keep, lower[query], upper[query], ids[query], count, floors[query])
                    counts[query] = count
                    if count > capacity - capacity // 4:
                        break
                    continue
                lower[query, count] = low if low == low else -np.inf
                upper[query, count] = high if high == high else np.inf
                ids[query, count] = first_id + columns[bounds[query] + place]
                counts[query] = count + 1
            place += 1
        starts[query] = place


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def shrink_all(keep: int, floors: Floats, lower: Floats, upper: Floats, ids: Ints, counts: Ints) -> None:
    """`shrink` for every query."""
    for query in range(len(counts)):
        counts[query], floors[query] = shrink(
            keep, lower[query], upper[query], ids[query], counts[query], floors[query]
        )


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def open_places(
    most: int, queries: Ints, lower: Floats, upper: Floats, counts: Ints, found_queries: Ints, places: Ints
) -> int:
    """List candidates that are not scored exactly yet: of each query those of the ``most`` largest upper bounds.

    Args:
        most: how many candidates of a query are looked at; those scored exactly count.
        queries: (N,) int64, which queries.
        lower: (Q, C) float64.
        upper: (Q, C) float64; equal to ``lower`` where the exact one is known.
        counts: (Q,) int64.
        found_queries: (P,) int64, is filled: the query of each.
        places: (P,) int64, is filled: its place among the query's candidates.

    Returns:
        How many there are.
    """
    found = 0
    for query in queries:
        count = counts[query]
        if count == 0:
            continue
        reach = -np.inf
        if count > most:
            reach = np.partition(upper[query, :count], count - most)[count - most]
        for place in range(count):
            if upper[query, place] >= reach and lower[query, place] != upper[query, place]:
                found_queries[found], places[found] = query, place
                found += 1
    return found
