"""The search for the neighbours of few rows among themselves: all their products at once, none of them kept.

`harness.ranking.search.neighbours` goes through blocks that are many where rows are many; where all products fit in
memory, one look at them tells which pairs have to be scored exactly.

Legend: N rows, W columns of all models together, M models, K neighbours of a row, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.ranking.rows import FeatureRows
from harness.ranking.search import Neighbours
from harness.types import Floats, Ints

if TYPE_CHECKING:
    from harness.ranking.exact import Workers

MOST_ROWS = 8192
"""Products of so many take 128 MB."""
_MOST_NUMBERS = 1 << 26  # of features in single precision, 256 MB


def is_few(rows: Sequence[FeatureRows]) -> bool:
    """Whether so few rows are better searched at once: where this CPU has units for products in bfloat16."""
    from harness.ranking.search_plan import has_bf16_units

    num_numbers = len(rows[0]) * sum(part.shape[1] for part in rows)
    return len(rows[0]) <= MOST_ROWS and num_numbers <= _MOST_NUMBERS and has_bf16_units()


def neighbours_of_few(
    rows: Sequence[FeatureRows], weights: Sequence[float], added: Floats, count: int, num_threads: int
) -> Neighbours:
    """The rows of largest similarity to each, where a number is added to the similarity with each row.

    Args:
        rows: one (N, D) a model; finite.
        weights: one positive weight a model.
        added: (N,) float64.
        count: K.
        num_threads: at least 1.

    Returns:
        ids, similarities with what was added, and the lowest of those: all in float64, whatever the products' rounding.
    """
    import torch

    from harness.ranking.blocks import CPU_UNIT, error_bound, rounded_block
    from harness.ranking.close_rows import find_close, keep_largest, keep_smallest
    from harness.ranking.exact import Workers
    from harness.ranking.products import strict_products
    from harness.ranking.reciprocal_cpu import shared_out

    num_rows, width = len(rows[0]), sum(part.shape[1] for part in rows)
    everything, count = np.arange(num_rows), min(count, num_rows)
    with ThreadPoolExecutor(num_threads) as pool, strict_products(num_threads):
        workers = Workers(num_threads, pool)
        asking, answering = np.empty((num_rows, width), np.uint16), np.empty((num_rows, width), np.uint16)
        query = rounded_block(rows, everything, np.asarray(weights), asking, "queries", workers)
        answers = rounded_block(rows, everything, None, answering, "gallery", workers)
        errors = error_bound(query, answers.longest(), width + 9, CPU_UNIT)
        left, right = (torch.from_numpy(each).view(torch.bfloat16) for each in (asking, answering))
        bits = torch.mm(left, right.T).view(torch.uint16).numpy()
        small = added.astype(np.float32)
        errors += 2.0**-23 * np.abs(added).max()
        found = shared_out(
            num_threads, num_rows, lambda start, stop: find_close(bits, small, errors, count, start, stop)
        )
        high_lengths, high, low_lengths, low = (np.concatenate(parts) for parts in zip(*found, strict=True))
        columns = np.concatenate([high, low]).astype(np.int64)
        asked = np.concatenate([np.repeat(everything, lengths) for lengths in (high_lengths, low_lengths)])
        values = _scored(rows, weights, asked, columns, workers) + added[columns]
    starts, low_starts = (np.concatenate([np.zeros(1, np.int64), np.cumsum(n)]) for n in (high_lengths, low_lengths))
    ids, best, lowest = np.empty((num_rows, count), np.int64), np.empty((num_rows, count)), np.empty(num_rows)
    list(
        shared_out(
            num_threads, num_rows, lambda start, stop: keep_largest(starts, columns, values, start, stop, ids, best)
        )
    )
    keep_smallest(low_starts + starts[-1], values, lowest)
    return Neighbours(ids, best, lowest)


def _scored(rows: Sequence[FeatureRows], weights: Sequence[float], left: Ints, right: Ints, workers: Workers) -> Floats:
    from harness.ranking.exact import as_floats
    from harness.ranking.rounding import pair_products

    values = np.zeros(len(left))
    for part, weight in zip(rows, weights, strict=True):
        numbers = as_floats(part, np.arange(len(part)), workers)

        def add(start: int, stop: int, numbers: NDArray[Any] = numbers, weight: float = weight) -> None:
            pair_products(numbers, numbers, left[start:stop], right[start:stop], weight, values[start:stop])

        workers.spread(len(left), add)
    return values
