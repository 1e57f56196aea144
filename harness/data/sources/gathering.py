"""From what a source's lists say to garments: the checks that all sources share, and the count of what was odd.

Every entry of the lists has one fate: it becomes a garment, or it is left out under one of the counted oddities.

Legend: N entries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.garments import NO_IDENTITY, Garments
from harness.data.layout import RENDERED_COMMENT, RENDERED_MARK
from harness.data.sources.files import PathsBelow
from harness.training.cards import TrainedOn, image_ids_sha256
from harness.types import Bools, Floats, Ints


@dataclass(frozen=True)
class Oddity:
    """Something that was odd about entries of the lists, or about files.

    Attributes:
        kind: what.
        count: how often.
        left_out: True if these entries are no garments; False if they are used all the same, or are no entries.
        first: the first of them.
    """

    kind: str
    count: int
    left_out: bool
    first: str


@dataclass
class Tally:
    """The oddities so far, in the order in which they were met."""

    _found: dict[tuple[str, bool], tuple[int, str]] = field(default_factory=dict)

    def leave_out(self, kind: str, first: str, count: int = 1) -> None:
        """Count entries that are not used."""
        self._add(kind, True, first, count)

    def note(self, kind: str, first: str, count: int = 1) -> None:
        """Count what is used all the same, or is no entry."""
        self._add(kind, False, first, count)

    def _add(self, kind: str, left_out: bool, first: str, count: int) -> None:
        if count:
            before, example = self._found.get((kind, left_out), (0, first))
            self._found[kind, left_out] = (before + count, example)

    @property
    def num_left_out(self) -> int:
        """Entries that are not used."""
        return sum(count for (_, left_out), (count, _) in self._found.items() if left_out)

    @property
    def oddities(self) -> tuple[Oddity, ...]:
        """All of them."""
        return tuple(Oddity(kind, count, out, first) for (kind, out), (count, first) in self._found.items())


@dataclass(frozen=True, eq=False)
class Entries:
    """What the lists of a source name, one row an entry that could be read.

    Attributes:
        root: the source's folder.
        files: (N,) the photo relative to ``root``; None where it is not there.
        boxes_xyxy: (N, 4) float64, pixels; NaN stands for the whole photo.
        items: (N,) what is equal for the same item; None matches nothing.
        is_consumer: (N,) bool.
        where: says of an entry's row number where the lists name it.
        lists: the list files.
    """

    root: Path
    files: Sequence[str | None]
    boxes_xyxy: Floats
    items: Sequence[Hashable | None]
    is_consumer: Bools
    where: Callable[[int], str]
    lists: Sequence[Path]


def whole_photos(count: int) -> Floats:
    """(count, 4) NaN: the boxes of a source that has none."""
    return np.full((count, 4), np.nan)


def gather(source: str, entries: Entries, tally: Tally) -> Garments:
    """The garments of a source; whatever is left out is counted.

    Args:
        source: its name.
        entries: what its lists name.
        tally: is told of every entry that is left out, and of what is odd.

    Returns:
        the garments in the order of the entries; identities are numbered as they first appear.
    """
    photo_codes = _codes(entries.files)
    kept = np.ones(len(photo_codes), dtype=bool)

    def leave_out(kind: str, wrong: Bools) -> None:
        rows = np.flatnonzero(kept & wrong)
        if len(rows):
            tally.leave_out(kind, entries.where(int(rows[0])), len(rows))
            kept[rows] = False

    leave_out("photo is not there", photo_codes < 0)
    boxes = entries.boxes_xyxy
    whole = np.isnan(boxes).all(axis=1)
    sound: Bools = np.isfinite(boxes).all(axis=1) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    leave_out("box of no area", ~(whole | sound))
    items = _codes(entries.items)
    corners = np.where(np.isnan(boxes), -1.0, boxes)
    crop_columns = [photo_codes, *corners.T]
    leave_out("listed again", _is_repeat([*crop_columns, items, entries.is_consumer], kept))
    leave_out("listed again for the other domain; the first stays", _is_repeat([*crop_columns, items], kept))
    leave_out("one crop under two identities; the first stays", _is_repeat(crop_columns, kept))
    rows = np.flatnonzero(kept)
    _note_shared_photos(photo_codes, entries, rows, tally)
    used, photo_rows = np.unique(photo_codes[rows], return_inverse=True)
    names = list(dict.fromkeys(name for name in entries.files if name is not None))
    photos = tuple(names[code] for code in used.tolist())
    identities = _renumbered(items[rows])
    photo_rows = photo_rows.reshape(-1).astype(np.int64)
    return Garments(
        source=source,
        photos=PathsBelow(entries.root, photos),
        photo_rows=photo_rows,
        boxes_xyxy=boxes[rows],
        identities=identities,
        is_consumer=entries.is_consumer[rows],
        record=TrainedOn(
            fingerprint=_fingerprint(entries.lists, photos),
            split=source,
            num_photos=len(photos),
            image_ids_sha256=image_ids_sha256(photo_rows),
            rendered=_is_rendered(entries.root, photos),
        ),
    )


def _codes(values: Sequence[Hashable | None]) -> Ints:
    """0, 1, … in the order of first appearance; -1 for None."""
    seen: dict[Hashable, int] = {}
    return np.fromiter(
        (-1 if value is None else seen.setdefault(value, len(seen)) for value in values), np.int64, len(values)
    )


def _renumbered(items: Ints) -> Ints:
    """The same identities as 0, 1, … without gaps, in the order of first appearance."""
    identities = np.full(len(items), NO_IDENTITY, dtype=np.int64)
    there = items >= 0
    used, inverse = np.unique(items[there], return_inverse=True)
    assert len(used) == 0 or used[0] >= 0
    identities[there] = inverse.reshape(-1)
    return identities


def _is_repeat(columns: Sequence[NDArray[Any]], among: Bools) -> Bools:
    """(N,) whether an earlier row among those in question has the same values in all columns."""
    repeat = np.zeros(len(among), dtype=bool)
    rows = np.flatnonzero(among)
    order = rows[np.lexsort([column[rows] for column in reversed(columns)])]  # stable: equals stay in their order
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for column in columns:
        same &= column[order[1:]] == column[order[:-1]]
    repeat[order[1:][same]] = True
    return repeat


def _note_shared_photos(photo_codes: Ints, entries: Entries, rows: Ints, tally: Tally) -> None:
    """Count photos of both domains."""
    codes, is_consumer = photo_codes[rows], entries.is_consumer[rows]
    both = np.isin(codes, np.intersect1d(codes[is_consumer], codes[~is_consumer]))
    if both.any():
        first = entries.where(int(rows[np.flatnonzero(both)[0]]))
        tally.note("photo is a consumer's and a shop's", first, len(np.unique(codes[both])))


def _fingerprint(lists: Sequence[Path], photos: Sequence[str]) -> str:
    """SHA-256 over the lists' bytes, in the order of their names, and the names of the photos used."""
    digest = hashlib.sha256(b"training source, form 1\n")
    for path in sorted(lists, key=lambda path: path.name):
        digest.update(f"{path.name}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    digest.update("\n".join(sorted(photos)).encode(errors="surrogateescape"))
    return digest.hexdigest()


def _is_rendered(root: Path, photos: Sequence[str]) -> bool:
    """Whether a source says of itself that it was rendered: by the file at the root, or by one of its photos."""
    if (root / RENDERED_MARK).is_file():
        return True
    for name in photos[:1]:
        with open(root / name, "rb") as file:
            return RENDERED_COMMENT in file.read(512)
    return False
