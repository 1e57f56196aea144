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

from harness.scoring.hearing import MIN_IOU as MIN_IOU
from harness.scoring.hearing import Hearing, place_boxes, query_numbers
from harness.scoring.overlap import first_of_group
from harness.scoring.results import Results
from harness.scoring.truth import Gallery, Queries, read_truth
from harness.types import Floats, Ints, Score

PROTOCOL = "official"


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
    truth = read_truth(queries, gallery)  # before the large file, in case they are wrong
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
    return decide(Hearing.of(results, queries, gallery))


def decide(hearing: Hearing) -> Outcome:
    """`judge` for results and truth that have been brought together."""
    candidates = np.flatnonzero(hearing.has_category)
    return outcome(PROTOCOL, hearing, loudest(candidates, hearing.query_numbers, hearing.results.scores, hearing.size))


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
    item_rows, _ = place_boxes(image_ids, boxes_xyxy, queries)
    numbers = query_numbers(item_rows, queries)
    goes = np.flatnonzero(numbers >= 0)
    candidates = goes[queries.category_ids[item_rows[goes]] == category_ids[goes]]
    return loudest(candidates, numbers, scores, len(queries.asked_rows))


def loudest(
    candidates: Ints, numbers: Ints, scores: Floats, num_queries: int, last_of_equals: Ints | None = None
) -> Ints:
    """The candidate of the highest score for each query.

    Args:
        candidates: (C,) int64, ascending result rows that go to a query.
        numbers: (R,) int64, the number of the query that each result row goes to.
        scores: (R,) float64, finite.
        num_queries: Q.
        last_of_equals: (R,) int64, of equal scores the row with the largest number speaks; without it, and where those
            are equal too, the first row.

    Returns:
        (Q,) int64, result rows, -1 where a query has no candidate.
    """
    speaking = np.full(num_queries, -1, np.int64)
    equals = () if last_of_equals is None else (-last_of_equals[candidates],)
    # lexsort is stable, so of equal scores the first row stays first.
    candidates = candidates[np.lexsort((*equals, -scores[candidates], numbers[candidates]))]
    first = candidates[first_of_group(numbers[candidates])]
    speaking[numbers[first]] = first
    return speaking


def outcome(protocol: str, hearing: Hearing, speaking: Ints) -> Outcome:
    """What becomes of the queries when these rows speak for them.

    Args:
        protocol: that chose the rows.
        hearing: results and truth.
        speaking: (Q,) int64, a result row for each query, or -1.
    """
    hit_ranks = np.append(hearing.hit_ranks, 0)[speaking]  # row -1 is the zero after the last row
    return Outcome(Score(protocol, len(speaking), hit_ranks), hearing.query_rows, speaking)
