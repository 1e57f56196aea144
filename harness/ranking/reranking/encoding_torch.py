"""k-reciprocal encoding on a GPU, in torch: the steps of the CPU, by gathering, comparing and sorting whole blocks.

Legend: N rows (queries, then gallery), G gallery rows, K neighbours of a row, E entries of sparse rows, B rows of a
block, H neighbours of a row that may join.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.ranking.reranking.sparse_rows import SparseRows, stack
from harness.types import Floats, Ints

if TYPE_CHECKING:
    import torch

_ENTRIES = 1 << 25  # of a block at once: about 2 GB with what is sorted beside them


class TorchSteps:
    """The steps of the encoding, see `harness.ranking.reranking.encoding_cpu.CpuSteps`.

    Args:
        device: torch's name of it.
        entries: numbers of a block held at once, about.
    """

    def __init__(self, device: str, entries: int = _ENTRIES) -> None:
        self.device = device
        self.entries = entries

    def close(self) -> None:
        """Let go of what is filed, and so of the device's memory."""
        import torch

        self._gallery = self._values = self._lengths = torch.empty(0)

    def sets(self, ids: NDArray[np.int32], distances: Floats, k1: int, half: int) -> SparseRows:
        """The sets R* of N rows with distances, NaN where neither row has the other in its list."""
        import torch

        ids_NK, distances_NK = self._moved(ids).long(), self._moved(distances)
        num_rows = len(ids_NK)
        size = max(1, self.entries // ((k1 + 1) ** 2 * (half + 1)))
        edges = [(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]
        is_near = torch.cat([_reciprocal(ids_NK[:, : k1 + 1], *edge) for edge in edges])
        is_half = torch.cat([_reciprocal(ids_NK[:, : half + 1], *edge) for edge in edges])
        blocks = []
        for start, stop in edges:
            near_BK, is_near_BK = ids_NK[start:stop, : k1 + 1], is_near[start:stop]
            joining_BKH = ids_NK[:, : half + 1][near_BK]
            counts_BKH = is_half[near_BK] & is_near_BK[:, :, None]
            is_shared_BKH = torch.zeros_like(counts_BKH)
            for place in range(k1 + 1):
                is_shared_BKH |= (joining_BKH == near_BK[:, None, place, None]) & is_near_BK[:, None, place, None]
            size_BK, shared_BK = counts_BKH.sum(dim=2), (counts_BKH & is_shared_BKH).sum(dim=2)
            joins_BKH = counts_BKH & (3 * shared_BK > 2 * size_BK)[:, :, None]
            rows = torch.arange(start, stop, device=self.device)
            near_keys = (rows[:, None] * num_rows + near_BK)[is_near_BK]
            joining_keys = (rows[:, None, None] * num_rows + joining_BKH)[joins_BKH]
            keys, _ = torch.cat([near_keys, joining_keys]).sort()
            keys, _ = torch.unique_consecutive(keys, return_counts=True)  # type: ignore[no-untyped-call]
            row, column = keys // num_rows, keys % num_rows
            found = torch.full(keys.shape, torch.nan, dtype=torch.float64, device=self.device)
            for ours, theirs in ((column, row), (row, column)):  # the row's own list counts where both have the other
                for place in range(ids_NK.shape[1]):
                    found = torch.where(ids_NK[ours, place] == theirs, distances_NK[ours, place], found)
            blocks.append(_block(row - start, stop - start, column, found))
        return stack(blocks)

    def weigh(self, sets: SparseRows, largest: Floats) -> None:
        """Turn the distances of the sets into weights, in place; ``largest`` is (N,) float64, above 0."""
        import torch

        lengths = self._moved(np.diff(sets.starts))
        weights = torch.exp(-self._moved(sets.values) / self._moved(largest).repeat_interleave(lengths))
        weights /= torch.segment_reduce(weights, "sum", lengths=lengths, unsafe=True).repeat_interleave(lengths)
        sets.values[:] = weights.cpu().numpy()

    def averaged(self, encoded: SparseRows, ids: NDArray[np.int32], k2: int, rows: Ints) -> SparseRows:
        """The mean rows of the first k2 neighbours of some rows."""
        return stack(
            _block(row, count, column, value) for row, count, column, value in self._averaged(encoded, ids, k2, rows)
        )

    def file(self, encoded: SparseRows, ids: NDArray[np.int32], k2: int, rows: Ints) -> None:
        """Keep the mean rows of the gallery's rows by column, for `overlaps`."""
        import torch

        blocks, first = [], 0
        for row, count, column, value in self._averaged(encoded, ids, k2, rows):
            blocks.append((row.int() + first, column.int(), value))
            first += count
        gallery, columns, values = (torch.cat(parts) for parts in zip(*blocks, strict=True))
        del blocks
        columns, order = columns.sort(stable=True)
        self._gallery, self._values, self._num_gallery = gallery[order], values[order], len(rows)
        self._lengths = torch.bincount(columns.long(), minlength=len(encoded))
        self._starts = self._lengths.cumsum(0) - self._lengths

    def overlaps(self, encoded: SparseRows, start: int, stop: int) -> SparseRows:
        """The sums of minima of a range of queries with the gallery rows that were filed."""
        import torch

        blocks = []
        starts, columns = encoded.starts, self._moved(encoded.columns).long()
        values = self._moved(encoded.values)
        steps = np.concatenate([np.zeros(1, np.int64), self._lengths[columns].cumsum(0).cpu().numpy()])[starts]
        while start < stop:
            end = int(np.searchsorted(steps, steps[start] + self.entries, side="right")) - 1
            end = min(max(end, start + 1), stop)
            entries = slice(starts[start], starts[end])
            queries = torch.arange(end - start, device=self.device)
            queries = queries.repeat_interleave(self._moved(np.diff(starts[start : end + 1])))
            lengths = self._lengths[columns[entries]]
            asking = torch.arange(len(lengths), device=self.device).repeat_interleave(lengths)
            first = self._starts[columns[entries]] - (lengths.cumsum(0) - lengths)
            place = torch.arange(len(asking), device=self.device) + first[asking]
            smaller = torch.minimum(values[entries][asking], self._values[place])
            keys = queries[asking] * self._num_gallery + self._gallery[place]
            keys, sums = _summed(keys, smaller)
            blocks.append(_block(keys // self._num_gallery, end - start, keys % self._num_gallery, sums))
            start = end
        return stack(blocks)

    def _averaged(
        self, encoded: SparseRows, ids: NDArray[np.int32], k2: int, rows: Ints
    ) -> Iterator[tuple[torch.Tensor, int, torch.Tensor, torch.Tensor]]:
        """Of each block its rows counted from 0, their number, columns and values, sorted by row."""
        import torch

        num_columns = len(encoded)
        starts, columns, values = (self._moved(part) for part in (encoded.starts, encoded.columns, encoded.values))
        lengths = starts.diff()
        size = max(1, self.entries // max(1, k2 * -(-len(columns) // num_columns)))
        for start in range(0, len(rows), size):
            near = self._moved(ids[rows[start : start + size], :k2]).long()
            count = len(near)
            near_lengths = lengths[near.flatten()]
            asking = torch.arange(count * k2, device=self.device).repeat_interleave(near_lengths)
            first = starts[near.flatten()] - (near_lengths.cumsum(0) - near_lengths)
            place = torch.arange(len(asking), device=self.device) + first[asking]
            keys, sums = _summed(asking // k2 * num_columns + columns[place], values[place])
            yield keys // num_columns, count, keys % num_columns, sums / k2

    def _moved(self, array: NDArray[np.generic]) -> torch.Tensor:
        import torch

        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def _reciprocal(ids_NK: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """Which neighbours of some rows have the row among theirs, (B, K) bool."""
    import torch

    rows = torch.arange(start, stop, device=ids_NK.device)
    return (ids_NK[ids_NK[start:stop]] == rows[:, None, None]).any(dim=2)


def _summed(keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The keys that occur, ascending, and the sum of the values of each; the same in every run, unlike atomic sums."""
    import torch

    keys, order = keys.sort(stable=True)
    keys, counts = torch.unique_consecutive(keys, return_counts=True)  # type: ignore[no-untyped-call]
    return keys, torch.segment_reduce(values[order], "sum", lengths=counts, unsafe=True)


def _block(
    rows: torch.Tensor, num_rows: int, columns: torch.Tensor, values: torch.Tensor
) -> tuple[Ints, NDArray[np.int32], Floats]:
    """A block for `stack` from entries that are sorted by row."""
    lengths = rows.bincount(minlength=num_rows)
    return lengths.cpu().numpy(), columns.int().cpu().numpy(), values.cpu().numpy()
