"""The loss ledger: for every query one outcome, so that one can see which stage of a pipeline lost it.

The first of these that is true of a query is its outcome:

1. hit: one of the 20 entries of the box that speaks is right.
2. no detection: no box goes to the item.
3. wrong class: boxes go to it, none of its category (strictly: the loudest has another one).
4. displaced: another box of its category that goes to it overlaps it more than the one that speaks, and has a right
   entry. The detector's scores are to blame.
5. not in gallery: none of the detected gallery boxes overlaps a matching shop item with an IoU of at least 0.5, so the
   search could not find it. Told only where those boxes are given.
6. right photo, wrong box: an entry shows the photo of a matching item, but no box that overlaps it enough.
7. ranked below 20: what remains is the ranking's.

A box "goes to" an item as the protocol has it: strictly only with an IoU of at least 0.5.

Legend: R result rows, Q queries, G gallery items.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from harness.scoring.hearing import MIN_IOU, Hearing
from harness.scoring.official import Outcome
from harness.scoring.overlap import iou, join
from harness.types import Bools, Floats, InputError, Ints


class Fate(StrEnum):
    """What can become of a query, in order of precedence."""

    HIT = "hit"
    NO_DETECTION = "no detection"
    WRONG_CLASS = "wrong class"
    DISPLACED = "displaced"
    NOT_IN_GALLERY = "not in gallery"
    WRONG_BOX = "right photo, wrong box"
    RANKED_BELOW = "ranked below 20"


FATES = tuple(Fate)

MEANINGS: Mapping[str, str] = {
    Fate.HIT: "a right answer among the first 20",
    Fate.NO_DETECTION: "no detected box goes to the garment",
    Fate.WRONG_CLASS: "boxes go to it, none of its category",
    Fate.DISPLACED: "a box that overlaps it more has a right answer, but another one speaks",
    Fate.NOT_IN_GALLERY: "no detected shop box overlaps a matching item",
    Fate.WRONG_BOX: "the photo was found, the garment in it was not",
    Fate.RANKED_BELOW: "it could be found, and was not among the first 20",
}
"""What each fate means, in a few words."""

_SUFFIXES = (".parquet", ".csv")


@dataclass(frozen=True, eq=False)
class GalleryBoxes:
    """The boxes that a team's detector found in the shop photos.

    Attributes:
        image_ids: (D,) int64.
        boxes_xyxy: (D, 4) float64, pixels.
    """

    image_ids: Ints
    boxes_xyxy: Floats


@dataclass(frozen=True, eq=False)
class Ledger:
    """One row a query, in the order of the query file.

    Attributes:
        protocol: whose outcome this is.
        query_rows: (Q,) int64, rows of the query file.
        image_ids: (Q,) int64.
        pair_ids: (Q,) int64.
        styles: (Q,) int64.
        category_ids: (Q,) int64.
        fates: (Q,) int64, places in `FATES`.
        hit_ranks: (Q,) int64, rank of the first right entry of the box that speaks; 0 for none.
        speaking_rows: (Q,) int64, its row in the result file; -1 where none speaks.
        overlaps: (Q,) float64, its IoU with the item; NaN where none speaks.
        scores: (Q,) float64, its score; NaN where none speaks.
        photo_ranks: (Q,) int64, rank of its first entry whose photo holds a matching item; 0 for none.
        num_counterparts: (Q,) int64, matching shop items.
        knows_gallery: whether the detected gallery boxes were given, and so "not in gallery" could be told.
    """

    protocol: str
    query_rows: Ints
    image_ids: Ints
    pair_ids: Ints
    styles: Ints
    category_ids: Ints
    fates: Ints
    hit_ranks: Ints
    speaking_rows: Ints
    overlaps: Floats
    scores: Floats
    photo_ranks: Ints
    num_counterparts: Ints
    knows_gallery: bool

    def __len__(self) -> int:
        return len(self.query_rows)

    def totals(self) -> dict[str, int]:
        """Queries by outcome in order of precedence; they sum to the number of queries.

        Outcomes that no query has are 0; "not in gallery" is left out where it could not be told.
        """
        counts = np.bincount(self.fates, minlength=len(FATES)).tolist()
        return {
            str(fate): count
            for fate, count in zip(FATES, counts, strict=True)
            if fate is not Fate.NOT_IN_GALLERY or self.knows_gallery
        }

    def columns(self) -> dict[str, list[Any]]:
        """The table as Python values; None where there is no such rank or box."""
        return {
            "query_row": self.query_rows.tolist(),
            "image_id": self.image_ids.tolist(),
            "pair_id": self.pair_ids.tolist(),
            "style": self.styles.tolist(),
            "category": self.category_ids.tolist(),
            "outcome": [str(FATES[fate]) for fate in self.fates.tolist()],
            "rank": [rank or None for rank in self.hit_ranks.tolist()],
            "speaking_row": [None if row < 0 else row for row in self.speaking_rows.tolist()],
            "overlap": [None if overlap != overlap else overlap for overlap in self.overlaps.tolist()],
            "score": [None if score != score else score for score in self.scores.tolist()],
            "photo_rank": [rank or None for rank in self.photo_ranks.tolist()],
            "num_counterparts": self.num_counterparts.tolist(),
        }

    def write(self, path: Path) -> None:
        """Write the table, whole or not at all.

        Args:
            path: ``*.parquet`` or ``*.csv``; its folder is made, a file of that name is replaced.

        Raises:
            InputError: another suffix.
        """
        check_suffix(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            if path.suffix.lower() == ".parquet":
                _write_parquet(partial, self.columns())
            else:
                _write_csv(partial, self.columns())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def check_suffix(path: Path) -> None:
    """Refuse a ledger file of unknown format, before anything is computed.

    Raises:
        InputError: the suffix is neither ``.parquet`` nor ``.csv``.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(
            f"{path}: expected a ledger file that ends in {' or '.join(_SUFFIXES)}, got {path.suffix or 'no suffix'!r}"
        )


def account(
    hearing: Hearing, outcome: Outcome, is_heard: Bools | None = None, gallery_boxes: GalleryBoxes | None = None
) -> Ledger:
    """Give every query its outcome.

    Args:
        hearing: results and truth.
        outcome: what a protocol decided.
        is_heard: (R,) bool, the boxes that go to their item by that protocol; without it all do.
        gallery_boxes: what was searched; without it no query is "not in gallery".
    """
    results, queries = hearing.results, hearing.queries
    query_rows, speaking = outcome.query_rows, outcome.speaking_rows
    # Row -1, nobody, is the place after the last row.
    overlaps, scores = (np.append(column, np.nan)[speaking] for column in (hearing.overlaps, results.scores))
    goes = hearing.query_numbers >= 0 if is_heard is None else is_heard & (hearing.query_numbers >= 0)
    has_category = goes & hearing.has_category
    better = np.flatnonzero(has_category & (hearing.hit_ranks > 0))
    better = better[hearing.overlaps[better] > overlaps[hearing.query_numbers[better]]]
    photo_ranks = np.append(hearing.photo_ranks, 0)[speaking]
    fates = np.select(
        [
            outcome.score.hit_ranks > 0,
            ~_any(hearing, np.flatnonzero(goes)),
            speaking < 0,
            _any(hearing, better),
            ~_in_gallery(hearing, gallery_boxes),
            photo_ranks > 0,
        ],
        range(len(FATES) - 1),
        default=len(FATES) - 1,
    )
    return Ledger(
        outcome.score.protocol,
        query_rows,
        queries.image_ids[query_rows],
        queries.pair_ids[query_rows],
        queries.styles[query_rows],
        queries.category_ids[query_rows],
        fates,
        outcome.score.hit_ranks,
        speaking,
        overlaps,
        scores,
        photo_ranks,
        hearing.num_counterparts,
        gallery_boxes is not None,
    )


def _any(hearing: Hearing, rows: Ints) -> Bools:
    """(Q,) bool, the queries that one of these rows goes to."""
    found = np.zeros(hearing.size, np.bool_)
    found[hearing.query_numbers[rows]] = True
    return found


def _in_gallery(hearing: Hearing, found: GalleryBoxes | None) -> Bools:
    """(Q,) bool, whether the search could find the query's item; True where nobody knows."""
    if found is None:
        return np.ones(hearing.size, np.bool_)
    gallery = hearing.gallery
    items, boxes = join(gallery.image_ids, found.image_ids)
    is_detected = np.zeros(len(gallery), np.bool_)
    is_detected[items[iou(gallery.boxes_xyxy[items], found.boxes_xyxy[boxes]) >= MIN_IOU]] = True
    numbers, answers = hearing.counterparts()
    could = np.zeros(hearing.size, np.bool_)
    could[numbers[is_detected[answers]]] = True
    return could


def _write_parquet(path: Path, columns: Mapping[str, list[Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    types = {"outcome": pyarrow.string(), "overlap": pyarrow.float64(), "score": pyarrow.float64()}
    schema = pyarrow.schema([(name, types.get(name, pyarrow.int64())) for name in columns])
    pyarrow.parquet.write_table(pyarrow.table(dict(columns), schema=schema), path)


def _write_csv(path: Path, columns: Mapping[str, list[Any]]) -> None:
    import csv

    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
