"""A stricter score than the official one: what it pays for is finding the garment, not writing the file cleverly.

The official rules hold but for three things:

S1. A box speaks only for an item that it overlaps with an IoU of at least 0.5. It goes to the item that it overlaps
    most (the first of equals), as officially, but a box that overlaps nothing speaks for nobody, and a tiny one of high
    score displaces none.
S2. Boxes of one photo that overlap with an IoU of at least 0.9 are one box. From the highest score down, each box that
    is still heard silences those that are the same box as it, of whatever category. So a box under all 13 categories
    has the category of its highest score alone, and a duplicate counts once. Boxes that speak for nobody by S1 silence
    others all the same.
S3. Of boxes of equal score the one with the worst answer comes first, in S2 and where one is to speak: no right answer
    before a right one at a late rank, that before one at an early rank. A box of another category than its item's, or
    one that speaks for nobody by S1, has no right answer. So equal scores never help, and the order of the rows in the
    file never matters.

Repeated gallery entries keep their places, as officially.

A box moved so far that the overlap is below 0.9 is another box; it pays with the overlap that S1 asks for.

Legend: R result rows, Q queries.
"""

from __future__ import annotations

import numpy as np

from harness.scoring.hearing import MIN_IOU, Hearing
from harness.scoring.official import Outcome, loudest, outcome
from harness.scoring.overlap import distinct
from harness.scoring.results import Results
from harness.scoring.truth import Gallery, Queries
from harness.types import GALLERY_LENGTH, Bools, Ints

PROTOCOL = "strict"


def judge(results: Results, queries: Queries, gallery: Gallery) -> Outcome:
    """Score results by the strict rules and tell which row spoke for each query.

    Args:
        results: R rows; their order does not matter.
        queries: all annotated consumer items, those of style 0 included.
        gallery: all annotated shop items.

    Raises:
        InputError: queries and gallery do not belong together; see `refuse_unanswerable`.
    """
    hearing = Hearing.of(results, queries, gallery)
    return decide(hearing, silencers(hearing))


def decide(hearing: Hearing, silencers: Ints) -> Outcome:
    """`judge` for results and truth that have been brought together.

    Args:
        hearing: results and truth.
        silencers: (R,) int64, see `silencers`.
    """
    candidates = np.flatnonzero(is_heard(hearing, silencers) & hearing.has_category)
    scores = hearing.results.scores
    return outcome(
        PROTOCOL, hearing, loudest(candidates, hearing.query_numbers, scores, hearing.size, _badness(hearing))
    )


def is_heard(hearing: Hearing, silencers: Ints) -> Bools:
    """(R,) bool, the boxes that may speak for the item they go to if they are of its category (S1 and S2)."""
    return (silencers < 0) & (hearing.overlaps >= MIN_IOU)


def silencers(hearing: Hearing) -> Ints:
    """The box that silences each box by S2.

    Returns:
        (R,) int64, the row of a box that is heard itself; -1 for boxes that nothing silences.
    """
    results = hearing.results
    silencer = np.full(len(results), -1, np.int64)
    first, second = hearing.same_boxes
    involved = distinct(np.concatenate([first, second]))
    # Rows with equal score and equal answer are put in order by what they hold, so that their order in the file does
    # not decide which third box is silenced.
    columns = (results.category_ids, *results.boxes_xyxy.T[::-1], -_badness(hearing), -results.scores)
    order = involved[np.lexsort([column[involved] for column in columns])]
    place = np.zeros(len(results), np.int64)
    place[order] = np.arange(len(order))
    swapped = place[first] > place[second]
    louder, quieter = np.where(swapped, second, first), np.where(swapped, first, second)
    by_place = np.argsort(place[louder], kind="stable")
    louder, quieter = louder[by_place], quieter[by_place]
    while len(louder):
        is_challenged = np.zeros(len(results), np.bool_)
        is_challenged[quieter] = True
        decided = ~is_challenged[louder]  # nothing louder is left that could silence these
        # In descending order, so that the loudest of several silencers is written last and stays.
        silencer[quieter[decided][::-1]] = louder[decided][::-1]
        open_ = (silencer[louder] < 0) & (silencer[quieter] < 0)
        louder, quieter = louder[open_], quieter[open_]
    return silencer


def _badness(hearing: Hearing) -> Ints:
    """(R,) int64, the rank of a row's right answer; 21 for rows without one."""
    answers = hearing.has_category & (hearing.overlaps >= MIN_IOU) & (hearing.hit_ranks > 0)
    return np.where(answers, hearing.hit_ranks, GALLERY_LENGTH + 1)
