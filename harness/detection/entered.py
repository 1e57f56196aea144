"""Detections that were made elsewhere, as a detector of the ensemble language.

``WORK/models/detectors/NAME`` then holds a card and, for every split that boxes were entered of, the boxes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from pydantic import Field

from harness.artifacts import Draft, file_sha256, read_detections, write_detections
from harness.data.box_files import read_scored_boxes, refuse_foreign_boxes
from harness.training.cards import CARD_FILE, PLAN_FILE, TrainedOn, write
from harness.training.entries import (
    EnteredModel,
    Entry,
    read_entered,
    remove_copies,
    undamaged,
)
from harness.types import Bools, Detections, InputError, Ints, Split

_WHAT = "detections"
_VERSION = 1


class DetectionsEntry(Entry):
    """Detections on the photos of a split.

    Attributes:
        num_photos: of the split.
        num_empty: photos of the split without a box.
        num_copies: rows of the file that repeat another one exactly, and were left out.
    """

    num_photos: int = Field(ge=1)
    num_empty: int = Field(ge=0)
    num_copies: int = Field(ge=0)


class EnteredDetector(EnteredModel):
    """What the folder of entered detections says of itself, one entry a split."""

    entries: tuple[DetectionsEntry, ...]


def enter(
    folder: Path,
    name: str,
    boxes: Path,
    split: Split,
    *,
    saw: Sequence[TrainedOn] = (),
    trained_on: str | None = None,
) -> EnteredDetector:
    """Take detections that were made elsewhere into the folder of a detector.

    Those that were entered of the same split before are replaced.

    Args:
        folder: of the detector.
        name: of the detector.
        boxes: see `harness.data.box_files.SCORED_FORMS`; photos without a box need not be mentioned.
        split: whose photos the boxes are of.
        saw: photos that the detector was trained on; these are added to what was said before.
        trained_on: what it was trained on, in words; None for what was said before.

    Raises:
        InputError: the file is missing or wrong, the boxes are of other photos, or the folder holds a detector that
            was trained here.
    """
    given = read_scored_boxes(boxes)
    if len(given) == 0:
        raise InputError(f"{boxes}: has no boxes at all, so there is nothing to enter")
    if given.boxes_xyxy.max() <= 1:
        raise InputError(
            f"{boxes}: no coordinate is above 1, so the boxes look normalised; give pixels of the photos as they are"
        )
    refuse_foreign_boxes(boxes, given.image_ids, given.boxes_xyxy, split)
    kept = given.take(_firsts(given))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        before = read_card(folder) if (folder / CARD_FILE).is_file() else None
        if (folder / PLAN_FILE).is_file():
            raise InputError(f"{folder}: a training was begun there; enter {_WHAT} under another name")
        folder.mkdir(exist_ok=True)
        digest = hashlib.sha256(f"{_VERSION} {split.fingerprint}\n".encode())
        for column in (kept.image_ids, kept.boxes_xyxy, kept.scores, kept.category_ids):
            digest.update(column.tobytes())
        identity = digest.hexdigest()
        stored = Draft(folder).write(f"{identity[:16]}.parquet", partial(write_detections, detections=kept))
        entry = DetectionsEntry(
            split=split.name,
            fingerprint=split.fingerprint,
            num_boxes=len(kept),
            boxes=str(boxes.absolute()),
            identity=identity,
            boxes_sha256=file_sha256(stored),
            num_photos=len(split.photos),
            num_empty=len(split.photos) - len(np.unique(kept.image_ids)),
            num_copies=len(given) - len(kept),
        )
        old = before.entries if before else ()
        card = EnteredDetector(
            name=name,
            entries=(*(one for one in old if one.fingerprint != split.fingerprint), entry),
            **EnteredDetector.said(before, saw, trained_on),
        )
        write(folder / CARD_FILE, card)
        remove_copies(folder, old, card.entries, (".parquet",))
        return card


def read_card(folder: Path) -> EnteredDetector:
    """The card of a folder of entered detections.

    Raises:
        InputError: it is damaged, or that of a detector that was trained here.
    """
    return read_entered(folder, EnteredDetector, _WHAT)


@dataclass(frozen=True, eq=False)
class BoxesEntered:
    """The detections that were entered for a split.

    Attributes:
        folder: of the detector.
        entry: which.
    """

    folder: Path
    entry: DetectionsEntry

    @property
    def identity(self) -> str:
        """SHA-256 over the boxes."""
        return self.entry.identity

    def read(self, image_ids: Ints) -> Detections:
        """The boxes of some photos, in the order of the file that was given.

        Args:
            image_ids: (P,) photos of the split.

        Raises:
            InputError: the copy is damaged, or none of the photos has a box.
        """
        path = self.entry.path(self.folder, ".parquet")
        there = read_detections(undamaged(path, self.entry.boxes_sha256, _WHAT))
        found = there.take(np.isin(there.image_ids, image_ids))
        if len(found) == 0 and len(image_ids):
            raise InputError(
                f"{path}: {self.folder.name} has {self.entry.num_boxes:,} boxes of {self.entry.split}, but none in the "
                f"{len(image_ids):,} photos that are asked for (the first is {image_ids[0]}); enter boxes of these "
                f"too: run.py enter {_WHAT} {self.folder.name} --split {self.entry.split}"
            )
        return found

    def facts(self, boxes: Detections, image_ids: Ints) -> dict[str, Any]:
        """For a manifest: counts, and where the boxes came from."""
        source = self.entry.model_dump(include={"boxes", "identity"})
        empty = len(image_ids) - len(np.unique(boxes.image_ids))
        return {"boxes": len(boxes), "photos": len(image_ids), "photos_without_boxes": empty, "made_elsewhere": source}


def find_boxes(folder: Path, split: Split) -> BoxesEntered:
    """What was entered for a split.

    Raises:
        InputError: nothing was, or the card is damaged.
    """
    card = read_card(folder)
    for entry in card.entries:
        if entry.fingerprint == split.fingerprint:
            return BoxesEntered(folder, entry)
    have = ", ".join(f"{one.num_boxes:,} of {one.split}" for one in card.entries)
    raise InputError(
        f"{folder}: no boxes of {card.name} were entered for {split.name} of {split.root} (entered: {have}); enter "
        f"them: run.py enter {_WHAT} {card.name} --boxes FILE --data {split.root} --split {split.name}"
    )


def _firsts(boxes: Detections) -> Ints:
    """Rows that repeat no earlier one exactly, ascending."""
    columns = np.column_stack([boxes.image_ids, boxes.category_ids, boxes.scores, boxes.boxes_xyxy])
    order = np.lexsort(columns.T)  # stable: of equal rows the first of the file comes first
    repeats: Bools = np.zeros(len(boxes), bool)
    repeats[1:] = (columns[order][1:] == columns[order][:-1]).all(axis=1)
    return np.sort(order[~repeats])
