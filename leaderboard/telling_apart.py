"""Which rows cannot be told from which: McNemar's exact test of every pair of rows on the same queries.

Every pair is tested alone, at 5 %: the tests are not corrected for their number. Among many rows that differ by
nothing, up to one pair in twenty comes out as different; and that A cannot be told from B, and B not from C, does not
say that A cannot be told from C.

Legend: N rows, Q queries, D queries on which two rows disagree.

Source: Q. McNemar 1947, exact binomial form, as `harness.scoring.significance.mcnemar_exact`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import compress

import numpy as np

from harness.types import Bools, Ints

ALPHA = 0.05
"""Two rows are told apart where the two-sided p value is below."""

_ONE_IN = 20
"""1 / ALPHA, exact: where a number of disagreements is critical is decided in whole numbers."""

_ROWS_AT_ONCE = 256


def tied(hits_NQ: Bools) -> Bools:
    """Which pairs of rows cannot be told apart.

    Args:
        hits_NQ: (N, Q) bool, which queries each row gets right.

    Returns:
        (N, N) bool, symmetric; True where the exact p value is 0.05 or more, and so on the diagonal.

    Raises:
        ValueError: not a boolean matrix.
    """
    hits = np.asarray(hits_NQ)
    if hits.ndim != 2 or hits.dtype != np.bool_:
        raise ValueError(f"hits_NQ: expected (N, Q) bool, got {hits.dtype} of shape {hits.shape}")
    # Queries that all rows get right, or none, part nobody.
    hits = hits[:, hits.any(axis=0) & ~hits.all(axis=0)]
    order = np.argsort(hits.sum(axis=1), kind="stable")
    totals = hits.sum(axis=1)[order].astype(np.int32)
    columns_NQ = hits[order].astype(np.float32)  # exact for counts below 2^24
    num_queries = hits.shape[1]
    critical = critical_counts(num_queries).astype(np.int32)  # no two rows disagree on more queries than there are
    # Rows whose totals are further apart than this are told apart, however they disagree on so many queries at most.
    reach = np.maximum.accumulate(np.arange(num_queries + 1) - 2 * (critical + 1))
    found: Bools = np.zeros((len(hits), len(hits)), np.bool_)
    for start in range(0, len(hits), _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, len(hits))
        most_disagreements = min(num_queries, 2 * (num_queries - int(totals[start])))
        end = int(np.searchsorted(totals, totals[stop - 1] + reach[most_disagreements], side="right"))
        both = (columns_NQ[start:stop] @ columns_NQ[start:end].T).astype(np.int32)
        disagreements = totals[start:stop, None] + totals[start:end] - 2 * both
        fewer = (disagreements - np.abs(totals[start:stop, None] - totals[start:end])) // 2
        same = fewer > critical[disagreements]
        found[np.ix_(order[start:stop], order[start:end])] = same
        found[np.ix_(order[start:end], order[start:stop])] = same.T
    return found


def critical_counts(most: int) -> Ints:
    """The most queries that the worse of two rows may be right on alone, for the two to be told apart.

    Args:
        most: the largest number of disagreements that is asked for, at least 0.

    Returns:
        (most + 1,) int64: for D disagreements the largest b with 2 P(X <= b) < 0.05, X ~ Binomial(D, 1/2); -1 where
        even 0 is not few enough.
    """
    found = np.full(most + 1, -1, np.int64)
    critical, term, tail = -1, 0, 0  # term = C(D, critical), tail = C(D, 0) + ... + C(D, critical)
    for count in range(1, most + 1):
        if critical >= 0:
            # From D - 1 to D: C(D, 0) + ... + C(D, b) is twice the old sum less the old last term.
            tail = 2 * tail - term
            term = term * count // (count - critical)
        following = 1 if critical < 0 else term * (count - critical) // (critical + 1)
        # With one disagreement more the critical count grows by one or not at all.
        if 2 * _ONE_IN * (tail + following) < 1 << count:
            critical, term, tail = critical + 1, following, tail + following
        found[count] = critical
    return found


def neighbours(tied_NN: Bools) -> list[tuple[int, ...]]:
    """For every row the others that it cannot be told from, ascending.

    Args:
        tied_NN: what `tied` found.
    """
    count = len(tied_NN)
    numbers = list(range(count))  # shared by all tuples: 5,000 rows can have millions of ties
    others = tied_NN & ~np.eye(count, dtype=np.bool_)
    return [tuple(compress(numbers, others[row].tobytes())) for row in range(count)]


def in_words(others: Sequence[int], ranks: Sequence[int], most_spans: int = 3) -> str:
    """Others of a ranking for a reader: ``3 others: #2–#4``, ``3 others: #3 (2), #6``, ``412 others: #7 … #590``,
    ``no other``.

    Args:
        others: ascending places in the ranking.
        ranks: the rank of every place; equals share one.
        most_spans: with more stretches of places than these only the first and the last rank are named.
    """
    if not others:
        return "no other"
    if len(others) <= _NAMED_ONE_BY_ONE:
        shared = Counter(ranks[other] for other in others)
        return _counted(others, [f"#{rank}" if count == 1 else f"#{rank} ({count})" for rank, count in shared.items()])
    spans: list[tuple[int, int]] = []
    counts: list[int] = []
    start = 0
    while start < len(others):
        # Ascending places less their numbers stay the same over a stretch: its end is found without walking through.
        end = bisect_right(range(len(others)), others[start] - start, lo=start, key=lambda one: others[one] - one)
        first, last = others[start], others[end - 1]
        if spans and ranks[first] == ranks[spans[-1][1]]:
            spans[-1] = spans[-1][0], last
            counts[-1] += end - start
        else:
            spans.append((first, last))
            counts.append(end - start)
        start = end
        if len(spans) > most_spans:
            return f"{len(others):,} others: #{ranks[others[0]]} … #{ranks[others[-1]]}"
    texts = [
        f"#{ranks[first]}–#{ranks[last]}"
        if ranks[first] != ranks[last]
        else f"#{ranks[first]}" + (f" ({count})" if count > 1 else "")
        for (first, last), count in zip(spans, counts, strict=True)
    ]
    return _counted(others, texts)


_NAMED_ONE_BY_ONE = 2
"""Others that are not taken together to a stretch."""


def _counted(others: Sequence[int], texts: Sequence[str]) -> str:
    return f"{len(others):,} {'other' if len(others) == 1 else 'others'}: {', '.join(texts)}"
