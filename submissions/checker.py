"""The checker: everything wrong with anyone's challenge result file, before the scorer trips over it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.scoring.rows import Block, ResultRow, blocks, no_garbage_collection
from harness.types import CATEGORIES, Bools, Floats, InputError, Ints
from submissions.conventions import Survey
from submissions.coordinates import MARGIN_PX
from submissions.entries import NOT_A_CATEGORY, Column, read_entries
from submissions.photos import KnownPhotos
from submissions.problems import Kind, Report, Tally
from submissions.repeats import Boxed, report_repeats
from submissions.values import shown_box
from submissions.writer import REFUSED_BYTES

NOT_READABLE = Kind("not-readable", "error", "cannot be read")
NO_ENTRY = Kind("no-entry", "error", "holds no entry, so every query is missed")
TOO_LARGE = Kind("too-large", "warning", "is too large for the challenge server")
UNANSWERED = Kind("unanswered", "warning", "consumer photos have no entry")
NEGATIVE_ID = Kind("negative-id", "error", "expected an integer from 0 on")
NO_CATEGORY = Kind("no-category", "error", NOT_A_CATEGORY.what)
WRONG_KIND = Kind("wrong-kind", "error", "is a photo of the other kind")
FOREIGN_PHOTO = Kind("foreign-photo", "error", "is no photo of the split")
UNLISTED_PHOTO = Kind("unlisted-photo", "warning", "is no photo of the ground truth, so it counts nothing")
INVERTED = Kind("inverted-box", "error", "is inverted: x2 < x1 or y2 < y1, where [x1, y1, x2, y2] is due")
EMPTY = Kind("empty-box", "warning", "is empty, so it overlaps nothing")
OUTSIDE = Kind("outside-box", "warning", "reaches out of its photo")
BESIDE = Kind("beside-box", "error", "lies outside its photo")
ODD_SCORE = Kind("odd-score", "warning", "is outside [0, 1]")
REPEATED_ANSWER = Kind("repeated-answer", "warning", "repeats a gallery box, which wastes a rank")


@dataclass(frozen=True, eq=False)
class Examination:
    """A report with what a repair needs to know besides.

    Attributes:
        report: the report.
        survey: the conventions of the file.
        copies: (N,) int64, rows that are exact copies of an earlier row, ascending.
        is_whole: whether the file could be read to its end.
    """

    report: Report
    survey: Survey
    copies: Ints
    is_whole: bool


def check_submission(path: Path, photos: KnownPhotos | None = None) -> Report:
    """Every problem of a challenge result file, not only the first.

    Class hedging (one box under several categories) is a warning: the scorer takes it, and an honest
    detector that scores each category apart may do it for a few boxes. `Report.num_hedged_boxes` says
    how far it goes. The file is read block by block, in bounded memory.

    Args:
        path: the file, plain or zipped.
        photos: the photos that it may speak of, to check the image ids and, where sizes are known, the boxes
            against; None if unknown.

    Returns:
        the problems; a file that is no JSON list has that one problem, and one that ends early those of the rows
        before as well.

    Raises:
        InputError: there is no such file, it cannot be opened, or a photo of the data set cannot be read.
    """
    return examine(path, photos).report


def examine(path: Path, photos: KnownPhotos | None = None) -> Examination:
    """The same as `check_submission`, with what a repair needs to know besides."""
    try:
        with path.open("rb"):
            num_bytes = path.stat().st_size
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected a challenge result file (JSON)") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a challenge result file") from error
    tally, survey, boxed = Tally(), Survey(photos), Boxed()
    answered: list[Ints] = []
    num_rows = 0
    faults: list[str] = []
    with no_garbage_collection():
        for block in _sound_blocks(path, faults):
            try:
                answered.append(_check_block(block, photos, tally, survey, boxed))
            except RecursionError:
                last = block.first_row + block.num_rows - 1
                faults.append(f"among the rows {block.first_row} to {last} is one that is nested too deep")
                break
            num_rows = block.first_row + block.num_rows
    for fault in faults:
        tally.add_whole(NOT_READABLE, fault)
    if not num_rows and not faults:
        tally.add_whole(NO_ENTRY, NO_ENTRY.what)
    for kind, what in survey.diagnoses():
        tally.add_whole(kind, what)
    num_hedged, copies = report_repeats(path, boxed, tally)
    image_ids = np.concatenate([*answered, np.zeros(0, np.int64)])
    if photos is not None and not faults and len(image_ids) > num_rows / 2:
        _check_coverage(image_ids, photos, tally)
    if num_bytes >= REFUSED_BYTES:
        what = f"{num_bytes / 1e6:,.0f} MB: the challenge server is reported to have refused files of about "
        tally.add_whole(TOO_LARGE, f"{what}{REFUSED_BYTES / 1e6:.0f} MB; write fewer decimals, or fewer boxes")
    report = tally.report(path, None if faults and not num_rows else num_rows, num_hedged)
    return Examination(report, survey, copies, not faults)


def _sound_blocks(path: Path, faults: list[str]) -> Iterator[Block[ResultRow]]:
    """The blocks before the first fault of the file itself, which is added to the faults."""
    try:
        yield from blocks(path, ResultRow)
    except InputError as error:
        faults.append(str(error).removeprefix(f"{path}: "))


def _check_block(
    block: Block[ResultRow], photos: KnownPhotos | None, tally: Tally, survey: Survey, boxed: Boxed
) -> Ints:
    """The photos that its rows answer for, as far as their ids can be read."""
    entries = read_entries(block, tally)
    columns = entries.columns
    for name, consumer in (("query_image_id", True), ("gallery_image_id", False)):
        _check_ids(columns[name], name, photos, tally, consumer=consumer)
        survey.add_ids(columns[name].values, consumer=consumer)
    for name in ("query_bbox", "gallery_bbox"):
        ids = columns[name].image_ids
        sizes = None if photos is None or photos.size_of is None or ids is None else photos.sizes(ids)
        _check_boxes(columns[name], name, sizes, tally)
        survey.add_boxes(name, columns[name].values, sizes)
    categories = columns["query_cls"].values
    _report(
        NO_CATEGORY,
        (categories < 1) | (categories > len(CATEGORIES)),
        columns["query_cls"],
        "query_cls",
        tally,
        lambda value: f"{NO_CATEGORY.what}, got {value}",
    )
    survey.add_categories(categories)
    scores = columns["query_score"]
    odd = (scores.values < 0) | (scores.values > 1)
    _report(ODD_SCORE, odd, scores, "query_score", tally, lambda value: f"is outside [0, 1]: {value:g}")
    answer_rows, answer_ids, answer_boxes = entries.answers
    _check_answers(answer_rows, answer_ids, answer_boxes, tally)
    survey.add_galleries(answer_ids, answer_boxes)
    boxed.add(*entries.boxed)
    image_ids: Ints = columns["query_image_id"].values
    return image_ids


def _check_ids(column: Column, name: str, photos: KnownPhotos | None, tally: Tally, *, consumer: bool) -> None:
    negative = column.values < 0
    _report(NEGATIVE_ID, negative, column, name, tally, lambda value: f"{NEGATIVE_ID.what}, got {value}")
    if photos is None:
        return
    known, source = photos, photos.source
    fits = known.are_of(column.values, consumer=consumer) | negative
    if fits.all():
        return
    swapped = ~fits & known.are_of(column.values, consumer=not consumer)
    expected, other = ("consumer", "shop") if consumer else ("shop", "consumer")
    _report(
        WRONG_KIND,
        swapped,
        column,
        name,
        tally,
        lambda value: f"image {value} is a {other} photo, expected a {expected} photo",
    )
    kind, so = (FOREIGN_PHOTO, "") if known.is_complete else (UNLISTED_PHOTO, ", so it counts nothing")
    _report(kind, ~fits & ~swapped, column, name, tally, lambda value: f"image {value} is not in {source}{so}")


def _check_boxes(column: Column, name: str, sizes: Floats | None, tally: Tally) -> None:
    x1, y1, x2, y2 = column.values.T
    inverted = (x1 > x2) | (y1 > y2)
    empty = ~inverted & ((x1 == x2) | (y1 == y2))
    sound = ~inverted & ~empty
    beside, outside = (x2 <= 0) | (y2 <= 0), (x1 < -MARGIN_PX) | (y1 < -MARGIN_PX)
    if sizes is not None:
        width, height = sizes.T
        beside |= (x1 >= width) | (y1 >= height)
        outside |= (x2 > width + MARGIN_PX) | (y2 > height + MARGIN_PX)
    _report(INVERTED, inverted, column, name, tally, lambda box: f"{INVERTED.what}: {shown_box(box)}")
    _report(EMPTY, empty, column, name, tally, lambda box: f"{EMPTY.what}: {shown_box(box)}")
    _report(BESIDE, sound & beside, column, name, tally, lambda box: f"{BESIDE.what}: {shown_box(box)}")
    _report(OUTSIDE, sound & outside & ~beside, column, name, tally, lambda box: f"{OUTSIDE.what}: {shown_box(box)}")


def _check_answers(rows: Ints, ids_RK: Ints, boxes_RK4: Floats, tally: Tally) -> None:
    """The same gallery box twice wastes a rank; the end repeated to fill up a short gallery does not."""
    ordered = np.sort(ids_RK, axis=1)
    suspects = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
    if len(suspects) == 0:
        return
    entries = np.concatenate([ids_RK[suspects, :, None], boxes_RK4[suspects]], axis=2)
    same_QKK = (entries[:, :, None] == entries[:, None]).all(axis=3)
    is_first = ~np.tril(same_QKK, -1).any(axis=2)
    is_filling = np.logical_and.accumulate(same_QKK[:, -1, ::-1], axis=1)[:, ::-1]
    num_repeated = (~is_first & ~is_filling).sum(axis=1)
    # The first of the filling is an entry of its own, unless it stands further up as well.
    first_filling = is_filling & ~np.pad(is_filling, ((0, 0), (1, 0)))[:, :-1]
    num_repeated += (first_filling & ~is_first).sum(axis=1)
    found = num_repeated > 0
    counts = num_repeated[found].tolist()
    what = "repeats {} of its gallery boxes; each repeat wastes a rank".format
    tally.add_all(REPEATED_ANSWER, rows[suspects[found]], "", lambda number: what(counts[number]))


def _check_coverage(image_ids: Ints, photos: KnownPhotos, tally: Tally) -> None:
    """Consumer photos without an entry count as missed; many of them are a sign of a wrong split."""
    missing = np.setdiff1d(photos.asked_ids, image_ids)
    if len(missing):
        what = f"{len(missing):,} of the {len(photos.asked_ids):,} consumer photos have no entry, the first is "
        tally.add_whole(UNANSWERED, f"{what}{missing[0]}", is_last=True)


def _report(kind: Kind, wrong: Bools, column: Column, name: str, tally: Tally, what: Any) -> None:
    if not wrong.any():
        return
    values = column.values[wrong]
    places = None if column.places is None else column.places[wrong]
    tally.add_all(kind, column.rows[wrong], name, lambda number: what(values[number].tolist()), places)
