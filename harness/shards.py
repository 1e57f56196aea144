"""Detection shard by shard, so that an interrupted run goes on at the first missing shard."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.artifacts import Draft, read_detections, write_detections, write_json
from harness.progress import Reporter
from harness.sharing import Task, share_out
from harness.timing import PassClock
from harness.training.fitting import write_progress
from harness.types import Detections, Ints, Progress, Split

if TYPE_CHECKING:
    from harness.detection.inference_settings import InferenceSettings

PHOTOS_A_SHARD = 512

_SECONDS = ".seconds"
"""Ending of the file beside a shard that says what it took."""


@dataclass(frozen=True)
class Resources:
    """What detection and embedding may use; none of it changes what they find.

    Attributes:
        batch_size: photos that detectors look at at once; None takes the recipes'.
        num_devices: GPUs, a process each; without a GPU processes of one thread.
        num_threads: that decode photos, over all processes of a machine; None for the cores that this one may use.
        num_crops: gathered before retrievers see them; None takes the usual number.
        device: torch's name of the one that works where ``num_devices`` is 1; None for the best there is.
    """

    batch_size: int | None = None
    num_devices: int = 1
    num_threads: int | None = None
    num_crops: int | None = None
    device: str | None = None


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
    shards = [image_ids[start : start + PHOTOS_A_SHARD] for start in range(0, len(image_ids), PHOTOS_A_SHARD)]
    names = {draft: _shard_names(detectors[draft].identity, split, shards) for draft in drafts}
    left = []
    for index in range(len(shards)):
        missing = [name for name, draft in drafts.items() if not has_shard(draft, index, names[name][index])]
        if missing:
            left.append(Share(index, shards[index], {name: names[name][index] for name in missing}))
    common: dict[str, Any] = {"drafts": drafts, "detectors": {name: detectors[name] for name in drafts}}
    common |= {"split": replace(split, items=None), "batch_size": resources.batch_size}
    task = Task(detect_shares, common, left, resources.num_devices, resources.num_threads, resources.device)
    share_out(task, f"detect {','.join(drafts)}", report)
    facts = {}
    for name, draft in drafts.items():
        parts = [read_detections(draft.shard_path(index, names[name][index])) for index in range(len(shards))]
        boxes = in_order(Detections.concatenate(parts))
        draft.write("boxes.parquet", partial(write_detections, detections=boxes))
        facts[name] = {"boxes": len(boxes), "photos": len(image_ids), **seconds_of(draft, names[name])}
        draft.drop_shards()
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
        clock = PassClock()
        found = detect_together(some, split, share.image_ids, batch_size, tell, num_threads, clock)
        for (name, ending), boxes in zip(share.missing.items(), found, strict=True):
            keep_seconds(drafts[name], share.index, ending, clock, loaded[name].card.name, len(some))
            drafts[name].shard(share.index, ending, partial(write_detections, detections=boxes))
        before += len(share.image_ids)


def _shard_names(identity: str, split: Split, shards: Sequence[Ints]) -> list[str]:
    """Endings of the shards' files, which say whose boxes of which photos they hold."""
    endings = []
    for photos in shards:
        digest = hashlib.sha256(identity.encode() + sizes_of(split, photos))
        endings.append(f"-{digest.hexdigest()[:16]}.parquet")
    return endings


def sizes_of(split: Split, image_ids: Ints) -> bytes:
    """Ids and files' sizes of photos, for a digest; -1 for a file that is missing."""
    paths = ((image_id, split.photo_path(image_id)) for image_id in image_ids.tolist())
    return "".join(f"\n{image_id} {path.stat().st_size if path.is_file() else -1}" for image_id, path in paths).encode()


def has_shard(draft: Draft, index: int, ending: str) -> bool:
    """Whether the draft has the shard, if need be from an unfinished result of a split that has changed since."""
    if draft.has_shard(index, ending):
        return True
    for path in sorted(draft.folder.parent.glob(f"*/part-{index:05d}{ending}")):
        if Draft.is_whole(path):
            draft.shard(index, ending, partial(shutil.copyfile, path))
            return True
    return False


def keep_seconds(draft: Draft, index: int, ending: str, clock: PassClock, network: str, num_networks: int) -> None:
    """Write beside a shard what its network took, and its equal part of the waiting; before the shard itself."""
    told = [clock.network_seconds.get(network, 0.0), clock.waiting_seconds / num_networks]
    draft.write(draft.shard_path(index, ending + _SECONDS).name, partial(write_json, value=told))


def seconds_of(draft: Draft, endings: Sequence[str]) -> dict[str, float | None]:
    """What all shards' network took, and its part of the waiting, of all processes together; None where a shard does
    not say: one of an earlier version, or taken over from another result."""
    network, waiting = 0.0, 0.0
    for index, ending in enumerate(endings):
        try:
            told = json.loads(draft.shard_path(index, ending + _SECONDS).read_bytes())
            network, waiting = network + float(told[0]), waiting + float(told[1])
        except (OSError, ValueError, TypeError, LookupError):
            return {"network_seconds": None, "waiting_seconds": None}
    return {"network_seconds": network, "waiting_seconds": waiting}


def in_order(boxes: Detections) -> Detections:
    """By ascending image id, then descending score, then as they came."""
    return boxes.take(np.lexsort((-boxes.scores, boxes.image_ids)))
