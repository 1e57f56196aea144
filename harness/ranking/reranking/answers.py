"""The answers of a block of queries after re-ranking.

Rows that share no neighbour with a query have Jaccard distance 1, the largest there is; among them the nearest are the
best. So the answers are among the rows that share neighbours and the nearest ones, and where those that share
neighbours are many and good, a bound on the distance of all others proves that no more need be looked at.

Legend: B queries of a block, G gallery rows, K neighbours of a row, T answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from harness.ranking.reranking.feature_space import FeatureSpace, NeighbourLists
from harness.ranking.reranking.sparse_rows import SparseRows
from harness.ranking.search import SearchOptions
from harness.types import Floats, Ints

if TYPE_CHECKING:
    from harness.ranking.search.exact import Workers


@dataclass(frozen=True)
class Groups:
    """Whose answers come first.

    Attributes:
        queries: (Q,) int64.
        gallery: (G,) int64.
    """

    queries: Ints
    gallery: Ints

    def own_rows(self, queries: Ints) -> Ints:
        """How many gallery rows are of the group of each of some queries."""
        groups, counts = np.unique(self.gallery, return_counts=True)
        seats = np.searchsorted(groups, self.queries[queries]).clip(max=len(groups) - 1)
        return np.where(groups[seats] == self.queries[queries], counts[seats], 0)


class Answers:
    """Chooses the answers of queries.

    Args:
        space: the points.
        lists: neighbours of all rows.
        lambda_value: weight of the distance beside Jaccard's.
        top_k: T, at most G.
        groups: whose answers come first.
        options: of searches.
        workers: threads.
    """

    def __init__(
        self,
        space: FeatureSpace,
        lists: NeighbourLists,
        lambda_value: float,
        top_k: int,
        groups: Groups | None,
        options: SearchOptions,
        workers: Workers,
    ) -> None:
        self.space = space
        self.lists = lists
        self.lambda_value = lambda_value
        self.top_k = top_k
        self.is_grouped = groups is not None
        self.groups = groups or Groups(np.zeros(space.num_queries, np.int64), np.zeros(space.num_gallery, np.int64))
        self.options = options
        self.workers = workers

    def of(self, queries: Ints, overlaps: SparseRows) -> tuple[Ints, Floats]:
        """The answers of some queries.

        Args:
            queries: (B,) int64.
            overlaps: B rows: the gallery rows that share neighbours with each, and the sums of minima.

        Returns:
            gallery rows (B, T) int64 and distances (B, T) float64, ascending within the query's own group and the rest.
        """
        scale = self.lists.largest[queries, None]
        near = self.lists.ids[queries] - np.int32(self.space.num_queries)
        known = self.lists.distances[queries] / scale
        rows, values, is_proven = self._contest(queries, overlaps, near, known)
        pending = np.flatnonzero(~is_proven)
        if len(pending):
            further = self._nearest_others(queries[pending])
            near = np.concatenate([near[pending], further], axis=1)
            known = np.concatenate([known[pending], np.full(further.shape, np.nan)], axis=1)
            rows[pending], values[pending], _ = self._contest(queries[pending], overlaps.take(pending), near, known)
        return rows, values

    def _contest(
        self, queries: Ints, overlaps: SparseRows, near: NDArray[np.int32], known: Floats
    ) -> tuple[Ints, Floats, NDArray[np.bool_]]:
        """Answers among the rows that overlap or are near, their values, and whether no other row can be one."""
        from harness.ranking.reranking.contest import choose_best, enter, find_contenders
        from harness.ranking.reranking.encoding_cpu import shared_out

        lambda_value, num_gallery = self.lambda_value, self.space.num_gallery
        floors = known[:, : self.lists.ids.shape[1]].max(axis=1)
        own_rows = self.groups.own_rows(queries)
        wanted = np.minimum(own_rows, self.top_k)
        num_found = np.zeros((len(queries), 2), np.int64)
        overlap = (overlaps.starts, overlaps.columns, overlaps.values)
        groups = (self.groups.queries[queries], self.groups.gallery)
        rules = (wanted, self.top_k, lambda_value)

        def entered(start: int, stop: int) -> tuple[Ints, NDArray[np.int32], Floats, Floats]:
            found = enter(*overlap, near, known, floors, *groups, *rules, start, stop, num_found)
            return cast("tuple[Ints, NDArray[np.int32], Floats, Floats]", found)

        blocks = zip(*shared_out(self.workers, len(queries), entered), strict=True)
        lengths, rows, jaccard, distances = (np.concatenate(parts) for parts in blocks)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        asking = np.repeat(np.arange(len(queries)), lengths)
        is_own = groups[0][asking] == groups[1][rows]
        places = np.empty((len(queries), self.top_k), np.int64)
        values = np.empty(places.shape)
        field = (starts, rows, jaccard, distances)
        choices = (is_own, wanted, lambda_value)

        def choose(bounds: Floats) -> None:
            def run(start: int, stop: int) -> None:
                choose_best(*field, bounds, *choices, start, stop, places, values)

            self.workers.spread(len(queries), run)

        def measure(entries: Ints) -> None:
            if len(entries):
                each = queries[asking[entries]]
                found = self.space.distances(each, rows[entries].astype(np.int64) + self.space.num_queries)
                distances[entries] = found / self.lists.largest[each]

        choose(floors)
        if lambda_value > 0:
            chosen = places[places >= 0]
            measure(chosen[np.isnan(distances[chosen])])
            choose(np.full_like(floors, np.inf))  # the best that are known
            measure(find_contenders(starts, jaccard, distances, floors, *choices, values))
            choose(floors)
        bounds = 1.0 - lambda_value + lambda_value * floors
        order = np.arange(self.top_k)
        is_complete = np.where(
            order < wanted[:, None],
            (num_found[:, 0] == own_rows)[:, None],
            (num_found[:, 1] == num_gallery - own_rows)[:, None],
        )
        is_proven = (is_complete | (values < bounds[:, None])).all(axis=1)
        found = np.full(places.shape, -1)
        found[places >= 0] = rows[places[places >= 0]]
        return found, values, is_proven

    def _nearest_others(self, queries: Ints) -> NDArray[np.int32]:
        """Gallery rows among which the best of those are that share no neighbour: the nearest, or the first."""
        if self.lambda_value > 0:
            groups = (self.groups.queries[queries], self.groups.gallery) if self.is_grouped else None
            return self.space.nearest_gallery(queries, self.top_k, groups, self.options).astype(np.int32)
        asked, seats = np.unique(self.groups.queries[queries], return_inverse=True)
        table = np.full((len(asked), 2 * self.top_k), -1, np.int32)
        for seat, group in enumerate(asked):
            is_own = self.groups.gallery == group
            for column, rows in ((0, np.flatnonzero(is_own)), (self.top_k, np.flatnonzero(~is_own))):
                rows = rows[: self.top_k]
                table[seat, column : column + len(rows)] = rows
        return np.asarray(table[seats])
