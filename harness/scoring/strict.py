"""A stricter score than the official one: what it pays for is finding the garment, not writing the file cleverly.

The official rules hold but for three things:

S1. A box speaks only for an item that it overlaps with an IoU of at least 0.5. It goes to the item that it overlaps
    most (the first of equals), as officially, but a box that overlaps nothing speaks for nobody, and a tiny one of high
    score displaces none.
S2. One box speaks for an item, whatever its category: of all that may by S1, the one of the highest score. If it has
    another category than the item, the query is missed. So a garment handed in under several categories has the
    category of the highest score alone, however its boxes are moved about, and a duplicate counts once.
S3. Of boxes of equal score the one with the worst answer speaks: another category before no right answer, that before a
    right one at a late rank, that before one at an early rank. So equal scores never help, and the order of the rows
    never changes the score.

Repeated gallery entries keep their places, as officially.

Legend: R result rows, Q queries.
"""

from __future__ import annotations

import numpy as np

from harness.scoring.hearing import MIN_IOU, Hearing
from harness.scoring.official import Outcome, loudest, outcome
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
    return decide(hearing, speakers(hearing))


def decide(hearing: Hearing, speakers: Ints) -> Outcome:
    """`judge` for results and truth that have been brought together.

    Args:
        hearing: results and truth.
        speakers: (Q,) int64, see `speakers`.
    """
    has_category = np.append(hearing.has_category, False)  # row -1, nobody, is the place after the last row
    return outcome(PROTOCOL, hearing, np.where(has_category[speakers], speakers, -1))


def speakers(hearing: Hearing) -> Ints:
    """(Q,) int64, the result row that speaks for each query, of whatever category; -1 where none does."""
    candidates = np.flatnonzero(is_heard(hearing))
    return loudest(candidates, hearing.query_numbers, hearing.results.scores, hearing.size, _badness(hearing))


def is_heard(hearing: Hearing) -> Bools:
    """(R,) bool, the boxes that go to a query near enough to speak for it (S1)."""
    return (hearing.query_numbers >= 0) & (hearing.overlaps >= MIN_IOU)


def _badness(hearing: Hearing) -> Ints:
    """(R,) int64, the rank of a row's right answer; 21 for rows without one, 22 for those of another category."""
    answers = np.where(hearing.hit_ranks > 0, hearing.hit_ranks, GALLERY_LENGTH + 1)
    return np.where(hearing.has_category, answers, GALLERY_LENGTH + 2)
