"""Made-up features of several models, and slow plain answers about ensembles of them."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from harness.ranking.selection.candidates import gather


class World:
    """Queries and gallery rows around garments; a model's noise says how well it tells them apart.

    Args:
        seed: of everything.
        noises: one a model.
        num_queries: Q.
        num_gallery: G.
        num_garments: that both are drawn from.
        dimensions: D.
        coarse: similarities of few different values, so that there are ties.
    """

    def __init__(
        self,
        seed: int,
        noises: Sequence[float],
        num_queries: int = 30,
        num_gallery: int = 80,
        num_garments: int = 20,
        dimensions: int = 12,
        coarse: bool = False,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.asked = rng.integers(0, num_garments, num_queries)
        self.shown = rng.integers(0, num_garments, num_gallery)
        self.queries, self.gallery = [], []
        for noise in noises:
            centres = rng.normal(size=(num_garments, dimensions))
            for garments, parts in ((self.asked, self.queries), (self.shown, self.gallery)):
                rows = centres[garments] + noise * rng.normal(size=(len(garments), dimensions))
                if coarse:
                    rows = np.sign(rows) * (rng.random(rows.shape) < 0.3)
                    rows[:, 0] += ~rows.any(axis=1)  # no row without a direction
                parts.append(
                    (rows if coarse else rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
                )
        if coarse and num_gallery > 3:
            for part in self.gallery:
                part[num_gallery // 2] = part[0]  # the same box twice
        is_right = self.asked[:, None] == self.shown[None, :]
        self.right_starts = np.concatenate([[0], np.cumsum(is_right.sum(axis=1))])
        self.right_rows = np.nonzero(is_right)[1]
        self.is_right_QG = is_right
        self.sims_MQG = np.stack([
            query.astype(np.float64) @ answers.astype(np.float64).T
            for query, answers in zip(self.queries, self.gallery, strict=True)
        ])  # fmt: skip

    @property
    def features(self):
        return self.queries, self.gallery, self.right_starts, self.right_rows

    def candidates(self, num_candidates: int = 15):
        return gather(*self.features, num_candidates)

    def hits(self, weights, k: int) -> np.ndarray:
        """By sorting the whole gallery."""
        sims = sum(weight * sims for weight, sims in zip(weights, self.sims_MQG, strict=True) if weight)
        order = np.argsort(-sims, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(self.is_right_QG, order, axis=1).any(axis=1)


def subsets_of(num_models: int, most: int | None = None) -> list[tuple[int, ...]]:
    sizes = range(1, (most or num_models) + 1)
    return [one for size in sizes for one in combinations(range(num_models), size)]


def number_of(subset) -> int:
    return sum(1 << model for model in subset)


def equal_weights(subset, num_models: int) -> np.ndarray:
    return np.isin(np.arange(num_models), subset).astype(float)
