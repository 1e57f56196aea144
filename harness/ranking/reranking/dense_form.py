"""k-reciprocal re-ranking as public code does it: N x N single-precision matrices, and Python loops over rows.

The baseline that `k_reciprocal` is timed and tested against; nothing else uses it. Legend: Q queries, G gallery rows,
D dimensions, N rows (queries, then gallery).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def dense_form(
    queries: NDArray[Any],
    gallery: NDArray[Any],
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    dtype: DTypeLike = np.float32,
) -> NDArray[Any]:
    """The distances of all queries to all gallery rows; time and memory grow with the square of the rows.

    Args:
        queries: (Q, D), unit rows; of several models their concatenation.
        gallery: (G, D), unit rows.
        k1: neighbours that may be reciprocal.
        k2: neighbours whose encodings are averaged.
        lambda_value: what the plain distance counts, in [0, 1].
        dtype: to compute in; public code has single precision.

    Returns:
        (Q, G) of ``dtype``.
    """
    rows = np.concatenate([queries, gallery]).astype(dtype)
    num_queries, num_rows = len(queries), len(rows)
    squared = (rows**2).sum(axis=1)
    distances = squared[:, None] + squared[None] - 2 * (rows @ rows.T)
    distances = distances / distances.max(axis=1, keepdims=True)
    order = np.argsort(distances, axis=1).astype(np.int32)

    def reciprocal(row: int, k: int) -> NDArray[Any]:
        forward = order[row, : k + 1]
        found: NDArray[Any] = forward[(order[forward, : k + 1] == row).any(axis=1)]
        return found

    encoded = np.zeros_like(distances)
    half = int(np.around(k1 / 2))
    for row in range(num_rows):
        near = reciprocal(row, k1)
        members = near
        for other in near:
            theirs = reciprocal(other, half)
            if len(np.intersect1d(theirs, near)) > 2 / 3 * len(theirs):
                members = np.append(members, theirs)
        members = np.unique(members)
        weights = np.exp(-distances[row, members])
        encoded[row, members] = weights / weights.sum()
    distances = distances[:num_queries]
    if k2 != 1:
        mean = np.zeros_like(encoded)
        for row in range(num_rows):
            mean[row] = encoded[order[row, :k2]].mean(axis=0)
        encoded = mean
    by_column = [np.flatnonzero(encoded[:, column]) for column in range(num_rows)]
    jaccard = np.zeros_like(distances)
    for row in range(num_queries):
        shared = np.zeros(num_rows, dtype)
        for column in np.flatnonzero(encoded[row]):
            rows_there = by_column[column]
            shared[rows_there] += np.minimum(encoded[row, column], encoded[rows_there, column])
        jaccard[row] = 1 - shared / (2 - shared)
    blended: NDArray[Any] = (jaccard * (1 - lambda_value) + distances * lambda_value)[:, num_queries:]
    return blended
