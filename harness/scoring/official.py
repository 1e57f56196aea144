"""The score of the DeepFashion2 clothes-retrieval challenge, by the rules of its published script.

1. Each detected box of a photo goes to the annotated item that it overlaps most (the first of equals), with no minimum:
   a box that overlaps nothing goes to the photo's first item. Items of style 0 take part.
2. A query is an item of style > 0. Among the boxes that went to it and have its category, the one of the highest score
   (the first of equals) speaks for it; without such a box the query is missed.
3. One of the first k gallery entries of that box is right if its photo has an annotated item of the query's pair and
   style that it overlaps with an IoU of at least 0.5.
4. Acc@k is the number of queries with a right entry over the number of all queries, those of photos without a detection
   included.

Source: ``deepfashion2_retrieval_test.py`` of github.com/switchablenorms/DeepFashion2. What the script crashes on, or
scores as a silent zero, is an `InputError` here.

Legend: R result rows, Q queries, K = 20 gallery entries of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.scoring.overlap import common_codes, first_of_group, iou, join
from harness.scoring.results import Results
from harness.scoring.truth import Gallery, Queries, refuse_unanswerable
from harness.types import Bools, Floats, Ints, Score

PROTOCOL = "official"
MIN_IOU = 0.5


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of every query.

    Attributes:
        score: the official score.
        query_rows: (Q,) int64, the query's row in the query file.
        speaking_rows: (Q,) int64, the result row that speaks for the query; -1 where none does.
    """

    score: Score
    query_rows: Ints
    speaking_rows: Ints


def evaluate_files(results: Path, queries: Path, gallery: Path) -> Score:
    """Score a challenge result file.

    Args:
        results: the challenge JSON.
        queries: ``val_query.json``.
        gallery: ``val_gallery.json``.

    Returns:
        The official score; ``hit_ranks`` in the order of the queries of style > 0 in the query file.

    Raises:
        InputError: a file cannot be read or a row is wrong; the message names file, row and field.
    """
    truth = Queries.from_json(queries), Gallery.from_json(gallery)
    refuse_unanswerable(*truth)
    return evaluate(Results.from_json(results), *truth)


def evaluate(results: Results, queries: Queries, gallery: Gallery) -> Score:
    """The official score of results in memory; see `judge`."""
    return judge(results, queries, gallery).score


def judge(results: Results, queries: Queries, gallery: Gallery) -> Outcome:
    """Score results and tell which row spoke for each query.

    Args:
        results: R rows; rows of photos without a query are ignored, as the script does.
        queries: all annotated consumer items, those of style 0 included.
        gallery: all annotated shop items.

    Raises:
        InputError: queries and gallery do not belong together; see `refuse_unanswerable`.
    """
    refuse_unanswerable(queries, gallery)
    query_rows = queries.asked_rows
    speaking = speaking_rows(results.image_ids, results.boxes_xyxy, results.scores, results.category_ids, queries)
    hit_ranks = np.zeros(len(query_rows), np.int64)
    heard = np.flatnonzero(speaking >= 0)
    right_HK = _right_entries(results, speaking[heard], queries, query_rows[heard], gallery)
    hit_ranks[heard] = np.where(right_HK.any(axis=1), right_HK.argmax(axis=1) + 1, 0)
    return Outcome(Score(PROTOCOL, len(query_rows), hit_ranks), query_rows, speaking)


def speaking_rows(image_ids: Ints, boxes_xyxy: Floats, scores: Floats, category_ids: Ints, queries: Queries) -> Ints:
    """The one detected box that speaks for each query (rules 1 and 2): no other box can change the score.

    Args:
        image_ids: (R,) int64, photos of the detected boxes.
        boxes_xyxy: (R, 4) float64, pixels.
        scores: (R,) float64, finite.
        category_ids: (R,) int64.
        queries: all annotated consumer items.

    Returns:
        (Q,) int64, for every query of style > 0 a row of the detected boxes, or -1 where none speaks.
    """
    query_rows = queries.asked_rows
    speaking = np.full(len(query_rows), -1, np.int64)
    items = _nearest_items(image_ids, boxes_xyxy, queries)
    candidates = np.flatnonzero(items >= 0)
    candidates = candidates[
        (queries.category_ids[items[candidates]] == category_ids[candidates]) & (queries.styles[items[candidates]] > 0)
    ]
    # lexsort is stable, so of equal scores the first row stays first.
    candidates = candidates[np.lexsort((-scores[candidates], items[candidates]))]
    best = candidates[first_of_group(items[candidates])]
    speaking[np.searchsorted(query_rows, items[best])] = best
    return speaking


def _nearest_items(image_ids: Ints, boxes_xyxy: Floats, queries: Queries) -> Ints:
    """(R,) the row of the item that each box goes to; -1 for photos without an item."""
    items = np.full(len(image_ids), -1, np.int64)
    box_rows, item_rows = join(image_ids, queries.image_ids)
    if len(box_rows) == 0:
        return items
    overlap = iou(boxes_xyxy[box_rows], queries.boxes_xyxy[item_rows])
    starts = first_of_group(box_rows)
    largest = np.repeat(np.maximum.reduceat(overlap, starts), np.diff(np.append(starts, len(box_rows))))
    equal = np.flatnonzero(overlap == largest)
    first = equal[first_of_group(box_rows[equal])]
    items[box_rows[first]] = item_rows[first]
    return items


def _right_entries(results: Results, rows: Ints, queries: Queries, query_rows: Ints, gallery: Gallery) -> Bools:
    """(H, K) for every speaking row and entry, whether it is right (rule 3)."""
    entry_images = results.gallery_image_ids_RK[rows]
    entry_boxes = results.gallery_boxes_xyxy_RK4[rows].reshape(-1, 4)
    wanted = np.repeat(query_rows, entry_images.shape[1])
    entry_keys, answer_keys = common_codes(
        (queries.pair_ids[wanted], queries.styles[wanted], entry_images.ravel()),
        (gallery.pair_ids, gallery.styles, gallery.image_ids),
    )
    entries, answers = join(entry_keys, answer_keys)
    right = np.zeros(entry_images.size, np.bool_)
    right[entries[iou(entry_boxes[entries], gallery.boxes_xyxy[answers]) >= MIN_IOU]] = True
    right_HK: Bools = right.reshape(entry_images.shape)
    return right_HK
