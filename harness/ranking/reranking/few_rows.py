"""Few rows among themselves: held as they are multiplied, all their products looked at, none of them kept.

`harness.ranking.search.neighbours` goes through blocks that are many where rows are many; where all rows fit in memory,
one look at their products, a band at a time while it is in the cache, tells which pairs have to be scored exactly.

Legend: N rows, B rows of a band, W columns of all models together, M models, K neighbours of a row, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.ranking.rows import FeatureRows
from harness.ranking.search import Neighbours
from harness.types import Floats, Ints

if TYPE_CHECKING:
    import torch

    from harness.ranking.search.exact import Workers

MOST_ROWS = 8192
"""Column numbers and counts of them fit in 16 bits."""
_MOST_NUMBERS = 1 << 26  # of features in single precision, 256 MB
_BAND = 256  # rows: 2 MB of products with 4,000
_LEAST_BAND = 32  # what answers is put in order anew for every band
_UNIT = 32  # dimensions that a matrix unit takes at once: 258 take a quarter longer than 288


def is_few(rows: Sequence[FeatureRows]) -> bool:
    """Whether so few rows are better searched at once: where this CPU has units for products in bfloat16."""
    from harness.ranking.search.planning import has_bf16_units

    num_numbers = len(rows[0]) * sum(part.shape[1] for part in rows)
    return len(rows[0]) <= MOST_ROWS and num_numbers <= _MOST_NUMBERS and has_bf16_units()


class FewRows:
    """Rows that are read once.

    Args:
        rows: one (N, D) a model.
        weights: one positive weight a model.
        workers: threads.

    Attributes:
        stored: the rows as they are stored, one array (N, D) a model.
    """

    def __init__(self, rows: Sequence[FeatureRows], weights: Sequence[float], workers: Workers) -> None:
        from harness.ranking.search.exact import as_floats

        everything = np.arange(len(rows[0]))
        self.stored = [np.asarray(part[:]) for part in rows]
        self._numbers = [as_floats(part, everything, workers) for part in self.stored]
        self.weights = weights
        self.workers = workers

    def similarities(self, left: Ints, right: Ints) -> Floats:
        """The float64 similarities of pairs of rows (P,), those of `harness.ranking.search.similarities_of`."""
        values = np.zeros(len(left))

        def score(start: int, stop: int) -> None:
            self.add_similarities(left[start:stop], right[start:stop], values[start:stop])

        self.workers.spread(len(left), score)
        return values

    def squared_lengths(self, model: int) -> Floats:
        """|row|² of each in one model, (N,), without its weight."""
        from harness.ranking.search.rounding import pair_products

        numbers, everything = self._numbers[model], np.arange(len(self._numbers[model]))
        values = np.zeros(len(numbers))

        def score(start: int, stop: int) -> None:
            rows = everything[start:stop]
            pair_products(numbers, numbers, rows, rows, 1.0, values[start:stop])

        self.workers.spread(len(values), score)
        return values

    def add_similarities(self, left: Ints, right: Ints, totals: Floats) -> None:
        """Add the similarities of pairs of rows to ``totals`` (P,), in this thread."""
        from harness.ranking.search.rounding import pair_products

        for numbers, weight in zip(self._numbers, self.weights, strict=True):
            pair_products(numbers, numbers, left, right, weight, totals)


class RoundedRows:
    """Few rows as bfloat16, to find those of largest similarity, where a number is added to that with each row.

    Args:
        rows: the rows; finite.
        added: (N,) float64.
    """

    def __init__(self, rows: FewRows, added: Floats) -> None:
        from harness.ranking.search.blocks import CPU_UNIT, error_bound, rounded_block

        self._rows, self._added = rows, added
        # What is added is one more product: of 1 with a number, and with what its rounding to bfloat16 takes.
        column = np.ascontiguousarray(added[:, None])
        upper = (column.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        ones = [np.ones((len(added), 1))] * 2
        width = -(-(2 + sum(part.shape[1] for part in rows.stored)) // _UNIT) * _UNIT
        everything = np.arange(len(added))
        self._asking, self._answering = (np.zeros((len(added), width), np.uint16) for _ in range(2))
        scale = np.array([*rows.weights, 1.0, 1.0])
        query = rounded_block([*rows.stored, *ones], everything, scale, self._asking, "queries", rows.workers)
        answers = [*rows.stored, upper, column - upper]
        longest = rounded_block(answers, everything, None, self._answering, "gallery", rows.workers).longest()
        self._errors = error_bound(query, longest, width + 9, CPU_UNIT)

    def nearest(self, asked: Ints, first: int, count: int) -> Neighbours:
        """The rows of largest similarity to some.

        Args:
            asked: (A,) int64, the rows that ask.
            first: rows from this one on answer; they are at least one.
            count: how many are wanted of each.

        Returns:
            ids from 0 for ``first``, similarities with what was added, and the lowest of those, all in float64,
            whatever the products' rounding.
        """
        import torch

        from harness.ranking.reranking.close_rows import find_close, keep_largest, keep_smallest
        from harness.ranking.search.products import strict_products

        answering, added = _as_bf16(self._answering[first:]).T, self._added[first:]
        count = min(count, len(added))
        ids, best, lowest = np.empty((len(asked), count), np.int64), np.empty((len(asked), count)), np.empty(len(asked))
        size = max(_LEAST_BAND, min(_BAND, -(-len(asked) // self._rows.workers.num_threads)))
        bands = iter(range(0, len(asked), size))

        def search(_: int) -> None:
            torch.set_num_threads(1)  # threads of its own; `strict_products` sets all back
            space = torch.empty((min(size, len(asked)), len(added)), dtype=torch.bfloat16)
            for start in bands:
                band = slice(start, min(start + size, len(asked)))
                rows = asked[band]
                products = torch.mm(_as_bf16(self._asking[rows]), answering, out=space[: len(rows)])
                bits = products.view(torch.int16).numpy()
                high_starts, high, low_starts, low = find_close(bits, self._errors[rows], count)
                columns = np.concatenate([high, low])
                lengths = np.concatenate([np.diff(high_starts), np.diff(low_starts)])
                values = np.zeros(len(columns))
                self._rows.add_similarities(np.repeat(np.concatenate([rows, rows]), lengths), columns + first, values)
                values += added[columns]
                keep_largest(high_starts, high, values[: len(high)], ids[band], best[band])
                keep_smallest(low_starts, values[len(high) :], lowest[band])

        with strict_products(1):
            self._rows.workers.each(search)
        return Neighbours(ids, best, lowest)


def _as_bf16(bits: NDArray[np.uint16]) -> torch.Tensor:
    import torch

    return torch.from_numpy(bits).view(torch.bfloat16)
