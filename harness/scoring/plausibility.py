"""Signs that a result file is wrong although it can be scored: other coordinates, categories, photos or splits.

All of it is statistics on a few thousand rows, so each sign needs a large share: an honest file shows none.

Legend: R result rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.scoring.hearing import MIN_IOU, Hearing, place_boxes
from harness.scoring.hedging import MANY_CATEGORIES, class_hedging
from harness.scoring.ledger import GalleryBoxes
from harness.scoring.overlap import distinct
from harness.scoring.truth import Gallery, Queries
from harness.types import CATEGORIES, GALLERY_LENGTH, Floats, InputError, Ints

_SAMPLE = 2000
_MANY_INVERTED = 0.05
_RISE = 0.2
"""In the mean overlap with annotated items, when boxes are read otherwise."""

_LOW_OVERLAP = 0.6
"""Mean overlap of the best box of each item: .76 for detectors of AP50 .5, .50 for boxes of other photos."""

_LOW_GALLERY_OVERLAP = 0.55
"""Mean overlap of the first gallery box of each row with an annotated garment: .70 and .4 for the same."""

_ENOUGH = 50
"""Boxes of which a mean says something."""

_FEW_ANSWERED = 0.8
_PERHAPS = "of resized photos, of another split, with ids that are off by one, or of a detector that finds little"


def doubts(hearing: Hearing, gallery_boxes: GalleryBoxes | None = None) -> list[str]:
    """One sentence for each sign that the files are not what they should be; none for honest ones.

    Args:
        hearing: results and truth.
        gallery_boxes: what was searched, where that is given.
    """
    found = [] if gallery_boxes is None else [*_searched(hearing, gallery_boxes)]
    if len(hearing.results) == 0:
        return [*found, "The file holds no row, so every query is missed."]
    found += [*_photos(hearing), *_boxes(hearing), *_categories(hearing), *_scores(hearing)]
    if hearing.results.num_entries > GALLERY_LENGTH:
        found.append(f"Each row has {hearing.results.num_entries} gallery entries, of which the first 20 count.")
    if not hearing.has_category.any():
        found.append("No row speaks for any query: no box of a query's category is in a query's photo.")
    return found


def _searched(hearing: Hearing, gallery_boxes: GalleryBoxes) -> Iterator[str]:
    known = float(np.isin(hearing.gallery.image_ids, gallery_boxes.image_ids).mean())
    if known < 0.5:
        yield (
            f"gallery detections: only {known:.0%} of the annotated shop items are in a photo with a detection; "
            "give the detections of this split's shop photos"
        )
    boxes = gallery_boxes.boxes_xyxy
    as_corners = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    read, other = (_mean_overlap(gallery_boxes.image_ids, one, hearing.gallery) for one in (boxes, as_corners))
    if other > read + _RISE:
        yield (
            f"gallery detections: taken for x1, y1, x2, y2 the boxes overlap the garments by {other:.2f} on average, "
            f"as COCO's x, y, width, height by {read:.2f}; write the latter"
        )


def _photos(hearing: Hearing) -> Iterator[str]:
    results = hearing.results
    unknown = float((hearing.item_rows < 0).mean())
    if unknown > 0.5:
        yield (
            f"query_image_id: {unknown:.0%} of the rows are of photos that {hearing.queries.source} does not know "
            f"(such as {results.image_ids[hearing.item_rows < 0][0]}); is the file of another split?"
        )
    asked = distinct(hearing.queries.image_ids[hearing.query_rows])
    answered = float(np.isin(asked, results.image_ids).mean())
    if unknown <= 0.5 and answered < _FEW_ANSWERED:
        yield f"only {answered:.0%} of the photos with a query have a row; is the file whole?"
    shown = results.gallery_image_ids_RK[_sampled(np.arange(len(results)))]
    consumers = np.isin(shown, hearing.queries.image_ids) & ~np.isin(shown, hearing.gallery.image_ids)
    if consumers.any():
        yield (
            f"gallery_image_id: {consumers.mean():.1%} of the entries show consumer photos (such as "
            f"{shown[consumers][0]}), which answer nothing"
        )
    foreign = ~np.isin(shown, hearing.gallery.image_ids) & ~consumers
    if foreign.mean() > 0.5:
        yield (
            f"gallery_image_id: {foreign.mean():.0%} of the entries show photos that {hearing.gallery.source} does not "
            f"know (such as {shown[foreign][0]}); shop photos without items are possible, but so many point to "
            "another split or to numbers that are no image ids"
        )


def _boxes(hearing: Hearing) -> Iterator[str]:
    results = hearing.results
    rows = _sampled(np.flatnonzero(hearing.item_rows >= 0))
    entries = _sampled(np.arange(len(results)))
    sides: list[tuple[str, Ints, Floats, Queries | Gallery]] = [
        ("query_bbox", results.image_ids[rows], results.boxes_xyxy[rows], hearing.queries),
        (
            "gallery_bbox",
            results.gallery_image_ids_RK[entries, 0],
            results.gallery_boxes_xyxy_RK4[entries, 0],
            hearing.gallery,
        ),
    ]
    for field, image_ids, boxes, items in sides:
        found = _wrong_boxes(image_ids, boxes, items)
        if found is None and items is hearing.queries and (mean := _mean_best_overlap(hearing)) < _LOW_OVERLAP:
            found = f"the best box of each item overlaps it by only {mean:.2f} on average: boxes {_PERHAPS}?"
        elif (
            found is None
            and items is hearing.gallery
            and np.isin(image_ids, items.image_ids).sum() >= _ENOUGH
            and (mean := _mean_overlap(image_ids, boxes, items)) < _LOW_GALLERY_OVERLAP
        ):
            found = (
                f"the first box of each row overlaps a garment of its photo by only {mean:.2f} on average: boxes "
                f"{_PERHAPS}?"
            )
        if found is not None:
            yield f"{field}: {found}"


def _wrong_boxes(image_ids: Ints, boxes: Floats, items: Queries | Gallery) -> str | None:
    if len(boxes) == 0:
        return None
    if boxes.max() <= 1 < items.boxes_xyxy.max(initial=0):
        return "no coordinate is above 1, so the boxes look normalised; write pixels of the photo"
    inverted = float(((boxes[:, 2:] < boxes[:, :2]).any(axis=1)).mean())
    as_read = _mean_overlap(image_ids, boxes, items)
    as_xywh = _mean_overlap(image_ids, np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1), items)
    if as_xywh > as_read + _RISE:
        return (
            f"read as [x, y, width, height] the boxes overlap the annotated items by {as_xywh:.2f} on average, "
            f"as [x1, y1, x2, y2] by {as_read:.2f}; write the latter"
        )
    if inverted > _MANY_INVERTED:
        return f"{inverted:.0%} of the boxes are inverted (x2 < x1 or y2 < y1); write [x1, y1, x2, y2] in pixels"
    return None


def _mean_overlap(image_ids: Ints, boxes: Floats, items: Queries | Gallery) -> float:
    item_rows, overlaps = place_boxes(image_ids, boxes, items)
    return float(overlaps[item_rows >= 0].mean()) if (item_rows >= 0).any() else 0.0


def _categories(hearing: Hearing) -> Iterator[str]:
    results = hearing.results
    rows = np.flatnonzero(hearing.overlaps >= MIN_IOU)
    wanted, given = hearing.queries.category_ids[hearing.item_rows[rows]], results.category_ids[rows]
    starts_at_0 = bool((results.category_ids == 0).any()) and not (results.category_ids >= len(CATEGORIES)).any()
    shifted = len(rows) > 0 and (wanted == given + 1).mean() > max(0.5, 2 * (wanted == given).mean())
    outside = (results.category_ids < 1) | (results.category_ids > len(CATEGORIES))
    if outside.any() and not starts_at_0:
        yield (
            f"query_cls: {outside.sum():,} rows have a category outside 1–13 (such as "
            f"{results.category_ids[outside][0]}), which matches nothing"
        )
    if starts_at_0 or shifted:
        yield "query_cls: the categories look like 0–12; they are 1–13, so add 1"
    try:
        hedging = class_hedging(results.image_ids, results.boxes_xyxy, results.category_ids)
    except InputError as error:  # too many boxes on top of each other to compare them all
        yield f"query_bbox: {error}"
        return
    if hedging.is_hedged:
        yield (
            f"query_cls: {hedging.share:.0%} of the boxes stand under at least {MANY_CATEGORIES} categories at once "
            f"(up to {hedging.max_categories}), which is class hedging: the official score accepts it, the strict one "
            "does not"
        )


def _scores(hearing: Hearing) -> Iterator[str]:
    scores = hearing.results.scores
    num_rivals = np.bincount(hearing.query_numbers[hearing.has_category], minlength=1)
    if scores.min() == scores.max() and num_rivals.max() > 1:
        yield (
            f"query_score: all are {scores[0]:g}, so officially the first row of each item speaks for it "
            f"({(num_rivals > 1).sum():,} queries have several); write the detector's certainty"
        )


def _mean_best_overlap(hearing: Hearing) -> float:
    """Over the queries that a box goes to; 1 where there is none."""
    best = np.full(hearing.size, -1.0)
    goes = hearing.query_numbers >= 0
    np.maximum.at(best, hearing.query_numbers[goes], hearing.overlaps[goes])
    return float(best[best >= 0].mean()) if goes.any() else 1.0


def _sampled(rows: Ints) -> Ints:
    return rows[:: max(1, len(rows) // _SAMPLE)]
