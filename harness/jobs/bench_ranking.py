"""Timings of search and post-processing steps, each beside its baseline.

Legend: Q queries, G gallery rows, D dimensions, W those of all models together.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.box_stages import BoxSet
from harness.jobs.bench_settings import Bench, every
from harness.jobs.dry_run import DryPipeline
from harness.pipeline import Pipeline
from harness.ranking import stepping
from harness.ranking.rows import FeatureRows, choose
from harness.ranking.search import SearchOptions, nearest
from harness.spec import Ensemble
from harness.steps import GALLERY, OF_FEATURES, RERANK, SAME_CATEGORY, Step
from harness.timing import Baseline, Measurement
from harness.types import GALLERY_LENGTH, InputError, Ints

MOST_CONCATENATED_BYTES = 2 << 30
"""Of a stored concatenation: larger ones are no baseline that one has the memory for."""

MOST_DENSE_ROWS = 5_000
"""That the dense form of re-ranking is timed with: its matrices and its seconds grow with the square."""

MOST_COVARIANCE = 4_096
"""Dimensions whose covariance numpy is given."""


@dataclass(frozen=True, eq=False)
class Searched:
    """What search and steps are timed with.

    Attributes:
        queries: one (Q, D) a model.
        gallery: one (G, D) a model.
        weights: one a model.
        groups: categories of the queries (Q,) and of the gallery (G,).
        whence: which photos these are of, in words.
    """

    queries: Sequence[FeatureRows]
    gallery: Sequence[FeatureRows]
    weights: Sequence[float]
    groups: tuple[Ints, Ints]
    whence: str

    @property
    def size(self) -> dict[str, Any]:
        """Counts, for the record."""
        return {
            "queries": len(self.queries[0]),
            "gallery": len(self.gallery[0]),
            "models": len(self.gallery),
            "dimensions": sum(part.shape[1] for part in self.gallery),
            "of": self.whence,
        }

    @property
    def told(self) -> str:
        """The counts in words."""
        size = self.size
        return f"{size['queries']:,} x {size['gallery']:,} rows, {size['models']} x {size['dimensions']:,} dimensions"


def searched(sample: Pipeline, ensemble: Ensemble, boxes: BoxSet, whole: Pipeline, num_queries: int) -> Searched:
    """The features of the whole split where the working folder has them, else those of the sample.

    Args:
        sample: over the sample, with its features in its store.
        ensemble: whose features.
        boxes: of the sample.
        whole: over all photos of the split, with the store of the working folder.
        num_queries: at most; of more, so many of them spread evenly.

    Raises:
        InputError: there is no box on a consumer photo, or none on a shop photo.
    """
    names = [member.model for member in ensemble.members]
    dry = DryPipeline(whole)
    found = dry.boxes_if_there(ensemble.boxes)
    pipeline, whence = sample, "the sample"
    if found is not None and all(dry.has_embeddings(name, found) for name in names):
        pipeline, boxes, whence = whole, found, f"all of {whole.split.name}"
    features, _ = pipeline.embeddings(names, boxes)
    is_query = pipeline.split.photos.consumer_mask(boxes.detections.image_ids)
    asking, answering = np.flatnonzero(is_query), np.flatnonzero(~is_query)
    if not len(asking) or not len(answering):
        what = "consumer" if not len(asking) else "shop"
        raise InputError(f"no box was found on any {what} photo of the sample; give more --photos, or other boxes")
    asking = asking[np.array(every(len(asking), num_queries), np.int64)]
    categories = boxes.detections.category_ids
    return Searched(
        [choose(features[name].vectors_ND, asking) for name in names],
        [choose(features[name].vectors_ND, answering) for name in names],
        [member.weight for member in ensemble.members],
        (categories[asking], categories[answering]),
        whence,
    )


def ranking_stages(bench: Bench, found: Searched, steps: Sequence[Step]) -> Iterator[Measurement]:
    """The search by all models, then each step as it meets the features, then the search among what they made."""
    options = SearchOptions(devices=(bench.device,))
    if bench.settings.times("search"):
        yield _search(bench, "search", found, options)
    if not bench.settings.times("steps"):
        return
    grouped = any(step.name == SAME_CATEGORY for step in steps)
    reranks = any(step.name == RERANK for step in steps)
    for step in steps:
        if step.name in OF_FEATURES:
            found = yield from _project(bench, step, found)
        elif step.name == RERANK:
            yield _rerank(bench, step, found, options, grouped)
        elif step.name != SAME_CATEGORY:
            found = yield from _mix(bench, step, found, options)
    changed = any(step.name not in (RERANK, SAME_CATEGORY) for step in steps)
    if not reranks and (changed or grouped):
        yield _search(bench, "search after the steps", found, options, grouped=grouped)


def _search(bench: Bench, stage: str, found: Searched, options: SearchOptions, *, grouped: bool = False) -> Measurement:
    ours = partial(
        nearest,
        found.queries,
        found.gallery,
        GALLERY_LENGTH,
        found.weights,
        groups=found.groups if grouped else None,
        options=options,
    )
    baseline, both = None, None if grouped else _concatenations(found)
    if both is not None:
        from harness.ranking.search.faiss_flat import flat_search

        baseline = Baseline(
            "faiss, flat, on the concatenation", partial(flat_search, *both, GALLERY_LENGTH, bench.device)
        )
    note = f"{found.told}{', own category first' if grouped else ''}; of {found.whence}"
    more: dict[str, Any] = {"baseline": baseline, "device": bench.device, "note": note}
    return bench.time(stage, "queries", len(found.queries[0]), ours, **more)


def _rerank(bench: Bench, step: Step, found: Searched, options: SearchOptions, grouped: bool) -> Measurement:
    groups = found.groups if grouped else None
    ours = partial(stepping.reranked, step, found.queries, found.gallery, found.weights, options, groups=groups)
    baseline, num_rows = None, len(found.queries[0]) + len(found.gallery[0])
    both = _concatenations(found, root=True) if num_rows <= MOST_DENSE_ROWS and not grouped else None
    if both is not None:
        from harness.ranking.reranking.dense_form import dense_form

        k1, k2, share = int(step["k1"]), int(step["k2"]), float(step["lambda"])
        baseline = Baseline("dense form, CPU", partial(dense_form, *both, k1, k2, share))
    note = f"{found.told}{', own category first' if grouped else ''}; of {found.whence}"
    more: dict[str, Any] = {"baseline": baseline, "device": bench.device, "note": note}
    return bench.time(str(step), "queries", len(found.queries[0]), ours, **more)


def _project(bench: Bench, step: Step, found: Searched) -> Generator[Measurement, None, Searched]:
    """Fitting and projecting; returns the projected features."""
    parts, num_rows = found.gallery, len(found.gallery[0])
    fit = partial(stepping.fit, step, parts, found.weights)
    whole = _concatenated(found.gallery, _roots(found.weights))
    baseline = None
    if whole is not None and whole.shape[1] <= MOST_COVARIANCE:
        baseline = Baseline("numpy, eigenvectors of the covariance", partial(_components, whole))
    fit_on = "" if step["fit"] == GALLERY else f"; on the gallery here, not on fit={step['fit']}"
    more: dict[str, Any] = {"device": bench.device, "note": f"{found.told}{fit_on}"}
    yield bench.time(f"fit {step}", "rows", num_rows, fit, baseline=baseline, **more)
    projection = fit()
    baseline = None
    if whole is not None:
        axes_WD = np.zeros((whole.shape[1], projection.dimensions), np.float32)
        baseline = Baseline("numpy, a matrix product", partial(_products, whole, axes_WD))

    def project() -> None:
        for _ in projection.blocks(parts):
            pass

    yield bench.time(str(step), "rows", num_rows, project, baseline=baseline, **more)
    queries, gallery = ([np.concatenate(list(projection.blocks(some)))] for some in (found.queries, found.gallery))
    return replace(found, queries=queries, gallery=gallery, weights=[1.0])


def _mix(bench: Bench, step: Step, found: Searched, options: SearchOptions) -> Generator[Measurement, None, Searched]:
    """Expansion or augmentation; returns the features with the rows that were mixed."""
    from harness.ranking.expansion import collect

    augments = step.name == "dba"
    own = found.gallery if augments else found.queries
    mix = partial(stepping.mixed, step, found.queries, found.gallery, found.weights, options)

    def consume() -> None:
        for _ in mix():
            pass

    baseline = None
    rows_NW, others_GW = (_concatenated(some, _roots(found.weights)) for some in (own, found.gallery))
    if rows_NW is not None and others_GW is not None and step.get("weights") == "plain" and step.get("alpha") is None:
        work = partial(_mean_of_neighbours, rows_NW, others_GW, int(step["k"]), bench.device)
        baseline = Baseline("faiss, flat, then numpy's mean", work)
    more: dict[str, Any] = {"baseline": baseline, "device": bench.device, "note": f"{found.told}; of {found.whence}"}
    yield bench.time(str(step), "rows", len(own[0]), consume, **more)
    mixed = collect(mix(), own)
    return replace(found, gallery=mixed) if augments else replace(found, queries=mixed)


def _roots(weights: Sequence[float]) -> list[float]:
    return [float(np.sqrt(weight)) for weight in weights]


def _concatenated(parts: Sequence[FeatureRows], weights: Sequence[float]) -> NDArray[np.float32] | None:
    """The models side by side; None where that would be too large."""
    from harness.ranking.search.faiss_flat import concatenated

    if 4 * len(parts[0]) * sum(part.shape[1] for part in parts) > MOST_CONCATENATED_BYTES:
        return None
    return concatenated(parts, weights)


def _concatenations(found: Searched, root: bool = False) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Queries and gallery as a baseline has them; ``root``: each with the roots of the weights, as unit rows."""
    scale = _roots(found.weights)
    queries, gallery = _concatenated(found.queries, scale), _concatenated(found.gallery, scale)
    if queries is None or gallery is None:
        return None
    if root:
        length = np.float32(np.sqrt(sum(found.weights)))
        return queries / length, gallery / length
    return queries, gallery


def _components(rows_NW: NDArray[np.float32]) -> NDArray[Any]:
    values, vectors = np.linalg.eigh(np.cov(rows_NW, rowvar=False))
    found: NDArray[Any] = vectors[:, np.argsort(-values)]
    return found


def _products(rows_NW: NDArray[np.float32], axes_WD: NDArray[np.float32]) -> NDArray[Any]:
    projected: NDArray[Any] = (rows_NW - rows_NW.mean(axis=0)) @ axes_WD
    projected /= np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), 1e-12)
    return projected


def _mean_of_neighbours(
    rows_NW: NDArray[np.float32], others_GW: NDArray[np.float32], k: int, device: str
) -> NDArray[Any]:
    from harness.ranking.search.faiss_flat import flat_search

    _, ids = flat_search(rows_NW, others_GW, k, device)
    found: NDArray[Any] = (rows_NW + others_GW[ids].sum(axis=1)) / (k + 1)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found
