"""Detection and embedding shard by shard, so that an interrupted run goes on at the first missing shard."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.artifacts import Draft, join_arrays, read_detections, write_array, write_detections
from harness.progress import Reporter
from harness.training.fitting import write_progress
from harness.types import Detections, InputError, Ints, Progress, Split

if TYPE_CHECKING:
    from harness.detection.inference_settings import InferenceSettings
    from harness.retrieval.embedding import Embedder

PHOTOS_A_SHARD = 512


@dataclass(frozen=True)
class Resources:
    """What detection may use; none of it changes the boxes.

    Attributes:
        batch_size: photos at once; None takes the recipes'.
        num_devices: GPUs, a process each; without a GPU processes of one thread.
        num_threads: that decode photos, over all processes; None for the cores that this process may use.
    """

    batch_size: int | None = None
    num_devices: int = 1
    num_threads: int | None = None


@dataclass(frozen=True)
class DetectorToRun:
    """A trained detector whose boxes are missing.

    Attributes:
        folder: of the model.
        settings: how it looks.
        identity: of all that decides its boxes but the photos.
    """

    folder: Path
    settings: InferenceSettings
    identity: str


def detect_in_shards(
    drafts: Mapping[str, Draft],
    detectors: Mapping[str, DetectorToRun],
    split: Split,
    image_ids: Ints,
    report: Reporter,
    resources: Resources,
) -> dict[str, dict[str, Any]]:
    """Write ``boxes.parquet`` of several detectors, see `in_order`; each photo is decoded once for all of them.

    A shard that an unfinished run made of the same photos is taken over even where other photos of the split have
    changed since: whoever replaces one broken photo of 190,000 does not begin anew.

    Args:
        drafts: detector -> where to.
        detectors: detector -> which; loaded only if a shard is missing.
        split: where the photos are.
        image_ids: (P,) which of them, ascending.
        report: where progress is shown.
        resources: what may be used.

    Returns:
        Counts for the manifest of each detector.

    Raises:
        InputError: a photo or a model is damaged, or there are fewer GPUs than asked for.
    """
    from harness.workers import available_threads

    shards = [image_ids[start : start + PHOTOS_A_SHARD] for start in range(0, len(image_ids), PHOTOS_A_SHARD)]
    names = {draft: _shard_names(detectors[draft].identity, split, shards) for draft in drafts}
    left = []
    for index in range(len(shards)):
        missing = [name for name, draft in drafts.items() if not _is_there(draft, index, names[name][index])]
        if missing:
            left.append(Share(index, shards[index], {name: names[name][index] for name in missing}))
    threads = resources.num_threads or available_threads()
    common: dict[str, Any] = {"drafts": drafts, "detectors": {name: detectors[name] for name in drafts}}
    common |= {"split": replace(split, items=None), "batch_size": resources.batch_size}
    stage = f"detect {','.join(drafts)}"
    if resources.num_devices == 1:
        detect_shares(**common, shares=left, num_threads=threads, advance=report(stage) if left else None)
    elif left:
        _on_devices(common, left, resources.num_devices, threads, stage, report)
    facts = {}
    for name, draft in drafts.items():
        parts = [read_detections(draft.shard_path(index, names[name][index])) for index in range(len(shards))]
        boxes = in_order(Detections.concatenate(parts))
        draft.write("boxes.parquet", partial(write_detections, detections=boxes))
        draft.drop_shards()
        facts[name] = {"boxes": len(boxes), "photos": len(image_ids)}
    return facts


@dataclass(frozen=True, eq=False)
class Share:
    """A shard to be made.

    Attributes:
        index: which.
        image_ids: its photos.
        missing: detector -> ending of the shard's file, for those that lack it.
    """

    index: int
    image_ids: Ints
    missing: Mapping[str, str]


def detect_shares(
    drafts: Mapping[str, Draft],
    detectors: Mapping[str, DetectorToRun],
    split: Split,
    shares: Sequence[Share],
    batch_size: int | None,
    num_threads: int,
    device: str | None = None,
    advance: Progress | None = None,
    watch: Path | None = None,
) -> None:
    """Make shards one after the other on one device; progress is told to ``advance``, or written into ``watch``."""
    from harness.detection.inference import Detector, detect_together

    loaded: dict[str, Detector] = {}
    total, before = sum(len(share.image_ids) for share in shares), 0
    for share in shares:
        for name in share.missing:
            if name not in loaded:
                loaded[name] = Detector.load(detectors[name].folder, device, detectors[name].settings)

        def tell(done: int, _: int, before: int = before) -> None:
            if advance is not None:
                advance(before + done, total)
            if watch is not None:
                write_progress(watch, before + done, total, 0.0)

        some = [loaded[name] for name in share.missing]
        found = detect_together(some, split, share.image_ids, batch_size, tell, num_threads)
        for (name, ending), boxes in zip(share.missing.items(), found, strict=True):
            drafts[name].shard(share.index, ending, partial(write_detections, detections=boxes))
        before += len(share.image_ids)


def _on_devices(
    common: Mapping[str, Any], left: Sequence[Share], num_devices: int, threads: int, stage: str, report: Reporter
) -> None:
    """Make the shards in processes of one device each; ``common`` are arguments of `detect_shares`."""
    import torch

    from harness.workers import Job, side_by_side

    count, there = min(num_devices, len(left)), torch.cuda.device_count()
    if there and num_devices > there:
        raise InputError(f"--devices {num_devices}: this machine has {there} GPUs; give at most as many")
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for rank in range(count):
            watch = Path(folder) / str(rank)
            watch.mkdir()
            own = {"shares": left[rank::count], "num_threads": max(1, threads // count), "watch": watch}
            arguments = {**common, **own, "device": f"cuda:{rank}" if there else "cpu"}
            jobs.append(Job(f"{stage} ({rank + 1} of {count})", detect_shares, arguments, watch))
        side_by_side(jobs, count, report)


def _shard_names(identity: str, split: Split, shards: Sequence[Ints]) -> list[str]:
    """Endings of the shards' files, which say whose boxes of which photos they hold."""
    endings = []
    for photos in shards:
        digest = hashlib.sha256(identity.encode())
        for image_id in photos.tolist():
            path = split.photo_path(image_id)
            digest.update(f"\n{image_id} {path.stat().st_size if path.is_file() else -1}".encode())
        endings.append(f"-{digest.hexdigest()[:16]}.parquet")
    return endings


def _is_there(draft: Draft, index: int, ending: str) -> bool:
    """Whether the draft has the shard, if need be from an unfinished result of a split that has changed since."""
    if draft.has_shard(index, ending):
        return True
    for path in sorted(draft.folder.parent.glob(f"*/part-{index:05d}{ending}")):
        if Draft.is_whole(path):
            draft.shard(index, ending, partial(shutil.copyfile, path))
            return True
    return False


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
