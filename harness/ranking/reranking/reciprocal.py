"""k-reciprocal re-ranking of any number of rows: memory for their neighbours, not for all pairs.

The usual form keeps several N x N matrices; what it computes needs only the first neighbours of every row, the sparse
encoding built from them, and each row's largest distance. Results are those of the dense form.

Legend: Q queries, G gallery rows, N both, the queries first, K neighbours of a row, D dimensions of a model.

Source: Z. Zhong, L. Zheng, D. Cao, S. Li 2017, "Re-ranking Person Re-identification with k-reciprocal Encoding", in
the form that public code shares: distances of a row are divided by its largest one, and k1/2 is rounded half to even.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.ranking.reranking.answers import Answers, Groups
from harness.ranking.reranking.feature_space import FeatureSpace, OneOrMore
from harness.ranking.reranking.sparse_rows import SparseRows
from harness.ranking.search import SearchOptions
from harness.timing import Stopwatch
from harness.types import Floats, InputError, Ints, Progress
from harness.workers import available_threads

_QUERIES = 2048  # whose candidates are held at once
_OPTIONS = SearchOptions()
_SPARE = 1.15  # lists are so much longer than the gallery's share in all rows asks for
_PRODUCTS_A_PAIR = 64  # of a matrix product, in the time of one of a pair of rows by itself, about
_PAIRS = 1 << 20  # whose distances are computed at once


class Steps(Protocol):
    """What encodes: `CpuSteps` or `TorchSteps`."""

    def sets(self, ids: NDArray[np.int32], distances: Floats, k1: int, half: int) -> SparseRows:
        """The sets R* with distances, NaN where not known."""

    def weigh(self, sets: SparseRows, largest: Floats) -> None:
        """Distances to weights, in place."""

    def averaged(self, encoded: SparseRows, ids: NDArray[np.int32], k2: int, rows: Ints) -> SparseRows:
        """Mean rows over the first k2 neighbours."""

    def file(self, encoded: SparseRows, ids: NDArray[np.int32], k2: int, rows: Ints) -> None:
        """Keep the mean rows of the gallery's rows, for `overlaps`."""

    def overlaps(self, encoded: SparseRows, start: int, stop: int) -> SparseRows:
        """Sums of minima of queries with the gallery rows that they share columns with."""

    def close(self) -> None:
        """Let go of what is kept."""


def k_reciprocal(
    queries: OneOrMore,
    gallery: OneOrMore,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    top_k: int = 20,
    *,
    weights: Sequence[float] | None = None,
    groups: tuple[Ints, Ints] | None = None,
    query_rows: Ints | None = None,
    options: SearchOptions = _OPTIONS,
    progress: Progress | None = None,
    stopwatch: Stopwatch | None = None,
) -> tuple[Ints, Floats]:
    """The gallery rows nearest to each query after k-reciprocal re-ranking of all rows.

    Args:
        queries: (Q, D) features of any floating dtype, memory maps welcome, or a sequence of them with one per model;
            of length about 1, and used as they are. D may differ per model.
        gallery: (G, D) features, or one array per model in the order of ``queries``.
        k1: neighbours that can be reciprocal, at least 1.
        k2: neighbours, the row itself among them, over which encodings are averaged, at least 1; 1 leaves them be.
        lambda_value: weight of the distance beside Jaccard's, in [0, 1].
        top_k: rows wanted a query, at least 1; with fewer gallery rows, all of them come back.
        weights: one positive weight per model, on its part of the squared distance; None for 1 each.
        groups: (Q,) and (G,) integers. Rows of the query's own group come first, and others follow only where those
            are fewer than ``top_k``; distances need not ascend where the others begin. All rows of all groups take
            part as neighbours.
        query_rows: answer only these queries, in this order; all of them take part as neighbours. None for all.
        options: of the search for neighbours; its devices and threads also encode.
        progress: told (done, total), rows whose neighbours are found and then queries answered.
        stopwatch: times the phases neighbours, sets, expansion and answers.

    Returns:
        ids (Q, min(top_k, G)) int64, rows of the gallery, and distances (Q, min(top_k, G)) float64, of
        ``query_rows`` where given: ascending, equal ones by ascending row, within the own group and within the rest.

    Raises:
        InputError: an argument is out of its range, shapes disagree, or a row is zero or has a number that is not
            finite.

    Source: Zhong et al. 2017, see the module; the distance (1 - lambda)·Jaccard + lambda·d, where d is the squared
    Euclidean distance divided by the largest one of the query to any row. Where every row is the same, d is 0.
    """
    for name, value in (("k1", k1), ("k2", k2), ("top_k", top_k)):
        if value < 1:
            raise InputError(f"re-ranking: expected {name} of at least 1, got {value}")
    if not 0 <= lambda_value <= 1:
        raise InputError(f"re-ranking: expected lambda between 0 and 1, got {lambda_value}")
    from harness.ranking.search.exact import Workers

    num_threads = options.num_threads or available_threads()
    with ThreadPoolExecutor(num_threads) as pool, closing(_steps(options)) as steps:
        workers = Workers(num_threads, pool)
        space = FeatureSpace(queries, gallery, weights, workers)
        asked = np.arange(space.num_queries) if query_rows is None else _integers(query_rows, "query_rows", None)
        outside = asked[(asked < 0) | (asked >= space.num_queries)]
        if len(outside):
            raise InputError(
                f"re-ranking: query_rows: expected rows of the {space.num_queries} queries, from 0 on, got {outside[0]}"
            )
        own = None
        if groups is not None:
            own = Groups(
                _integers(groups[0], "groups of the queries", space.num_queries),
                _integers(groups[1], "groups of the gallery", space.num_gallery),
            )
        top_k = min(top_k, space.num_gallery)
        ids, values = np.zeros((len(asked), top_k), np.int64), np.zeros((len(asked), top_k))
        if not ids.size:
            return ids, values

        def phase(name: str) -> AbstractContextManager[Any]:
            return nullcontext() if stopwatch is None else stopwatch.stage(name)

        with phase("neighbours"):
            told = None if progress is None else partial(_tell, progress, len(space), len(asked))
            lists = space.neighbours(_reach(space, max(k1 + 1, k2), top_k, len(asked)), options, told)
            lists.largest[lists.largest == 0] = 1
        reach = lists.ids.shape[1]
        with phase("sets"):
            half = int(np.around(k1 / 2))
            encoded = steps.sets(lists.ids, lists.distances, min(k1, reach - 1), min(half, reach - 1))
            unknown = np.flatnonzero(np.isnan(encoded.values))
            for start in range(0, len(unknown), _PAIRS):
                entries = unknown[start : start + _PAIRS]
                rows = np.searchsorted(encoded.starts, entries, side="right") - 1
                encoded.values[entries] = space.distances(rows, encoded.columns[entries].astype(np.int64))
            steps.weigh(encoded, lists.largest)
        with phase("expansion"):
            mean = min(k2, reach)
            asking = steps.averaged(encoded, lists.ids, mean, asked)
            steps.file(encoded, lists.ids, mean, np.arange(space.num_queries, len(space)))
            del encoded
        with phase("answers"):
            answers = Answers(space, lists, lambda_value, top_k, own, options, workers)
            for start in range(0, len(asked), _QUERIES):
                stop = min(start + _QUERIES, len(asked))
                overlaps = steps.overlaps(asking, start, stop)
                ids[start:stop], values[start:stop] = answers.of(asked[start:stop], overlaps)
                if progress is not None:
                    progress(len(space) + stop, len(space) + len(asked))
        return ids, values


def _tell(progress: Progress, num_rows: int, num_asked: int, done: int, total: int) -> None:
    progress(num_rows * done // max(1, total), num_rows + num_asked)


def _reach(space: FeatureSpace, needed: int, top_k: int, num_asked: int) -> int:
    """How many neighbours a row to look for, where ``needed`` make the encoding.

    Lists in which a query finds ``top_k`` gallery rows spare it a search of its own, `Answers` falls back to.
    """
    wanted = 2 + int(_SPARE * top_k * len(space) / space.num_gallery)
    further = min(wanted, 3 * needed) - needed
    is_worth_it = num_asked * space.num_gallery > _PRODUCTS_A_PAIR * len(space) * further
    return needed + further if further > 0 and is_worth_it else needed


def _integers(values: Any, name: str, length: int | None) -> Ints:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu") or length not in (None, len(array)):
        expected = "integers" if length is None else f"{length} integers, one a row"
        raise InputError(f"re-ranking: {name}: expected {expected}, got {array.dtype} of shape {array.shape}")
    return array.astype(np.int64)


def _steps(options: SearchOptions) -> Steps:
    import torch

    if options.devices is None:
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
    else:
        device = options.devices[0]
    if device != "cpu":
        from harness.ranking.reranking.encoding_torch import TorchSteps

        return TorchSteps(device)
    from harness.ranking.reranking.encoding_cpu import CpuSteps

    return CpuSteps(options.num_threads or available_threads())
