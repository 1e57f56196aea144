"""The pass over queries and gallery: block after block, dealt to devices and lanes, and the proof at the end of each.

Legend: Q queries, G gallery rows, M models, K results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event, Lock
from typing import Protocol

import numpy as np

from harness.ranking.rows import FeatureRows
from harness.ranking.search.exact import PairScorer, Workers
from harness.ranking.search.packed_products import PackedProducts
from harness.ranking.search.planning import SearchPlan, device_bytes
from harness.ranking.search.pool import Pool
from harness.ranking.search.products import DeviceProducts, HostProducts, strict_products
from harness.types import Floats, Ints, Progress


class Products(Protocol):
    """What makes products of blocks."""

    def ask(self, rows: Ints) -> None:
        """Make the products of these queries from now on."""

    def offer(self, start: int, end: int, pools: Sequence[Pool]) -> None:
        """Let pools take what they need of the products with the gallery rows ``start`` to ``end``."""


def search_pass(
    queries: Sequence[FeatureRows],
    gallery: Sequence[FeatureRows],
    scale: Floats,
    top_k: int,
    plan: SearchPlan,
    *,
    is_lowest_wanted: bool,
    progress: Progress | None,
) -> tuple[Ints, Floats, Floats]:
    """Search everything.

    Args:
        queries: one (Q, D) a model.
        gallery: one (G, D) a model.
        scale: (M,) float64, the weights.
        top_k: K, at most G; Q and K at least 1.
        plan: how.
        is_lowest_wanted: whether to look for the least similar rows as well.
        progress: called with pairs of blocks, done and in all.

    Returns:
        ids (Q, K) int64, similarities (Q, K) float64, and the lowest similarities (Q,) float64, NaN where not wanted.

    Raises:
        InputError: a row is not finite or has no direction.
    """
    num_queries, num_gallery = len(queries[0]), len(gallery[0])
    ids, similarities = np.empty((num_queries, top_k), np.int64), np.empty((num_queries, top_k))
    lowest = np.full(num_queries, np.nan)
    unit = 2.0 ** np.floor(np.log2(scale.max()))  # a power of two: the products stay in range, nothing is rounded
    scaled = scale / unit
    starts = range(0, num_gallery, plan.gallery_rows)
    query_starts = range(0, num_queries, plan.query_rows)
    done, lock, scoring = [0], Lock(), Lock()

    def count() -> None:
        with lock:
            done[0] += 1
            if progress is not None:
                progress(done[0], len(starts) * len(query_starts))

    with (
        ThreadPoolExecutor(plan.num_threads) as kernels,
        ThreadPoolExecutor(len(plan.devices) * plan.lanes) as drivers,
        strict_products(plan.num_threads),
    ):
        workers = Workers(plan.num_threads, kernels)
        score = PairScorer(queries, gallery, scaled, workers, plan.query_rows, plan.exact_rows)
        engines = [_engine((queries, gallery), scaled, plan, device, workers) for device in plan.devices]
        for query_start in query_starts:
            rows = np.arange(query_start, min(query_start + plan.query_rows, num_queries))

            def exact(asked: Ints, found: Ints, first: int = query_start) -> Floats:
                with scoring:  # it has one working space
                    return score(asked + first, found)

            signs = (1.0, -1.0) if is_lowest_wanted else (1.0,)
            floors = {sign: np.full(len(rows), -np.inf) for sign in signs}
            pools = [
                [
                    Pool(len(rows), top_k if sign > 0 else 1, plan.capacity, sign, exact, workers, floors[sign])
                    for sign in signs
                ]
                for _ in engines
            ]
            stop = Event()
            left = [iter(starts[number :: len(engines)]) for number in range(len(engines))]

            def work(
                number: int,
                left: list[Iterator[int]] = left,
                pools: list[list[Pool]] = pools,
                stop: Event = stop,
            ) -> None:
                for start in left[number]:  # the lanes of an engine take turns
                    if stop.is_set():
                        return
                    engines[number].offer(start, min(start + plan.gallery_rows, num_gallery), pools[number])
                    count()

            for engine in engines:
                engine.ask(rows)
            if len(engines) * plan.lanes == 1:
                work(0)
            else:
                running = [drivers.submit(work, number) for number in range(len(engines)) for _ in range(plan.lanes)]
                try:
                    for each in as_completed(running):
                        each.result()
                finally:
                    stop.set()
            for place, pool in enumerate(pools[0]):
                for others in pools[1:]:
                    pool.join(others[place])
                best_ids, best = pool.finish()
                if pool.sign > 0:
                    ids[rows], similarities[rows] = best_ids, best * unit
                else:
                    lowest[rows] = best[:, 0] * unit
    return ids, similarities, lowest


def _engine(
    parts: tuple[Sequence[FeatureRows], Sequence[FeatureRows]],
    scale: Floats,
    plan: SearchPlan,
    device: str,
    workers: Workers,
) -> Products:
    if plan.engine == "faiss":
        from harness.ranking.search.faiss_products import FaissProducts

        return FaissProducts(parts, scale, plan, workers, device)
    if device == "cpu" and plan.precision == "bf16":
        return PackedProducts(parts, scale, plan, workers)
    if device == "cpu":
        return HostProducts(parts, scale, plan, workers)
    return DeviceProducts(parts, scale, plan, device, device_bytes(device) // 2)
