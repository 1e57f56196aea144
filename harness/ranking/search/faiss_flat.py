"""faiss on the stored concatenation of all models: the search that ours is timed beside; nothing else uses it.

Legend: Q queries, G gallery rows, W dimensions of all models together, K neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from harness.ranking.rows import FeatureRows
from harness.types import Ints


def concatenated(
    parts: Sequence[FeatureRows], weights: Sequence[float] | None = None, rows: Ints | slice = slice(None)
) -> NDArray[np.float32]:
    """The models' features side by side, (N, W); with ``weights`` its inner products are the weighted sums.

    Args:
        parts: one (N, D_m) a model.
        weights: one a model; given for the queries alone, or for the gallery alone.
        rows: which of them.
    """
    scale = [1.0] * len(parts) if weights is None else weights
    return np.concatenate(
        [np.asarray(part[rows], np.float32) * np.float32(weight) for part, weight in zip(parts, scale, strict=True)],
        axis=1,
    )


def flat_search(
    queries_QW: NDArray[np.float32], gallery_GW: NDArray[np.float32], k: int, device: str = "cpu"
) -> tuple[NDArray[np.float32], Ints]:
    """The K largest inner products of every query by exhaustive search, and their gallery rows.

    Args:
        queries_QW, gallery_GW: of `concatenated`.
        k: K; all gallery rows where there are fewer.
        device: torch's name of one.
    """
    wanted = min(k, len(gallery_GW))
    metric = faiss.METRIC_INNER_PRODUCT
    found: tuple[Any, Any]
    if device == "cpu":
        found = faiss.knn(queries_QW, gallery_GW, wanted, metric=metric)
    else:
        number = int(device.partition(":")[2] or 0)
        resources = _resources(number)
        found = faiss.knn_gpu(resources, queries_QW, gallery_GW, wanted, metric=metric, device=number)
    return found


_RESOURCES: dict[int, Any] = {}


def _resources(gpu: int) -> Any:
    if gpu not in _RESOURCES:  # they hold a workspace: to allocate it is no part of a search
        _RESOURCES[gpu] = faiss.StandardGpuResources()
    return _RESOURCES[gpu]
