"""k-reciprocal re-ranking by N x N matrices in float64, one row after another: slow, plain, and from the definition."""

import numpy as np


def dense_re_ranking(queries, gallery, k1, k2, lambda_value, weights=None):
    """The distances of all queries to all gallery rows, (Q, G); one array per model."""
    weights = [1.0] * len(queries) if weights is None else weights
    rows = [np.concatenate([q.astype(float), g.astype(float)]) for q, g in zip(queries, gallery, strict=True)]
    num_rows, num_queries = len(rows[0]), len(queries[0])
    squared = np.zeros((num_rows, num_rows))
    for part, weight in zip(rows, weights, strict=True):
        for row in range(num_rows):
            squared[row] += weight * ((part - part[row]) ** 2).sum(axis=1)
    order = []
    for row in range(num_rows):
        others = sorted((other for other in range(num_rows) if other != row), key=lambda o: (squared[row, o], o))
        order.append([row, *others])
    largest = squared.max(axis=1, keepdims=True)
    distances = squared / np.where(largest > 0, largest, 1)

    def reciprocal(row, k):
        return {other for other in order[row][: k + 1] if row in order[other][: k + 1]}

    encoded = np.zeros((num_rows, num_rows))
    for row in range(num_rows):
        near = reciprocal(row, k1)
        joined = set(near)
        for other in near:
            theirs = reciprocal(other, int(np.around(k1 / 2)))
            if 3 * len(theirs & near) > 2 * len(theirs):
                joined |= theirs
        members = sorted(joined)
        encoded[row, members] = np.exp(-distances[row, members])
        encoded[row] /= encoded[row].sum()
    if k2 > 1:
        encoded = np.stack([encoded[order[row][:k2]].mean(axis=0) for row in range(num_rows)])
    answers = np.empty((num_queries, num_rows - num_queries))
    for row in range(num_queries):
        shared = np.minimum(encoded[row], encoded[num_queries:]).sum(axis=1)
        jaccard = 1 - shared / (2 - shared)
        answers[row] = (1 - lambda_value) * jaccard + lambda_value * distances[row, num_queries:]
    return answers
