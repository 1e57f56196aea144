"""The inner loops of ensemble selection, compiled: similarities of pairs, and hits of many ensembles a query.

Legend: Q queries, M models, E ensembles, P pairs, D dimensions, n candidates of all queries together. The candidates of
query q are ``starts[q] … starts[q + 1]``; the first ``num_right[q]`` of them are right.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from harness.types import Bools, Floats, Ints

Singles = NDArray[np.float32]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})  # type: ignore[untyped-decorator]
def pair_products(
    queries_QD: Singles, rows_GD: Singles, start: int, asking: Ints, answering: Ints, out: Floats
) -> None:
    """The inner product of every pair, summed in float64 in an order that depends on D alone.

    ``rows_GD`` are the gallery's rows from ``start`` on.
    """
    for pair in range(len(asking)):
        query, row = queries_QD[asking[pair]], rows_GD[answering[pair] - start]
        total = 0.0
        for d in range(len(query)):
            total += np.float64(query[d]) * np.float64(row[d])
        out[pair] = total


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def best_right(sums: Floats, rows: Ints, low: int, rights: int) -> int:
    """The place of the right candidate that ranks first."""
    best = 0
    for place in range(1, rights):
        if sums[place] > sums[best] or (sums[place] == sums[best] and rows[low + place] < rows[low + best]):
            best = place
    return best


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def is_hit(sums: Floats, rows: Ints, low: int, rights: int, size: int, k: int) -> bool:
    """Whether fewer than k wrong candidates rank before the best right one: by sum, ties by row."""
    if rights == 0:
        return False
    place = best_right(sums, rows, low, rights)
    bar = sums[place]
    above, level = 0, 0
    for wrong in range(rights, size):
        above += sums[wrong] > bar
        level += sums[wrong] == bar
    if level > 0 and above < k:
        for wrong in range(rights, size):
            above += sums[wrong] == bar and rows[low + wrong] < rows[low + place]
    return above < k


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def weighted_sums(sims_Mn: Singles, weights: Floats, low: int, size: int, sums: Floats) -> None:
    """The ensemble's similarity of a query's candidates, models added in their order as the search adds them."""
    for place in range(size):
        sums[place] = 0.0
    for model in range(len(weights)):
        weight = weights[model]
        if weight != 0.0:
            for place in range(size):
                sums[place] += weight * sims_Mn[model, low + place]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})  # type: ignore[untyped-decorator]
def rough_sums(sims_Mn: Singles, weights: Singles, members: Ints, low: int, high: int, sums: Singles) -> None:
    """`weighted_sums` in float32 of the models named, four at a time: a third of the loads and stores."""
    size = high - low
    for place in range(size):
        sums[place] = 0.0
    whole = len(members) // 4 * 4
    for four in range(0, whole, 4):
        one, two, three, last = members[four], members[four + 1], members[four + 2], members[four + 3]
        weight, second, third, fourth = weights[one], weights[two], weights[three], weights[last]
        first_n, second_n = sims_Mn[one, low:high], sims_Mn[two, low:high]
        third_n, fourth_n = sims_Mn[three, low:high], sims_Mn[last, low:high]
        for place in range(size):
            sums[place] += (weight * first_n[place] + second * second_n[place]) + (
                third * third_n[place] + fourth * fourth_n[place]
            )
    for member in members[whole:]:
        weight, first_n = weights[member], sims_Mn[member, low:high]
        for place in range(size):
            sums[place] += weight * first_n[place]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc"})  # type: ignore[untyped-decorator]
def num_above(sums: Singles, bar: np.float32, first: int, end: int) -> np.float32:
    """How many sums are above a bar; counted in float32, as many lanes as the sums have, exact to 16 million."""
    count = np.float32(0.0)
    for place in range(first, end):
        count += np.float32(1.0) if sums[place] > bar else np.float32(0.0)
    return count


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def hits_of(
    starts: Ints,
    num_right: Ints,
    rows: Ints,
    sims_Mn: Singles,
    largest: Floats,
    weights_EM: Floats,
    k: int,
    first: int,
    end: int,
    hits_EQ: Bools,
) -> None:
    """Which of the queries ``first … end`` every ensemble gets right.

    Sums in float32, whose error is bounded, decide nearly always; where they cannot, those in float64 do.
    """
    size = longest(starts, first, end)
    sums, rough = np.empty(size), np.empty(size, np.float32)
    num_ensembles, num_models = weights_EM.shape
    errors = np.full(num_ensembles, 1e-30)  # above 0, so that a tie of zeros is one that float64 decides
    light_EM = weights_EM.astype(np.float32)
    members_EM, num_members = np.empty((num_ensembles, num_models), np.int64), np.zeros(num_ensembles, np.int64)
    for ensemble in range(num_ensembles):
        for model in range(num_models):
            if weights_EM[ensemble, model] > 0:
                members_EM[ensemble, num_members[ensemble]] = model
                num_members[ensemble] += 1
            # Higham's bound for n terms, one more rounding of each weight, and a last one of the bar.
            errors[ensemble] += (num_models + 4) * 6.0e-8 * weights_EM[ensemble, model] * largest[model]
    for query in range(first, end):
        low, rights = starts[query], num_right[query]
        size = starts[query + 1] - low
        if rights == 0:
            continue
        for ensemble in range(num_ensembles):
            weights = weights_EM[ensemble]
            members = members_EM[ensemble, : num_members[ensemble]]
            weighted_sums(sims_Mn, weights, low, rights, sums)
            bar, error = sums[best_right(sums, rows, low, rights)], errors[ensemble]
            rough_sums(sims_Mn, light_EM[ensemble], members, low + rights, low + size, rough)
            surely = num_above(rough, np.float32(bar + error), 0, size - rights)
            if surely >= k:
                hits_EQ[ensemble, query] = False
            elif num_above(rough, np.float32(bar - error), 0, size - rights) < k:
                hits_EQ[ensemble, query] = True
            else:
                weighted_sums(sims_Mn, weights, low, size, sums)
                hits_EQ[ensemble, query] = is_hit(sums, rows, low, rights, size, k)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def hits_of_subsets(
    starts: Ints,
    num_right: Ints,
    rows: Ints,
    sims_Mn: Singles,
    most: int,
    k: int,
    first: int,
    end: int,
    hits_QS: Singles,
) -> None:
    """Hits, 1 or 0, of every subset of at most ``most`` models with equal weights; subset S is the number of its bits.

    A walk down the tree of subsets: each is one that was added up before and one model more.
    """
    num_models = len(sims_Mn)
    sums = np.empty((most, longest(starts, first, end)))
    path = np.empty(most, np.int64)
    for query in range(first, end):
        low = starts[query]
        size, rights = starts[query + 1] - low, num_right[query]
        depth, subset = 0, 0
        path[0] = 0
        while depth >= 0:
            model = path[depth]
            if model == num_models:
                depth -= 1
                if depth >= 0:
                    subset ^= 1 << path[depth]
                    path[depth] += 1
                continue
            if depth == 0:
                for place in range(size):
                    sums[0, place] = sims_Mn[model, low + place]
            else:
                for place in range(size):
                    sums[depth, place] = sums[depth - 1, place] + sims_Mn[model, low + place]
            subset |= 1 << model
            hits_QS[query - first, subset] = is_hit(sums[depth], rows, low, rights, size, k)
            if depth + 1 < most:
                depth += 1
                path[depth] = model + 1
            else:
                subset ^= 1 << model
                path[depth] += 1


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def mark_contenders(starts: Ints, num_right: Ints, sims_Mn: Singles, first: int, end: int, marks: Bools) -> None:
    """The right candidates, and the others but those that one and the same right one surpasses by every model."""
    for query in range(first, end):
        low = starts[query]
        wrong = low + num_right[query]
        for place in range(low, wrong):
            marks[place] = True
        for place in range(wrong, starts[query + 1]):
            surpassed = False
            for right in range(low, wrong):
                model = 0
                while model < len(sims_Mn) and sims_Mn[model, right] > sims_Mn[model, place]:
                    model += 1
                surpassed |= model == len(sims_Mn)
            marks[place] = not surpassed


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def longest(starts: Ints, first: int, end: int) -> int:
    """Candidates of the query that has most of them."""
    most = 0
    for query in range(first, end):
        most = max(most, starts[query + 1] - starts[query])
    return most


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def proven_of(
    starts: Ints,
    num_right: Ints,
    rows: Ints,
    sims_Mn: Singles,
    floors_QM: Singles,
    joint_floors: Singles,
    largest: Floats,
    weights_EM: Floats,
    k: int,
    proven_EQ: Bools,
) -> None:
    """For which queries no row outside the candidates, and no rounding, can change whether it is a hit."""
    unit = 6.0e-8  # 2^-24, and a little for the sums in float64
    sums = np.empty(longest(starts, 0, len(num_right)))
    for ensemble in range(len(weights_EM)):
        weights = weights_EM[ensemble]
        error, spread, least = 0.0, 0.0, weights[0]
        for model in range(len(weights)):
            error += unit * weights[model] * largest[model]
            spread += 2 * unit * largest[model]
            least = min(least, weights[model])
        for query in range(len(num_right)):
            low = starts[query]
            size, rights = starts[query + 1] - low, num_right[query]
            if rights == 0:
                proven_EQ[ensemble, query] = True  # all right rows are candidates
                continue
            weighted_sums(sims_Mn, weights, low, size, sums)
            bar = sums[best_right(sums, rows, low, rights)]
            surely, perhaps = 0, 0
            for place in range(rights, size):
                surely += sums[place] > bar + 2 * error
                perhaps += sums[place] >= bar - 2 * error
            if surely >= k:
                proven_EQ[ensemble, query] = True
                continue
            outside, floor = 0.0, 0.0
            for model in range(len(weights)):
                if weights[model] > 0:
                    outside += weights[model] * floors_QM[query, model]
                floor += floors_QM[query, model]
            if np.isfinite(floor):  # else all of the gallery is listed
                outside -= least * max(0.0, floor - joint_floors[query] - spread)
            proven_EQ[ensemble, query] = perhaps < k and outside < bar - 2 * error
