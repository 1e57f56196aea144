"""Embeddings that were made elsewhere, as a model of the ensemble language.

``WORK/models/retrievers/NAME`` then holds a card and, for every pair of files that was entered, the vectors (unit
length, float16) and the boxes that they are of. Legend: N boxes, M entered boxes, D dimensions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from pydantic import Field

from harness.artifacts import Draft, file_sha256, read_detections, write_detections, write_half_rows
from harness.data.box_files import read_boxes, refuse_foreign_boxes
from harness.training.cards import CARD_FILE, TrainedOn, write
from harness.training.entries import EnteredModel, Entry, read_entered, remove_copies, undamaged
from harness.types import Detections, Floats, InputError, Ints, Split

NEAR_PX = 0.5
"""How far a corner of an entered box may be from that of the box it stands for: rounding to whole pixels is."""

UNIT = 2e-3
"""float16 rows whose length is this near to 1 stay as they are, bit by bit: their own rounding is no less."""

_WHAT = "embeddings"
_ROWS = 16_384
_VERSION = 1


class EmbeddingsEntry(Entry):
    """Embeddings of the boxes of one file.

    Attributes:
        vectors: path of the file that was given.
        vectors_sha256: of the copy of the vectors here.
    """

    vectors: str
    vectors_sha256: str


class EnteredCard(EnteredModel):
    """What the folder of entered embeddings says of itself.

    Attributes:
        dimensions: D.
    """

    dimensions: int = Field(ge=1)
    entries: tuple[EmbeddingsEntry, ...]


def enter(
    folder: Path,
    name: str,
    vectors: Path,
    boxes: Path,
    split: Split,
    *,
    saw: Sequence[TrainedOn] = (),
    trained_on: str | None = None,
) -> EnteredCard:
    """Take embeddings that were made elsewhere into the folder of a model.

    Vectors of the same boxes that were entered before are replaced.

    Args:
        folder: of the model.
        name: of the model.
        vectors: ``.npy`` of (M, D) floats, of any length above 0; they are normalised.
        boxes: M boxes in the same order, see `harness.data.box_files.FORMS`.
        split: whose photos the boxes are of.
        saw: photos that the model was trained on; these are added to what was said before.
        trained_on: what it was trained on, in words; None for what was said before.

    Raises:
        InputError: a file is missing or wrong, the two do not fit, the boxes are of other photos, the vectors are
            of another length than those entered before, or the folder holds a model that was trained here.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        before = read_card(folder) if (folder / CARD_FILE).is_file() else None
        image_ids, boxes_xyxy = read_boxes(boxes)
        refuse_foreign_boxes(boxes, image_ids, boxes_xyxy, split)
        given = _read_vectors(vectors, len(image_ids), boxes)
        if before is not None and before.dimensions != given.shape[1]:
            raise InputError(
                f"{vectors}: has {given.shape[1]} columns, what was entered as {name} before has {before.dimensions}; "
                "enter another model under another name"
            )
        identity = hashlib.sha256(f"{_VERSION} {file_sha256(vectors)} {file_sha256(boxes)}".encode()).hexdigest()
        folder.mkdir(exist_ok=True)
        draft, ones = Draft(folder), np.ones(len(image_ids))
        kept = Detections(image_ids, boxes_xyxy, ones, ones.astype(np.int64))
        chunks = _normalised(given)
        stored = draft.write(f"{identity[:16]}.npy", partial(write_half_rows, shape=given.shape, chunks=chunks))
        of = draft.write(f"{identity[:16]}.parquet", partial(write_detections, detections=kept))
        entry = EmbeddingsEntry(
            split=split.name,
            fingerprint=split.fingerprint,
            num_boxes=len(image_ids),
            vectors=str(vectors.absolute()),
            boxes=str(boxes.absolute()),
            identity=identity,
            vectors_sha256=file_sha256(stored),
            boxes_sha256=file_sha256(of),
        )
        old = before.entries if before else ()
        card = EnteredCard(
            name=name,
            dimensions=given.shape[1],
            entries=(*(one for one in old if not _replaces(entry, one)), entry),
            **EnteredCard.said(before, saw, trained_on),
        )
        write(folder / CARD_FILE, card)
        remove_copies(folder, old, card.entries, (".npy", ".parquet"))
        return card


def read_card(folder: Path) -> EnteredCard:
    """The card of a folder of entered embeddings.

    Raises:
        InputError: it is damaged, or that of a model that was trained here.
    """
    return read_entered(folder, EnteredCard, _WHAT)


@dataclass(frozen=True, eq=False)
class RowsFound:
    """Where the embeddings of N boxes are.

    Attributes:
        folder: of the model.
        dimensions: D.
        entries: that are needed.
        which: (N,) place among the entries.
        rows: (N,) row of that entry.
    """

    folder: Path
    dimensions: int
    entries: tuple[EmbeddingsEntry, ...]
    which: Ints
    rows: Ints

    @property
    def identity(self) -> str:
        """SHA-256 over the entries that are needed."""
        return hashlib.sha256("\n".join(one.identity for one in self.entries).encode()).hexdigest()

    def write(self, draft: Draft) -> dict[str, Any]:
        """Copy the rows to ``vectors.npy``.

        Returns:
            Facts for the manifest: counts, and where the embeddings came from.

        Raises:
            InputError: a copy in the model's folder is damaged.
        """
        for one in self.entries:
            undamaged(one.path(self.folder, ".npy"), one.vectors_sha256, _WHAT)
        shape = (len(self.rows), self.dimensions)
        draft.write("vectors.npy", lambda path: write_half_rows(path, shape, self._chunks()))
        source = [one.model_dump(include={"vectors", "boxes", "identity"}) for one in self.entries]
        return {"rows": shape[0], "dimensions": shape[1], "made_elsewhere": source}

    def _chunks(self) -> Iterator[NDArray[np.float16]]:
        maps = [np.load(one.path(self.folder, ".npy"), mmap_mode="r") for one in self.entries]
        for start in range(0, len(self.rows), _ROWS):
            which, rows = self.which[start : start + _ROWS], self.rows[start : start + _ROWS]
            chunk = np.empty((len(rows), self.dimensions), np.float16)
            for place, vectors in enumerate(maps):
                chunk[which == place] = vectors[rows[which == place]]
            yield chunk


def find_rows(folder: Path, split: Split, boxes: Detections, source: str) -> RowsFound:
    """Find every box of a box set among the entered ones.

    If one entry has them all, it is taken (the newest of several); otherwise the newest that has a box is.

    Args:
        folder: of the model.
        split: whose photos the boxes are of.
        boxes: N boxes.
        source: what they are called, for messages.

    Raises:
        InputError: boxes are missing (says how many, and the first), or a file is damaged.
    """
    card = read_card(folder)
    entries = [one for one in reversed(card.entries) if one.fingerprint == split.fingerprint]
    which, rows = np.full(len(boxes), -1), np.full(len(boxes), -1)
    for place, entry in enumerate(entries):
        there = read_detections(undamaged(entry.path(folder, ".parquet"), entry.boxes_sha256, _WHAT))
        found = nearest_rows(boxes.image_ids, boxes.boxes_xyxy, there.image_ids, there.boxes_xyxy)
        if (found >= 0).all():
            return RowsFound(folder, card.dimensions, (entry,), np.zeros(len(boxes), np.int64), found)
        new = (which < 0) & (found >= 0)
        which[new], rows[new] = place, found[new]
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        first = missing[0]
        box = ", ".join(f"{side:.1f}" for side in boxes.boxes_xyxy[first])
        have = ", ".join(f"{one.num_boxes:,} of {one.split}" for one in card.entries)
        raise InputError(
            f"{folder}: {len(missing):,} of {len(boxes):,} boxes of {source} on {split.name} are not among those "
            f"entered for {card.name} ({have}); the first is [{box}] in photo {boxes.image_ids[first]}. Boxes to embed "
            f"elsewhere: run.py embed 'histogram + {source}' --data {split.root} --split {split.name} --out DIR; then "
            f"run.py enter embeddings {card.name}"
        )
    used = np.unique(which)
    needed = tuple(entries[place] for place in used)
    return RowsFound(folder, card.dimensions, needed, np.searchsorted(used, which), rows)


def nearest_rows(ids_N: Ints, boxes_N4: Floats, ids_M: Ints, boxes_M4: Floats) -> Ints:
    """For each of N boxes the row of the nearest of M boxes of the same photo; the first of equals.

    Args:
        ids_N, ids_M: image ids.
        boxes_N4, boxes_M4: corners, pixels.

    Returns:
        (N,); -1 where every box of the photo has a corner that is more than `NEAR_PX` away in x or y.
    """
    order_N, order_M = np.argsort(ids_N, kind="stable"), np.argsort(ids_M, kind="stable")
    photos, firsts = np.unique(ids_N[order_N], return_index=True)
    begins, ends = (np.searchsorted(ids_M[order_M], photos, side) for side in ("left", "right"))
    found = np.full(len(ids_N), -1)
    for wanted, begin, end in zip(np.split(order_N, firsts[1:]), begins, ends, strict=bool(len(ids_N))):
        there = order_M[begin:end]
        if len(there):
            away = np.abs(boxes_N4[wanted, None] - boxes_M4[None, there]).max(axis=2)
            best = away.argmin(axis=1)
            near = away[np.arange(len(wanted)), best] <= NEAR_PX
            found[wanted[near]] = there[best[near]]
    return found


def _replaces(new: EmbeddingsEntry, old: EmbeddingsEntry) -> bool:
    return (new.fingerprint, new.boxes_sha256) == (old.fingerprint, old.boxes_sha256)


def _read_vectors(path: Path, num_boxes: int, boxes: Path) -> NDArray[Any]:
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; give a .npy of one row a box") from error
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: is no .npy of numbers, or a damaged one ({error}); numpy.save writes it") from error
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind != "f" or 0 in vectors.shape:
        got = f"{vectors.dtype} of shape {vectors.shape}" if isinstance(vectors, np.ndarray) else "an archive"
        raise InputError(f"{path}: expected floats of shape (boxes, dimensions), got {got}")
    if len(vectors) != num_boxes:
        raise InputError(
            f"{path}: has {len(vectors):,} rows, {boxes} {num_boxes:,} boxes; give the boxes in the order of the rows"
        )
    for start in range(0, len(vectors), _ROWS):
        peaks = _peaks(vectors[start : start + _ROWS])
        wrong = ~(np.isfinite(peaks) & (peaks > 0))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            what = "is zero" if peaks[row] == 0 else "is not finite"
            raise InputError(f"{path}: row {start + row} {what}, so it has no direction; mend or leave out that box")
    return vectors


def _peaks(rows: NDArray[Any]) -> Floats:
    peaks: Floats = np.abs(rows).max(axis=1).astype(np.float64)
    return peaks


def _normalised(vectors: NDArray[Any]) -> Iterator[NDArray[np.float16]]:
    for start in range(0, len(vectors), _ROWS):
        given = np.asarray(vectors[start : start + _ROWS])
        peaks = _peaks(given)
        scaled = given / peaks[:, None]  # squares of very large or small numbers would not be numbers
        lengths = np.linalg.norm(scaled, axis=1)
        rows = (scaled / lengths[:, None]).astype(np.float16)
        if given.dtype == np.float16:
            stays = np.abs(lengths * peaks - 1) < UNIT
            rows[stays] = given[stays]
        yield rows
