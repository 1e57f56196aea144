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
from harness.preflight import Needs, Room, gigabytes, require
from harness.progress import Reporter
from harness.sharing import Task, share_out
from harness.timing import PassClock
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

    @property
    def dimensions(self) -> int:
        """Of an embedding; the model is not loaded.

        Raises:
            InputError: the folder has no finished model.
        """
        from harness.retrieval.histogram import ColourHistogram
        from harness.retrieval.loading import dimensions_of

        return ColourHistogram().dimensions if self.folder is None else dimensions_of(self.folder)

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
    dimensions = {name: models[name].dimensions for name in drafts}
    require(embedding_needs(drafts, dimensions, len(boxes), left, resources.num_devices))
    common: dict[str, Any] = {"drafts": drafts, "models": {name: models[name] for name in drafts}}
    common |= {"split": replace(split, items=None), "batch_size": resources.num_crops}
    task = Task(embed_shares, common, left, resources.num_devices, resources.num_threads, resources.device)
    share_out(task, f"embed {','.join(drafts)}", report)
    facts = {}
    for name, draft in drafts.items():
        paths = [draft.shard_path(index, names[name][index]) for index in range(len(parts))]
        draft.write("vectors.npy", partial(join_arrays, parts=paths, shape=(len(boxes), dimensions[name])))
        facts[name] = {"rows": len(boxes), "dimensions": dimensions[name], **shards.seconds_of(draft, names[name])}
        draft.drop_shards()
    return facts


_VALUE_BYTES = 2
"""Of float16."""


def embedding_needs(
    drafts: Mapping[str, Draft],
    dimensions: Mapping[str, int],
    num_boxes: int,
    left: Sequence[BoxShare],
    num_devices: int,
) -> Needs:
    """What embedding will take: the shards that are missing, and one model's once more while its shards are joined.

    Args:
        drafts: model -> where to.
        dimensions: of each.
        num_boxes: N.
        left: shards that are to be made.
        num_devices: processes of this machine, each of which holds a shard.
    """
    missing = sum(len(one.boxes) * dimensions[name] for one in left for name in one.missing)
    widest = max(dimensions.values(), default=0)
    held = max((len(one.boxes) * sum(dimensions[name] for name in one.missing) for one in left), default=0)
    return Needs(
        f"embed {','.join(drafts)}",
        memory_bytes=_VALUE_BYTES * held * min(num_devices, max(1, len(left))),
        disk_bytes=_VALUE_BYTES * (missing + num_boxes * widest),
        where=next((draft.folder.parent for draft in drafts.values()), None),
        hints=partial(embedding_hints, dimensions, num_boxes),
    )


def embedding_bytes(dimensions: Mapping[str, int], num_boxes: int) -> int:
    """Bytes of disk that the embeddings of these models take when none is there, while the last is joined."""
    return _VALUE_BYTES * num_boxes * (sum(dimensions.values()) + max(dimensions.values(), default=0))


def embedding_hints(dimensions: Mapping[str, int], num_boxes: int, room: Room) -> list[str]:
    """What would fit on the disk: fewer models, or fewer boxes.

    Embedding the same models one after the other would not: what is embedded stays.
    """
    free, names = room.disk_bytes, list(dimensions)
    hints = []
    if free is not None and embedding_bytes(dimensions, num_boxes) > free:
        fitting = [
            count
            for count in range(1, len(names))
            if embedding_bytes({name: dimensions[name] for name in names[:count]}, num_boxes) <= free
        ]
        if fitting:
            some = {name: dimensions[name] for name in names[: fitting[-1]]}
            size = gigabytes(embedding_bytes(some, num_boxes))
            hints.append(f"{len(some)} of the {len(names)} models ({','.join(some)}), {size}")
        budget = free // max(1, embedding_bytes(dimensions, 1)) // 1000
        if budget:
            size = gigabytes(embedding_bytes(dimensions, 1000 * budget))
            hints.append(f"a budget of {budget}k boxes (BOXES@{budget}k), {size}")
    return [*hints, "--work on another disk"]


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
        clock, size = PassClock(), batch_size or embedding.CHUNK
        found = embedding.embed(
            some, split, share.boxes, batch_size=size, progress=tell, num_threads=num_threads, clock=clock
        )
        for name, ending in share.missing.items():
            shards.keep_seconds(drafts[name], share.index, ending, clock, loaded[name].name, len(some))
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
