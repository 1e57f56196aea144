"""Few rows among themselves: held as they are multiplied, all their products looked at, none of them kept.

`harness.ranking.search.neighbours` goes through blocks that are many where rows are many; where all rows fit in memory,
one look at their products, a band at a time while it is in the cache, tells which pairs have to be scored exactly.

Legend: N rows, B rows of a band, W columns of all models together, M models, K neighbours of a row, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.ranking.rows import FeatureRows
from harness.ranking.search import Neighbours
from harness.types import Floats, Ints

if TYPE_CHECKING:
    from harness.ranking.exact import Workers

MOST_ROWS = 8192
"""Column numbers and counts of them fit in 16 bits."""
_MOST_NUMBERS = 1 << 26  # of features in single precision, 256 MB
_BAND = 256  # rows: 2 MB of products with 4,000


def is_few(rows: Sequence[FeatureRows]) -> bool:
    """Whether so few rows are better searched at once: where this CPU has units for products in bfloat16."""
    from harness.ranking.search_plan import has_bf16_units

    num_numbers = len(rows[0]) * sum(part.shape[1] for part in rows)
    return len(rows[0]) <= MOST_ROWS and num_numbers <= _MOST_NUMBERS and has_bf16_units()


class FewRows:
    """Rows that are read once.

    Args:
        rows: one (N, D) a model.
        weights: one positive weight a model.
        workers: threads.
    """

    def __init__(self, rows: Sequence[FeatureRows], weights: Sequence[float], workers: Workers) -> None:
        from harness.ranking.exact import as_floats

        everything = np.arange(len(rows[0]))
        self._stored = [np.asarray(part[:]) for part in rows]
        self._numbers = [as_floats(part, everything, workers) for part in self._stored]
        self._weights = weights
        self._workers = workers

    def similarities(self, left: Ints, right: Ints) -> Floats:
        """The float64 similarities of pairs of rows (P,), those of `harness.ranking.search.similarities_of`."""
        values = np.zeros(len(left))

        def score(start: int, stop: int) -> None:
            self._add(left[start:stop], right[start:stop], values[start:stop])

        self._workers.spread(len(left), score)
        return values

    def squared_lengths(self, model: int) -> Floats:
        """|row|² of each in one model, (N,), without its weight."""
        from harness.ranking.rounding import pair_products

        numbers, everything = self._numbers[model], np.arange(len(self._numbers[model]))
        values = np.zeros(len(numbers))

        def score(start: int, stop: int) -> None:
            rows = everything[start:stop]
            pair_products(numbers, numbers, rows, rows, 1.0, values[start:stop])

        self._workers.spread(len(values), score)
        return values

    def neighbours(self, added: Floats, count: int) -> Neighbours:
        """The rows of largest similarity to each, where a number is added to the similarity with each row.

        Args:
            added: (N,) float64.
            count: K.

        Returns:
            ids, similarities with what was added, and the lowest of those: all in float64, whatever the products'
            rounding.
        """
        import torch

        from harness.ranking.blocks import CPU_UNIT, error_bound, rounded_block
        from harness.ranking.close_rows import find_close, keep_largest, keep_smallest
        from harness.ranking.products import strict_products

        num_rows, width = len(added), 2 + sum(part.shape[1] for part in self._stored)
        everything, count = np.arange(num_rows), min(count, num_rows)
        # What is added is one more product: of 1 with a number, and with what its rounding to bfloat16 takes.
        column = np.ascontiguousarray(added[:, None])
        upper = ((column.astype(np.float32).view(np.uint32) >> 16) << 16).view(np.float32)
        ones = [np.ones((num_rows, 1))] * 2
        asking, answering = np.empty((num_rows, width), np.uint16), np.empty((num_rows, width), np.uint16)
        scale = np.array([*self._weights, 1.0, 1.0])
        query = rounded_block([*self._stored, *ones], everything, scale, asking, "queries", self._workers)
        answers = rounded_block(
            [*self._stored, upper, column - upper], everything, None, answering, "gallery", self._workers
        )
        errors = error_bound(query, answers.longest(), width + 9, CPU_UNIT)
        left, right = (torch.from_numpy(each).view(torch.bfloat16) for each in (asking, answering))
        ids, best, lowest = np.empty((num_rows, count), np.int64), np.empty((num_rows, count)), np.empty(num_rows)
        bands = iter(range(0, num_rows, _BAND))

        def search(_: int) -> None:
            torch.set_num_threads(1)  # that many of torch's own for this one
            space = torch.empty((min(_BAND, num_rows), num_rows), dtype=torch.bfloat16)
            for start in bands:
                band = slice(start, min(start + _BAND, num_rows))
                products = torch.mm(left[band], right.T, out=space[: band.stop - start])
                starts, high, low_starts, low = find_close(
                    products.view(torch.int16).numpy(), errors[band], count
                )
                columns = np.concatenate([high, low])
                lengths = np.concatenate([np.diff(starts), np.diff(low_starts)])
                asked = np.repeat(np.concatenate([everything[band], everything[band]]), lengths)
                values = np.zeros(len(columns))
                self._add(asked, columns, values)
                values += added[columns]
                keep_largest(starts, high, values[: len(high)], ids[band], best[band])
                keep_smallest(low_starts, values[len(high) :], lowest[band])

        with strict_products(1):
            self._workers.each(search)
        return Neighbours(ids, best, lowest)

    def _add(self, left: Ints, right: Ints, totals: Floats) -> None:
        from harness.ranking.rounding import pair_products

        for numbers, weight in zip(self._numbers, self._weights, strict=True):
            pair_products(numbers, numbers, left, right, weight, totals)
