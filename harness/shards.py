"""Detection and embedding shard by shard, so that an interrupted run goes on at the first missing shard."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.artifacts import Draft, join_arrays, read_detections, write_array, write_detections
from harness.types import Detections, Ints, Progress, Split

if TYPE_CHECKING:
    from harness.detection.inference import Detector
    from harness.retrieval.embedding import Embedder

PHOTOS_A_SHARD = 512


def detect_in_shards(draft: Draft, model_dir: Path, split: Split, image_ids: Ints, advance: Progress) -> dict[str, Any]:
    """Write ``boxes.parquet``: a detector's boxes of the given photos, see `in_order`.

    Args:
        draft: where to.
        model_dir: the trained detector; loaded only if a shard is missing.
        split: where the photos are.
        image_ids: (P,) which of them, ascending.
        advance: told of photos done and in all.

    Returns:
        Counts for the manifest.
    """
    from harness.detection.inference import Detector, detect

    detector: Detector | None = None
    parts: list[Detections] = []
    for index, start in enumerate(range(0, len(image_ids), PHOTOS_A_SHARD)):
        photos = image_ids[start : start + PHOTOS_A_SHARD]
        if not draft.has_shard(index, ".parquet"):
            detector = detector or Detector.load(model_dir)
            found = detect(detector, split, photos, progress=_from(start, len(image_ids), advance))
            draft.shard(index, ".parquet", partial(write_detections, detections=found))
        parts.append(read_detections(draft.shard_path(index, ".parquet")))
        advance(start + len(photos), len(image_ids))
    boxes = in_order(Detections.concatenate(parts))
    draft.write("boxes.parquet", partial(write_detections, detections=boxes))
    draft.drop_shards()
    return {"boxes": len(boxes), "photos": len(image_ids)}


def embed_in_shards(
    drafts: Mapping[str, Draft],
    model_dirs: Mapping[str, Path | None],
    split: Split,
    boxes: Detections,
    advance: Progress,
) -> dict[str, dict[str, Any]]:
    """Write ``vectors.npy`` of several models in one pass over the photos, each photo decoded once.

    Args:
        drafts: model -> where to.
        model_dirs: model -> its folder; None stands for the untrained colour histogram.
        split: where the photos are.
        boxes: N boxes in ascending order of image id.
        advance: told of boxes done and in all.

    Returns:
        Counts for the manifest of each model.
    """
    from harness.retrieval.embedding import Retriever, embed
    from harness.retrieval.histogram import ColourHistogram

    models: dict[str, Embedder] = {}
    for name in drafts:
        folder = model_dirs[name]
        models[name] = ColourHistogram() if folder is None else Retriever.load(folder)
    shards = _ranges_of_whole_photos(boxes.image_ids)
    for index, (start, stop) in enumerate(shards):
        missing = [name for name in drafts if not drafts[name].has_shard(index, ".npy")]
        if missing:
            some = [models[name] for name in missing]
            found = embed(some, split, boxes.take(slice(start, stop)), progress=_from(start, len(boxes), advance))
            for name in missing:
                drafts[name].shard(index, ".npy", partial(write_array, rows=found[name]))
        advance(stop, len(boxes))
    for name, draft in drafts.items():
        paths = [draft.shard_path(index, ".npy") for index in range(len(shards))]
        draft.write("vectors.npy", partial(join_arrays, parts=paths, shape=(len(boxes), models[name].dimensions)))
        draft.drop_shards()
    return {name: {"rows": len(boxes), "dimensions": model.dimensions} for name, model in models.items()}


def in_order(boxes: Detections) -> Detections:
    """By ascending image id, then descending score, then as they came."""
    return boxes.take(np.lexsort((-boxes.scores, boxes.image_ids)))


def _ranges_of_whole_photos(image_ids: Ints) -> list[tuple[int, int]]:
    """Ranges of rows, at most `PHOTOS_A_SHARD` photos each; a photo is never cut."""
    if len(image_ids) == 0:
        return []
    firsts = np.flatnonzero(np.diff(image_ids, prepend=image_ids[:1] - 1))
    return list(pairwise([int(first) for first in firsts[::PHOTOS_A_SHARD]] + [len(image_ids)]))


def _from(start: int, total: int, advance: Progress) -> Progress:
    """Progress of a shard as progress of the whole."""
    return lambda done, _: advance(start + done, total)
