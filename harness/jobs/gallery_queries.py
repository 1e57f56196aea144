"""Which queries of a result are shown, and what is shown of each.

Legend: Q queries, S queries that are shown, R result rows, K = 20 gallery entries of a row, C matching shop items.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.jobs.gallery_pictures import PictureBook
from harness.progress import Reporter, silent
from harness.scoring.hearing import MIN_IOU, Hearing
from harness.scoring.ledger import FATES, GalleryBoxes, Ledger, account
from harness.scoring.official import Outcome, decide
from harness.scoring.overlap import iou, join
from harness.types import CATEGORIES, Bools, Floats, Ints

if TYPE_CHECKING:
    from leaderboard.pages.gallery_page import ShownQuery, ShownResult, Verdict

NUM_ANSWERS = 10

MOST_COUNTERPARTS = 8
"""Of a query are shown: a few of the real data have dozens."""


@dataclass(frozen=True, eq=False)
class Judged:
    """A result and what a protocol says of it.

    Attributes:
        hearing: results and truth.
        outcome: of every query.
        ledger: the fate of every query.
        searched: the boxes that were searched; None where nobody knows.
        similarities_RK: (R, 20) float, NaN where a row was not searched for; None where nobody knows.
        untold: fates that could not be told.
    """

    hearing: Hearing
    outcome: Outcome
    ledger: Ledger
    searched: GalleryBoxes | None
    similarities_RK: Floats | None
    untold: tuple[str, ...]

    @classmethod
    def of(
        cls,
        hearing: Hearing,
        searched: GalleryBoxes | None = None,
        similarities_RK: Floats | None = None,
        untold: tuple[str, ...] = (),
    ) -> Judged:
        """Let the official protocol decide."""
        outcome = decide(hearing)
        ledger = account(hearing, outcome, None, searched)
        return cls(hearing, outcome, ledger, searched, similarities_RK, untold)

    def totals(self) -> dict[str, int | None]:
        """Queries by fate in order of precedence; None where it could not be told."""
        counts = np.bincount(self.ledger.fates, minlength=len(FATES)).tolist()
        return {str(fate): None if fate in self.untold else count for fate, count in zip(FATES, counts, strict=True)}


def sample(fates: Ints, num_queries: int, seed: int = 0) -> Ints:
    """Some of the queries, as many of each fate as there are, or as of the others: failures are rare in a good result,
    and are what one looks for.

    Args:
        fates: (Q,) int64, places in `FATES`.
        num_queries: to choose at most.
        seed: of the random generator.

    Returns:
        (S,) int64, ascending query numbers; all where they are few enough.
    """
    if len(fates) <= num_queries:
        return np.arange(len(fates))
    groups = sorted((np.flatnonzero(fates == fate) for fate in np.unique(fates)), key=len)
    random, chosen, left = np.random.default_rng(seed), [], num_queries
    for place, group in enumerate(groups):
        share = min(len(group), left // (len(groups) - place))
        chosen.append(random.choice(group, share, replace=False))
        left -= share
    return np.sort(np.concatenate(chosen))


def show_some(
    judged: Judged, photo_path: Callable[[int], Path], num_queries: int, report: Reporter = silent
) -> ShownResult:
    """Some of the queries with their pictures, under no name yet.

    Args:
        judged: a result.
        photo_path: where the photo with an image id is.
        num_queries: to show at most, chosen by `sample`.
        report: where progress is shown.
    """
    from leaderboard.pages.gallery_page import ShownResult

    book = PictureBook(photo_path)
    chosen = sample(judged.ledger.fates, num_queries)
    matching = _matching(judged.hearing, chosen)
    detected = _detected(judged, np.concatenate([np.zeros(0, np.int64), *matching]))
    queries = tuple(
        _query(judged, number, items, detected, book) for number, items in zip(chosen.tolist(), matching, strict=True)
    )
    score = judged.outcome.score
    return ShownResult(
        name="",
        source="",
        split="",
        rendered=False,
        protocol=score.protocol,
        acc10=score.acc[10],
        totals=judged.totals(),
        queries=queries,
        pictures=tuple(book.make(report)),
    )


def _matching(hearing: Hearing, chosen: Ints) -> list[Ints]:
    """For each chosen query the rows of the shop items that match it."""
    numbers, items = hearing.counterparts()
    starts = np.searchsorted(numbers, chosen, "left")
    ends = np.searchsorted(numbers, chosen, "right")
    return [items[start:end] for start, end in zip(starts, ends, strict=True)]


def _detected(judged: Judged, items: Ints) -> dict[int, bool]:
    """Whether a searched box overlaps each of some shop items enough; empty where nobody knows."""
    if judged.searched is None:
        return {}
    gallery, searched, rows = judged.hearing.gallery, judged.searched, np.unique(items)
    places, boxes = join(gallery.image_ids[rows], searched.image_ids)
    near = iou(gallery.boxes_xyxy[rows[places]], searched.boxes_xyxy[boxes]) >= MIN_IOU
    found = set(rows[places[near]].tolist())
    return {row: row in found for row in rows.tolist()}


def _query(judged: Judged, number: int, items: Ints, detected: dict[int, bool], book: PictureBook) -> ShownQuery:
    from leaderboard.pages.gallery_page import ShownAnswer, ShownCounterpart, ShownQuery

    hearing, ledger = judged.hearing, judged.ledger
    queries, gallery, results = hearing.queries, hearing.gallery, hearing.results
    row, speaking = int(ledger.query_rows[number]), int(ledger.speaking_rows[number])
    image_id, category = int(queries.image_ids[row]), int(queries.category_ids[row])
    answers: list[ShownAnswer] = []
    right_KC = np.zeros((0, len(items)), np.bool_)
    if speaking >= 0:
        photos_K, boxes_K4 = results.gallery_image_ids_RK[speaking], results.gallery_boxes_xyxy_RK4[speaking]
        has_photo_KC, right_KC = _matches(photos_K, boxes_K4, gallery.image_ids[items], gallery.boxes_xyxy[items])
        for place in range(NUM_ANSWERS):
            verdict: Verdict = "wrong"
            if has_photo_KC[place].any():
                verdict = "right" if right_KC[place].any() else "wrong box"
            photo, box = int(photos_K[place]), boxes_K4[place]
            similarity = None if judged.similarities_RK is None else float(judged.similarities_RK[speaking, place])
            answers.append(ShownAnswer(book.crop(photo, box), photo, verdict, similarity))
    counterparts = tuple(
        ShownCounterpart(
            book.crop(int(gallery.image_ids[item]), gallery.boxes_xyxy[item]),
            int(gallery.image_ids[item]),
            int(right_KC[:, place].argmax()) + 1 if right_KC[:, place].any() else None,
            detected.get(item),
        )
        for place, item in list(enumerate(items.tolist()))[:MOST_COUNTERPARTS]
    )
    known = 1 <= category <= len(CATEGORIES)
    return ShownQuery(
        number=number,
        image_id=image_id,
        pair_id=int(queries.pair_ids[row]),
        style=int(queries.styles[row]),
        category=CATEGORIES[category - 1] if known else f"category {category}",
        fate=str(FATES[int(ledger.fates[number])]),
        rank=int(ledger.hit_ranks[number]) or None,
        photo=book.photo(image_id),
        box_xyxy=_sides(queries.boxes_xyxy[row]),
        speaking_xyxy=None if speaking < 0 else _sides(results.boxes_xyxy[speaking]),
        overlap=None if speaking < 0 else float(ledger.overlaps[number]),
        score=None if speaking < 0 else float(ledger.scores[number]),
        crop=None if speaking < 0 else book.crop(image_id, results.boxes_xyxy[speaking]),
        answers=tuple(answers),
        counterparts=counterparts,
        num_counterparts=len(items),
    )


def _matches(photos_K: Ints, boxes_K4: Floats, items_C: Ints, items_C4: Floats) -> tuple[Bools, Bools]:
    """(K, C) whether an entry shows the photo of an item, and whether it also overlaps the item enough."""
    num_entries, num_items = len(photos_K), len(items_C)
    has_photo = photos_K[:, None] == items_C
    overlap = iou(np.repeat(boxes_K4, num_items, axis=0), np.tile(items_C4, (num_entries, 1)))
    return has_photo, has_photo & (overlap.reshape(num_entries, num_items) >= MIN_IOU)


def _sides(box_xyxy: Floats) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box_xyxy.tolist()
    return x1, y1, x2, y2
