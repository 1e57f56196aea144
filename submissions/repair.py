"""A mended copy of a result file: what has one right reading is written so, everything else stays as it is.

Mended are whole numbers written as texts or with a fraction of 0, numbers written as texts, gallery lists longer than
20 (cut: nobody reads further) or shorter (the last entry is repeated, which can turn no miss into a hit and no hit into
a miss), exact copies of a row, a field given twice with the same value, and a file in UTF-16 or with a byte order mark.
If the boxes of a field are surely [x, y, width, height], they are converted; if its inverted boxes can be nothing but
corners in the wrong order, they are put in order; and if they belong to their photos, those that stick out a little are
clipped. Boxes with two readings are left alone: `submissions.coordinates` decides.

Left alone are missing fields and values, NaN (a score that is not known cannot be guessed, and dropping the row would
lose a query), boxes beside their photo, normalised coordinates (of corners? of centres?) and categories that begin at 0
(a shift, or a class for the background?).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.scoring.rows import Block, ResultRow, blocks
from harness.types import InputError, Ints
from harness.unpacking import unpacked
from submissions.checker import Examination, examine
from submissions.conventions import LOOKS_LIKE_OTHER_SPLIT
from submissions.encoding import as_utf8
from submissions.entries import walk_rows
from submissions.mending import Mender
from submissions.photos import KnownPhotos
from submissions.problems import Report

COPY_DROPPED = "exact copy of an earlier row left out"
RECODED = "file written as plain UTF-8"

_MOST_PASSES = 8
_MOST_ROWS = 20


@dataclass(slots=True)
class Repair:
    """One sort of change.

    Attributes:
        what: what was changed.
        num: how often.
        first_rows: up to 20 rows, by their numbers in the file as it was.
    """

    what: str
    num: int
    first_rows: tuple[int, ...]


@dataclass(frozen=True)
class Repaired:
    """What was mended.

    Attributes:
        before: the problems of the file as it was; None if only its encoding kept it from being read.
        repairs: what was changed.
        after: the problems that are left, of the file as it was written.
    """

    before: Report | None
    repairs: tuple[Repair, ...]
    after: Report


def repair_submission(
    path: Path, out: Path, photos: KnownPhotos | None = None, inputs: Sequence[Path] = ()
) -> Repaired:
    """Write a mended copy of a result file, whole or not at all.

    A file that needs no mending is copied byte for byte (out of its archive), so mending a mended file changes nothing.

    Args:
        path: the file, plain or zipped; it is never written to.
        out: the copy, plain JSON; replaced if it exists. Its folder exists.
        photos: as for `submissions.checker.check_submission`; with sizes, boxes are clipped to their photos.
        inputs: other files that were read, and folders of them; the copy replaces none of these.

    Returns:
        what was changed, and what is still wrong.

    Raises:
        InputError: the file cannot be read to its end, its ids are not those of the photos, the copy would replace it
            or another input, or the copy has no folder or the name of an archive.
    """
    _refuse_place(path, out, inputs)
    drafts: list[Path] = []

    def draft() -> Path:
        drafts.append(out.with_name(f".{out.name}.{os.getpid()}.{len(drafts)}.partial"))
        return drafts[-1]

    found: dict[str, Repair] = {}
    try:
        current = as_utf8(path, draft) or path
        if current != path:
            found[RECODED] = Repair(RECODED, 1, ())
        examined = _examine_whole(path, current, photos)
        before = None if found else examined.report
        for moves_boxes in (False, True):
            for _ in range(_MOST_PASSES if moves_boxes or not examined.report.ok else 0):
                mender = Mender(examined.survey, photos, moves_boxes=moves_boxes)
                try:
                    mended = _mend(current, mender, examined.copies if moves_boxes else None, draft, found)
                except RecursionError as error:
                    raise InputError(f"{path}: has a row that is nested too deep to be mended") from error
                if mended is None:
                    break
                current = mended
                examined = _examine_whole(path, current, photos)
        if current == path:
            current = draft()
            with unpacked(path) as source, open(current, "wb") as target:
                shutil.copyfileobj(source, target)
        current.replace(out)
    finally:
        for one in drafts:
            one.unlink(missing_ok=True)
    return Repaired(before, tuple(found.values()), replace(examined.report, path=out))


def _refuse_place(path: Path, out: Path, inputs: Sequence[Path]) -> None:
    if out.exists() and path.exists() and out.samefile(path):
        raise InputError(f"{out}: is the file to mend; name another for the copy")
    for one in inputs if out.exists() else ():
        if one.exists() and (out.samefile(one) or out.resolve().is_relative_to(one.resolve())):
            what = f"is there already, and lies in {one}" if one.is_dir() else f"is an input as well ({one})"
            raise InputError(f"{out}: {what}; name another file for the copy")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder; make it, or choose another place for {out.name}")
    if out.suffix.lower() == ".zip":
        raise InputError(f"{out}: the copy is plain JSON; name it .json, and pack it afterwards")


def _examine_whole(path: Path, current: Path, photos: KnownPhotos | None) -> Examination:
    examined = examine(current, photos)
    if not examined.is_whole:
        fault = next(one.what for one in examined.report.problems if one.kind == "not-readable")
        raise InputError(f"{path}: {fault}; the rest of it is not known, so it cannot be mended")
    for one in examined.report.problems:
        if one.kind == LOOKS_LIKE_OTHER_SPLIT.name:
            raise InputError(
                f"{path}: {one.what} Nothing was written: held against other photos, boxes would be spoilt"
            )
    return examined


def _mend(
    current: Path, mender: Mender, copied: Ints | None, draft: Callable[[], Path], found: dict[str, Repair]
) -> Path | None:
    """The next draft; None if there is nothing to mend. Copies go last, so that rows keep their numbers until then."""
    copies = frozenset[int]() if copied is None else frozenset(copied.tolist())
    for drops in (frozenset[int](), copies) if copies else (frozenset[int](),):
        target = draft()
        _write(target, _row_texts(current, mender, drops))
        for what, rows in [*mender.changes.items(), *([(COPY_DROPPED, sorted(drops))] if drops else [])]:
            repair = found.setdefault(what, Repair(what, 0, ()))
            repair.num += len(rows)
            repair.first_rows = (*repair.first_rows, *dict.fromkeys(rows))[:_MOST_ROWS]
        if mender.changes or drops:
            return target
    return None


def _row_texts(path: Path, mender: Mender, drops: frozenset[int]) -> Iterator[bytes]:
    """Rows, one or several at once, that go between commas."""
    for block in blocks(path, ResultRow):
        numbers = range(block.first_row, block.first_row + block.num_rows)
        if drops.isdisjoint(numbers) and mender.is_sound(block):
            yield block.text[1:-1].strip()
        else:
            yield from _mended_rows(block, mender, drops)


def _mended_rows(block: Block[ResultRow], mender: Mender, drops: frozenset[int]) -> Iterator[bytes]:
    for number, (text, row) in enumerate(walk_rows(block), block.first_row):
        if number in drops:
            continue
        mended: Any = mender.mend(row, number)
        yield text.encode("utf-8", "surrogatepass") if mended is None else json.dumps(mended).encode()


def _write(path: Path, texts: Iterator[bytes]) -> None:
    with open(path, "wb") as stream:
        stream.write(b"[")
        for number, text in enumerate(texts):
            stream.write(b",\n" if number else b"\n")
            stream.write(text)
        stream.write(b"\n]\n")
