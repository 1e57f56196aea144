"""Look at every crop of a source once: hashes and thumbnails, kept in shards so that a stopped look goes on.

Legend: N garments.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.data.duplicates.hashing import CROP_PX, THUMBNAIL_BYTES, describe, digest
from harness.data.garments import Garments
from harness.data.photos import decode_reduced
from harness.training.launching import die_with
from harness.types import Bools, Floats, InputError, Ints, Progress

FORM = 1
"""Raised whenever the same crop gives another hash or thumbnail."""

SHARD_CROPS = 2048

COLUMNS = ("hashes", "thumbnails", "digests", "aspects", "is_readable")


@dataclass(frozen=True, eq=False)
class Looks:
    """What the crops of a source look like.

    Attributes:
        hashes: (N, 2) uint64.
        thumbnails: (N, `THUMBNAIL_BYTES`) uint8.
        digests: (N,) uint64, of the thumbnails.
        aspects: (N,) float64, width over height of the crop.
        is_readable: (N,) bool; the other columns say nothing of a crop whose photo cannot be decoded.
        problems: what is wrong with each such photo.
    """

    hashes: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]
    digests: NDArray[np.uint64]
    aspects: Floats
    is_readable: Bools
    problems: tuple[str, ...]

    @classmethod
    def empty(cls, count: int) -> Looks:
        """Of crops that cannot be read."""
        return cls(
            hashes=np.zeros((count, 2), np.uint64),
            thumbnails=np.zeros((count, THUMBNAIL_BYTES), np.uint8),
            digests=np.zeros(count, np.uint64),
            aspects=np.ones(count),
            is_readable=np.zeros(count, bool),
            problems=(),
        )

    @classmethod
    def joined(cls, parts: Sequence[Looks]) -> Looks:
        """The rows of all parts, in order; each problem once."""
        parts = [cls.empty(0), *parts]
        columns: dict[str, Any] = {name: np.concatenate([getattr(one, name) for one in parts]) for name in COLUMNS}
        return cls(**columns, problems=tuple(dict.fromkeys(problem for one in parts for problem in one.problems)))

    def take(self, rows: Ints) -> Looks:
        """The given rows, in that order, and all problems."""
        columns: dict[str, Any] = {name: getattr(self, name)[rows] for name in COLUMNS}
        return Looks(**columns, problems=self.problems)


def look(garments: Garments, cache_dir: Path, *, workers: int = 1, progress: Progress | None = None) -> Looks:
    """Hash every crop of a source.

    Args:
        garments: the source.
        cache_dir: shards are kept in a folder below it, and found there again for the same photos and boxes.
        workers: processes; with 1 this process does the work itself.
        progress: called with crops done, and in total.

    Raises:
        ValueError: ``workers`` is below 1.
    """
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    folder = cache_dir / _key(garments)
    folder.mkdir(parents=True, exist_ok=True)
    order = np.argsort(garments.photo_rows, kind="stable")
    shards = [
        _Shard.of(garments, order[start : start + SHARD_CROPS], folder) for start in range(0, len(order), SHARD_CROPS)
    ]
    looks = {shard.file: shard.read() for shard in shards}
    missing = [shard for shard in shards if looks[shard.file] is None]
    done = len(order) - sum(len(shard.photo_rows) for shard in missing)
    for shard in _made(missing, workers):
        looks[shard.file] = shard.read()
        done += len(shard.photo_rows)
        if progress is not None:
            progress(done, len(order))
    found = [one for shard in shards if (one := looks[shard.file]) is not None]
    if len(found) != len(shards):
        raise InputError(f"{folder}: cannot be read again; check the disk, remove the folder and start again")
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return Looks.joined(found).take(back)


@dataclass(frozen=True, eq=False)
class _Shard:
    """Crops that are looked at in one go.

    Attributes:
        file: where what was seen is kept.
        photos: the photos.
        photo_rows: (n,) which photo each crop is of, ascending.
        boxes_xyxy: (n, 4) pixels; NaN for the whole photo.
    """

    file: Path
    photos: Sequence[Path]
    photo_rows: Ints
    boxes_xyxy: Floats

    @classmethod
    def of(cls, garments: Garments, rows: Ints, folder: Path) -> _Shard:
        used, photo_rows = np.unique(garments.photo_rows[rows], return_inverse=True)
        photos = [garments.photos[row] for row in used.tolist()]
        boxes = garments.boxes_xyxy[rows]
        name = hashlib.sha256("\n".join(map(str, photos)).encode(errors="surrogateescape"))
        name.update(photo_rows.astype("<i8").tobytes() + boxes.astype("<f8").tobytes())
        return cls(folder / f"{name.hexdigest()[:24]}.npz", photos, photo_rows.reshape(-1), boxes)

    def read(self) -> Looks | None:
        """What was kept; None if it is not there, or damaged."""
        try:
            with np.load(self.file, allow_pickle=False) as kept:
                columns = {name: kept[name] for name in kept.files}
            problems = tuple(columns.pop("problems").tolist())
            looks = Looks(**columns, problems=problems)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None
        return looks if looks.hashes.shape == (len(self.photo_rows), 2) else None

    def make(self) -> None:
        """Look at the crops and keep what is seen."""
        looks = Looks.empty(len(self.photo_rows))
        problems = []
        starts = np.searchsorted(self.photo_rows, np.arange(len(self.photos) + 1)).tolist()
        for photo, path in enumerate(self.photos):
            rows = range(starts[photo], starts[photo + 1])
            try:
                self._look_at(path, rows, looks)
            except InputError as error:
                problems.append(str(error))
        temporary = self.file.with_name(f".{self.file.name}.{os.getpid()}.tmp")
        columns: dict[str, Any] = {name: getattr(looks, name) for name in COLUMNS}
        with temporary.open("wb") as file:
            np.savez(file, **columns, problems=np.array(problems, dtype=str))
        temporary.replace(self.file)

    def _look_at(self, path: Path, rows: range, looks: Looks) -> None:
        boxes = self.boxes_xyxy[rows.start : rows.stop]
        whole = np.isnan(boxes[:, 0])
        sides = np.where(whole, np.inf, (boxes[:, 2:] - boxes[:, :2]).min(axis=1))
        least = float(sides.min())
        pixels, factor = decode_reduced(path, lambda *photo_wh: _reduction(min(least, *photo_wh)))
        height, width = pixels.shape[:2]
        boxes = np.where(whole[:, None], [0.0, 0.0, width, height], boxes / factor)
        for row, box in zip(rows, boxes, strict=True):
            looks.hashes[row], looks.thumbnails[row] = describe(pixels, box)
            looks.digests[row] = digest(looks.thumbnails[row])
            x1, y1, x2, y2 = np.clip(box, 0, [width, height, width, height])
            looks.aspects[row] = max(x2 - x1, 1.0) / max(y2 - y1, 1.0)
            looks.is_readable[row] = True


def _reduction(side_px: float) -> int:
    """How many times smaller a photo may be decoded whose least side of interest has so many pixels."""
    return next((factor for factor in (8, 4, 2) if side_px >= factor * CROP_PX), 1)


def _key(garments: Garments) -> str:
    """The folder of a source: its name, for people, and what its lists and photos are."""
    name = "".join(letter if letter.isalnum() else "-" for letter in garments.source)
    return f"{name}-{garments.record.fingerprint[:16]}-{FORM}"


def _made(shards: Sequence[_Shard], workers: int) -> Iterator[_Shard]:
    """Make all shards, in this process or in others; yields each as it is done."""
    if workers == 1 or len(shards) < 2:
        for shard in shards:
            shard.make()
            yield shard
        return
    pool = ProcessPoolExecutor(
        max_workers=min(workers, len(shards)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(os.getpid(),),
    )
    try:
        futures = {pool.submit(shard.make): shard for shard in shards}
        for future in as_completed(futures):
            future.result()
            yield futures[future]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted and ends its workers
    die_with(parent)
    cv2.setNumThreads(1)
