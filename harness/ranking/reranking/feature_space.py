"""Queries and gallery as one set of points: squared Euclidean distances of the models' concatenation, never stored.

|a - b|² = |a|² + |b|² - 2·<a, b>, so rows by ascending distance from a are rows by descending <a, b> - |b|²/2: that is
the similarity of a search with one more model of one dimension, 1 for whoever asks and -|b|²/2 for whoever answers.
It holds for rows of any length: features in half precision are a little off 1.

Legend: Q queries, G gallery rows, N both, the queries first, D dimensions of a model, K neighbours, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from harness.ranking.reranking.few_rows import FewRows, RoundedRows, is_few
from harness.ranking.rows import ChosenRows, FeatureRows, JoinedRows, place, refuse_short_file
from harness.ranking.search import SearchOptions, nearest, neighbours, similarities_of
from harness.types import Floats, InputError, Ints, Progress

if TYPE_CHECKING:
    from harness.ranking.search.exact import Workers

_SUSPECTS = 4096  # rows read at once to see what is wrong with them

OneOrMore = FeatureRows | Sequence[FeatureRows]
"""The features of one model, or of each."""


@dataclass(frozen=True)
class NeighbourLists:
    """The rows nearest to each row.

    Attributes:
        ids: (N, K) int32, the row itself first, then by ascending distance, equal ones by ascending row.
        distances: (N, K) float64, squared; 0 to the row itself.
        largest: (N,) float64, the squared distance to the row farthest away.
    """

    ids: NDArray[np.int32]
    distances: Floats
    largest: Floats


class FeatureSpace:
    """The points of queries and gallery, as `harness.ranking.reranking.k_reciprocal` takes them.

    Args:
        queries: one (Q, D) array, or one per model.
        gallery: one (G, D) array, or one per model.
        weights: one positive weight per model, on its part of the squared distance; None for 1 each.
        workers: threads, which hold out as long as the space is asked.

    Raises:
        InputError: shapes disagree, there is no model, a weight is not positive, or a row has a number that is not
            finite, or is zero.
    """

    def __init__(
        self, queries: OneOrMore, gallery: OneOrMore, weights: Sequence[float] | None, workers: Workers
    ) -> None:
        upper, lower = _models(queries), _models(gallery)
        if not upper or len(upper) != len(lower):
            raise InputError(
                f"re-ranking: expected one array of queries and one of gallery rows for each model, "
                f"got {len(upper)} and {len(lower)}"
            )
        for model, (query, rows) in enumerate(zip(upper, lower, strict=True)):
            if len(query.shape) != 2 or len(rows.shape) != 2 or query.shape[1] != rows.shape[1] or not query.shape[1]:
                raise InputError(
                    f"re-ranking: model {model}: expected queries (Q, D) and gallery (G, D) with the same D of at "
                    f"least 1, got {query.shape} and {rows.shape}"
                )
            if len(query) != len(upper[0]) or len(rows) != len(lower[0]):
                raise InputError(
                    f"re-ranking: model {model} has {len(query)} queries and {len(rows)} gallery rows, model 0 has "
                    f"{len(upper[0])} and {len(lower[0])}: enter features of the same boxes"
                )
            for part in (query, rows):
                if part.dtype.kind != "f":
                    raise InputError(
                        f"re-ranking: model {model}: expected features of a floating type, got {part.dtype}"
                    )
                refuse_short_file(part)
        scale = np.ones(len(upper)) if weights is None else np.asarray(weights, np.float64)
        if scale.shape != (len(upper),) or not (np.isfinite(scale) & (scale > 0)).all():
            raise InputError(f"re-ranking: expected {len(upper)} weights above 0, one for each model, got {weights}")
        self.num_queries, self.num_gallery = len(upper[0]), len(lower[0])
        self._weights = scale.tolist()
        self._rows = [JoinedRows(query, rows) for query, rows in zip(upper, lower, strict=True)]
        self._few = FewRows(self._rows, self._weights, workers) if is_few(self._rows) else None
        self._squared_N = np.zeros(len(self))
        for model, weight in enumerate(self._weights):
            squared = self._squared_lengths(model)
            for rows, name in ((upper[model], "queries"), (lower[model], "gallery")):
                offset = 0 if name == "queries" else self.num_queries
                _refuse(rows, squared[offset : offset + len(rows)], f"{name} of model {model}")
            self._squared_N += weight * squared

    def __len__(self) -> int:
        return self.num_queries + self.num_gallery

    def neighbours(self, count: int, options: SearchOptions, progress: Progress | None = None) -> NeighbourLists:
        """The min(count, N) rows nearest to each, itself among them."""
        centre, answers = self._answers()
        if self._few is not None and _is_on_cpu(options):
            found = self._rounded.nearest(np.arange(len(self)), 0, count)
        else:
            asking: list[FeatureRows] = [*self._rows, np.ones((len(self), 1))]
            answering: list[FeatureRows] = [*self._rows, answers]
            scale = [*self._weights, 1.0]
            found = neighbours(asking, answering, count, scale, options=options, progress=progress)
        ids_NK, itself_N = found.ids.astype(np.int32), np.arange(len(self), dtype=np.int32)
        distances_NK = np.maximum(self._squared_N[:, None] + 2 * (centre - found.similarities), 0)
        # Twins of a lower row number stand before the row, and may be so many that it is not among them.
        moved = np.flatnonzero(ids_NK[:, 0] != itself_N)
        is_other = ids_NK[moved] != itself_N[moved, None]
        is_other[is_other.all(axis=1), -1] = False
        ids_NK[moved, 1:] = ids_NK[moved][is_other].reshape(len(moved), ids_NK.shape[1] - 1)
        distances_NK[moved, 1:] = distances_NK[moved][is_other].reshape(len(moved), ids_NK.shape[1] - 1)
        ids_NK[:, 0], distances_NK[:, 0] = itself_N, 0
        return NeighbourLists(ids_NK, distances_NK, np.maximum(self._squared_N + 2 * (centre - found.lowest), 0))

    def distances(self, rows: Ints, others: Ints) -> Floats:
        """Squared distances of pairs of rows, (P,)."""
        if self._few is not None:
            similarities = self._few.similarities(rows, others)
        else:
            similarities = similarities_of(self._rows, self._rows, rows, others, self._weights)
        return np.asarray(np.maximum(self._squared_N[rows] + self._squared_N[others] - 2 * similarities, 0))

    def nearest_gallery(
        self, query_rows: Ints, count: int, groups: tuple[Ints, Ints] | None, options: SearchOptions
    ) -> Ints:
        """The gallery rows nearest to some queries, (len(query_rows), min(count, G)); see `nearest` for the groups."""
        if self._few is not None and groups is None and _is_on_cpu(options):
            return self._rounded.nearest(query_rows, self.num_queries, count).ids
        _, answers = self._answers()
        asking = [ChosenRows(cast("NDArray[np.float16]", rows), query_rows) for rows in self._rows]
        found, _ = nearest(
            [*asking, np.ones((len(query_rows), 1))],
            [*(rows.lower for rows in self._rows), answers[self.num_queries :]],
            count,
            [*self._weights, 1.0],
            groups=groups,
            options=options,
        )
        return found

    @cached_property
    def _rounded(self) -> RoundedRows:
        assert self._few is not None
        return RoundedRows(self._few, self._answers()[1][:, 0])

    def _squared_lengths(self, model: int) -> Floats:
        """|row|² of each, (N,); equal rows get equal numbers."""
        if self._few is not None:
            return self._few.squared_lengths(model)
        parts = (self._rows[model].upper, self._rows[model].lower)
        return np.concatenate(
            [similarities_of([rows], [rows], np.arange(len(rows)), np.arange(len(rows))) for rows in parts]
        )

    def _answers(self) -> tuple[float, Floats]:
        """A constant, and what a search adds to the inner products with each row (N, 1): the constant - |b|²/2.

        The constant makes the numbers small, and so their rounding; it has few digits, so that rows whose products and
        lengths are exact numbers keep exact sums, and thereby their ties.
        """
        mantissa, exponent = np.frexp(self._squared_N.mean() / 2)
        centre = float(np.ldexp(np.round(mantissa * 256) / 256, exponent))
        return centre, (centre - self._squared_N / 2)[:, None]


def _is_on_cpu(options: SearchOptions) -> bool:
    import torch

    if options.engine == "faiss" or options.precision not in ("auto", "bf16"):
        return False
    return not torch.cuda.is_available() if options.devices is None else options.devices == ("cpu",)


def _models(features: OneOrMore) -> list[FeatureRows]:
    return [cast(FeatureRows, features)] if hasattr(features, "shape") else list(features)


def _refuse(rows: FeatureRows, squared: Floats, name: str) -> None:
    """Raise `InputError` for a row that is not finite or has no length; ``squared`` are their squared lengths."""
    # Compiled decoding of half precision takes what is not finite for 65,536 and more.
    suspects = np.flatnonzero(~((squared > 0) & (squared < 2.0**32)))
    for start in range(0, len(suspects), _SUSPECTS):
        block = suspects[start : start + _SUSPECTS]
        is_finite = np.isfinite(rows[block]).all(axis=1)
        wrong = np.flatnonzero(~(is_finite & (squared[block] > 0) & np.isfinite(squared[block])))
        if len(wrong):
            row = int(block[wrong[0]])
            what = "is zero and has no direction" if squared[row] == 0 else "is too long"
            what = what if is_finite[wrong[0]] else "has a number that is not finite"
            raise InputError(f"{place(rows, row, name)} {what}: embed that box again")
