"""Embedding shard by shard, so that an interrupted run goes on at the first missing shard."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import shards
from harness.artifacts import Draft, join_arrays, write_array
from harness.progress import Reporter
from harness.sharing import Task, share_out
from harness.training.fitting import write_progress
from harness.types import Detections, Ints, Progress, Split

if TYPE_CHECKING:
    from harness.retrieval.embedding import Embedder
    from harness.retrieval.embedding_settings import EmbeddingSettings


@dataclass(frozen=True)
class RetrieverToRun:
    """A model whose embeddings are missing.

    Attributes:
        folder: of the model; None stands for the untrained colour histogram.
        settings: how it looks.
        identity: of all that decides its embeddings but photos and boxes.
    """

    folder: Path | None
    settings: EmbeddingSettings
    identity: str

    def load(self, device: str | None = None) -> Embedder:
        """The model, ready to embed.

        Raises:
            InputError: the folder has no finished model, or its weights are not those of the card.
        """
        from harness.retrieval.embedding import Retriever
        from harness.retrieval.histogram import ColourHistogram

        if self.folder is None:
            return ColourHistogram()
        return Retriever.load(self.folder, device=device, flip=self.settings.flip).compute_in(self.settings.precision)


@dataclass(frozen=True, eq=False)
class BoxShare:
    """A shard to be made.

    Attributes:
        index: which.
        boxes: its boxes, those of whole photos.
        missing: model -> ending of the shard's file, for those that lack it.
    """

    index: int
    boxes: Detections
    missing: Mapping[str, str]


def embed_in_shards(
    drafts: Mapping[str, Draft],
    models: Mapping[str, RetrieverToRun],
    split: Split,
    boxes: Detections,
    report: Reporter,
    resources: shards.Resources,
) -> dict[str, dict[str, Any]]:
    """Write ``vectors.npy`` of several models in one pass over the photos, each photo decoded once.

    A shard that an unfinished run made of the same boxes of the same photos is taken over, see `shards.has_shard`.

    Args:
        drafts: model -> where to.
        models: model -> which; loaded only if a shard is missing.
        split: where the photos are.
        boxes: N boxes in ascending order of image id.
        report: where progress is shown.
        resources: what may be used.

    Returns:
        Counts for the manifest of each model.

    Raises:
        InputError: a photo or a model is damaged, or there are fewer GPUs than asked for.
    """
    parts = [boxes.take(slice(start, stop)) for start, stop in _ranges_of_whole_photos(boxes.image_ids)]
    names = {name: [_ending(models[name].identity, split, part) for part in parts] for name in drafts}
    left = []
    for index, part in enumerate(parts):
        missing = [name for name, draft in drafts.items() if not shards.has_shard(draft, index, names[name][index])]
        if missing:
            left.append(BoxShare(index, part, {name: names[name][index] for name in missing}))
    common: dict[str, Any] = {"drafts": drafts, "models": {name: models[name] for name in drafts}}
    common |= {"split": replace(split, items=None), "batch_size": resources.num_crops}
    task = Task(embed_shares, common, left, resources.num_devices, resources.num_threads)
    share_out(task, f"embed {','.join(drafts)}", report)
    facts = {}
    for name, draft in drafts.items():
        paths = [draft.shard_path(index, names[name][index]) for index in range(len(parts))]
        dimensions = np.load(paths[0], mmap_mode="r").shape[1] if paths else models[name].load("cpu").dimensions
        draft.write("vectors.npy", partial(join_arrays, parts=paths, shape=(len(boxes), dimensions)))
        draft.drop_shards()
        facts[name] = {"rows": len(boxes), "dimensions": dimensions}
    return facts


def embed_shares(
    drafts: Mapping[str, Draft],
    models: Mapping[str, RetrieverToRun],
    split: Split,
    shares: Sequence[BoxShare],
    batch_size: int | None,
    num_threads: int,
    device: str | None = None,
    advance: Progress | None = None,
    watch: Path | None = None,
) -> None:
    """Make shards one after the other on one device; progress is told to ``advance``, or written into ``watch``."""
    from harness.retrieval import embedding

    loaded: dict[str, Embedder] = {}
    total, before = sum(len(share.boxes) for share in shares), 0
    for share in shares:
        for name in share.missing:
            if name not in loaded:
                loaded[name] = models[name].load(device)

        def tell(done: int, _: int, before: int = before) -> None:
            if advance is not None:
                advance(before + done, total)
            if watch is not None:
                write_progress(watch, before + done, total, 0.0)

        some = [loaded[name] for name in share.missing]
        found = embedding.embed(
            some, split, share.boxes, batch_size=batch_size or embedding.CHUNK, progress=tell, num_threads=num_threads
        )
        for name, ending in share.missing.items():
            drafts[name].shard(share.index, ending, partial(write_array, rows=found[loaded[name].name]))
        before += len(share.boxes)


def _ending(identity: str, split: Split, boxes: Detections) -> str:
    """Ending of a shard's file, which says whose embeddings of which boxes of which photos it holds."""
    digest = hashlib.sha256(identity.encode())
    digest.update(shards.sizes_of(split, np.unique(boxes.image_ids)))
    digest.update(boxes.image_ids.tobytes() + boxes.boxes_xyxy.tobytes())
    return f"-{digest.hexdigest()[:16]}.npy"


def _ranges_of_whole_photos(image_ids: Ints) -> list[tuple[int, int]]:
    """Ranges of rows, at most `shards.PHOTOS_A_SHARD` photos each; a photo is never cut."""
    if len(image_ids) == 0:
        return []
    firsts = np.flatnonzero(np.diff(image_ids, prepend=image_ids[:1] - 1))
    return list(pairwise([int(first) for first in firsts[:: shards.PHOTOS_A_SHARD]] + [len(image_ids)]))
