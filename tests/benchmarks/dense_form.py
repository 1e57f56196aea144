"""k-reciprocal re-ranking as public code does it: N x N single-precision matrices, and Python loops over rows.

Legend: N rows (queries, then gallery).
"""

import numpy as np


def dense_form(queries, gallery, k1=20, k2=6, lambda_value=0.3, dtype=np.float32):
    """The distances of all queries to all gallery rows, (Q, G); public code has single precision."""
    rows = np.concatenate([queries, gallery]).astype(dtype)
    num_queries, num_rows = len(queries), len(rows)
    squared = (rows**2).sum(axis=1)
    distances = squared[:, None] + squared[None] - 2 * (rows @ rows.T)
    distances = distances / distances.max(axis=1, keepdims=True)
    order = np.argsort(distances, axis=1).astype(np.int32)

    def reciprocal(row, k):
        forward = order[row, : k + 1]
        return forward[(order[forward, : k + 1] == row).any(axis=1)]

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
    return (jaccard * (1 - lambda_value) + distances * lambda_value)[:, num_queries:]
