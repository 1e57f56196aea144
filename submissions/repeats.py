"""Rows that speak of the same box: exact copies, contradictions, and one box under several categories."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from harness.scoring.hedging import MANY_CATEGORIES, SAME_BOX_IOU, class_hedging
from harness.scoring.rows import ResultRow, blocks, objects
from harness.types import CATEGORIES, Bools, Floats, InputError, Ints
from submissions.problems import Kind, Tally
from submissions.values import shown_box

COPY = Kind("copy", "error", "is an exact copy of an earlier row")
REPEAT = Kind("repeat", "error", "has the photo, box and category of an earlier row")
HEDGING = Kind("class-hedging", "warning", "class hedging: its box stands under several categories")
MUCH_HEDGING = Kind("much-class-hedging", "warning", "class hedging")
STACKED = Kind("stacked-boxes", "error", "has thousands of boxes on top of each other")


class Boxed:
    """The photo, box and category of every row, 56 bytes each."""

    def __init__(self) -> None:
        self._parts: list[tuple[Ints, Ints, Floats, Ints]] = []

    def add(self, rows: Ints, image_ids: Ints, boxes: Floats, categories: Ints) -> None:
        """Rows with their photos, boxes (N, 4) and categories."""
        self._parts.append((rows, image_ids, boxes, categories))

    def columns(self) -> tuple[Ints, Ints, Floats, Ints]:
        """All of them, in the order of the file."""
        none = np.zeros(0, np.int64)
        rows, image_ids, boxes, categories = zip(*self._parts, (none, none, np.zeros((0, 4)), none), strict=True)
        return np.concatenate(rows), np.concatenate(image_ids), np.concatenate(boxes), np.concatenate(categories)


def report_repeats(path: Path, boxed: Boxed, tally: Tally) -> tuple[int, Ints]:
    """Look for rows of the same box.

    Args:
        path: the file, read once more if there are any of the same category as well, to tell copies.
        boxed: what each row speaks of.
        tally: gets the problems.

    Returns:
        how many boxes stand under several categories, and (N,) the rows that are exact copies of an earlier row.
    """
    rows, image_ids, boxes, categories = boxed.columns()
    if len(rows) < 2:
        return 0, np.zeros(0, np.int64)
    order = np.lexsort((categories, boxes[:, 3], boxes[:, 2], boxes[:, 1], boxes[:, 0], image_ids))
    rows, image_ids, boxes, categories = rows[order], image_ids[order], boxes[order], categories[order]
    same_box = (image_ids[1:] == image_ids[:-1]) & (boxes[1:] == boxes[:-1]).all(axis=1)
    same_class = same_box & (categories[1:] == categories[:-1])
    copies = _report_copies(path, rows, same_class, tally)
    _report_much_hedging(image_ids, boxes, categories, tally)
    return _report_hedging(rows, image_ids, boxes, categories, same_box, tally), copies


def _report_copies(path: Path, rows: Ints, same_class: Bools, tally: Tally) -> Ints:
    """Rows of the same photo, box and category; lexsort is stable, so the first of each is the first in the file."""
    if not same_class.any():
        return np.zeros(0, np.int64)
    starts = np.flatnonzero(np.concatenate([[True], ~same_class]))
    firsts = np.repeat(rows[starts], np.diff(np.append(starts, len(rows))))
    repeats = np.flatnonzero(np.concatenate([[False], same_class]))
    later, first = rows[repeats], firsts[repeats]
    fingerprints = _fingerprints(path, set(later.tolist()) | set(first.tolist()))
    seen: dict[tuple[int, int], int] = {}
    for number in np.unique(first).tolist():
        if number in fingerprints:
            seen[number, fingerprints[number]] = number
    copies, others = [], []
    for row, start in sorted(zip(later.tolist(), first.tolist(), strict=True)):
        key = (start, fingerprints[row]) if row in fingerprints else None
        if key is not None and key in seen:
            copies.append((row, seen[key]))
        else:
            others.append((row, start))
            if key is not None:
                seen[key] = row
    for kind, found, what in (
        (COPY, copies, "is an exact copy of [{}]"),
        (REPEAT, others, "repeats [{}]: same photo, box and category"),
    ):
        numbers = np.array([row for row, _ in found], np.int64)
        tally.add_all(kind, numbers, "", lambda number, found=found, what=what: what.format(found[number][1]))  # type: ignore[misc]
    return np.array([row for row, _ in copies], np.int64)


def _fingerprints(path: Path, wanted: set[int]) -> dict[int, int]:
    """A number for each wanted row that is the same for rows of the same values; none for rows of another type."""
    found: dict[int, int] = {}
    try:
        for block in blocks(path, ResultRow):
            numbers = wanted.intersection(range(block.first_row, block.first_row + block.num_rows))
            if not numbers:
                continue
            rows = objects(block) if block.rows is None else block.rows
            for number in numbers:
                try:
                    row = msgspec.convert(rows[number - block.first_row], ResultRow, from_attributes=True)
                except (msgspec.ValidationError, UnicodeEncodeError):  # half a surrogate pair is no text for msgspec
                    continue
                found[number] = hash(msgspec.json.encode(row))  # of numbers, -1 and -2 have the same
    except InputError:
        pass  # the file ends early, which is a problem of its own
    return found


def _report_hedging(rows: Ints, image_ids: Ints, boxes: Floats, categories: Ints, same_box: Bools, tally: Tally) -> int:
    """One problem a box, at its first row."""
    if not same_box.any():
        return 0
    starts = np.flatnonzero(np.concatenate([[True], ~same_box]))
    ends = np.append(starts[1:], len(rows))
    is_new = np.concatenate([[True], ~(same_box & (categories[1:] == categories[:-1]))])
    num_categories = np.add.reduceat(is_new.astype(np.int64), starts)
    hedged = np.flatnonzero(num_categories > 1)
    first_rows = np.minimum.reduceat(rows, starts)[hedged]
    by_row = np.argsort(first_rows)
    hedged, first_rows = hedged[by_row], first_rows[by_row]

    def what(number: int) -> str:
        start, end = int(starts[hedged[number]]), int(ends[hedged[number]])
        names = sorted(set(categories[start:end].tolist()))
        return (
            f"class hedging: box {shown_box(boxes[start].tolist())} of photo {image_ids[start]} is entered under "
            f"{len(names)} categories ({', '.join(map(str, names))})"
        )

    tally.add_all(HEDGING, first_rows, "", what)
    return len(hedged)


def _report_much_hedging(image_ids: Ints, boxes: Floats, categories: Ints, tally: Tally) -> None:
    """One problem of the file; boxes that were moved a little for each category are one box here."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # boxes of any size are told of elsewhere
            found = class_hedging(image_ids, boxes, categories)
    except InputError as error:
        tally.add_whole(STACKED, str(error))
        return
    if found.is_hedged:
        tally.add_whole(
            MUCH_HEDGING,
            f"class hedging: the boxes of {found.share:.1%} of the rows stand under at least {MANY_CATEGORIES} of the "
            f"{len(CATEGORIES)} categories (an IoU of {SAME_BOX_IOU} makes two boxes one); the official rules accept "
            "it, leaderboards rank it apart",
        )
