"""Two rows compared on the same queries."""

from __future__ import annotations

from harness.scoring.comparison import Comparison, compare_at_ranks, paired_comparison
from harness.types import InputError
from leaderboard.rows import Row


def compare(first: Row, second: Row, k: int = 10) -> Comparison:
    """Compare two rows by a paired test on the same queries.

    Args:
        first: a row.
        second: a row of the same data, split and protocol.
        k: one of 1, 5, 10, 15, 20.

    Raises:
        InputError: the rows answer different questions, or k is another number.
    """
    _refuse_other_questions(first, second)
    return paired_comparison(first.score, second.score, k, (first.name, second.name), first.rendered)


def compare_rows(first: Row, second: Row) -> dict[int, Comparison]:
    """`compare` at every k of the challenge.

    Raises:
        InputError: the rows answer different questions.
    """
    _refuse_other_questions(first, second)
    return compare_at_ranks(first.score, second.score, (first.name, second.name), first.rendered)


def _refuse_other_questions(first: Row, second: Row) -> None:
    for what, one, other in (("data", first.fingerprint, second.fingerprint), ("split", first.split, second.split)):
        if one != other:
            raise InputError(
                f"{first.name} and {second.name} cannot be compared: their {what} differs "
                f"({_short(one)} and {_short(other)}); score both on the same data"
            )


def _short(text: str) -> str:
    return text if len(text) <= 16 else text[:12] + "…"
