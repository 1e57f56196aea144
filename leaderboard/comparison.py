"""Two rows compared on the same queries."""

from __future__ import annotations

from dataclasses import dataclass

from harness.scoring.significance import PairedTest, mcnemar_exact, paired_bootstrap
from harness.types import RANKS, InputError
from leaderboard.rows import Row


@dataclass(frozen=True)
class Comparison:
    """What separates two rows.

    Attributes:
        k: the k of Acc@k.
        num_queries: queries that both were asked.
        first_acc: Acc@k of the first row.
        second_acc: Acc@k of the second row.
        difference: second minus first.
        interval: its 95 % interval (paired bootstrap).
        test: McNemar's exact test.
        verdict: one sentence for a reader.
    """

    k: int
    num_queries: int
    first_acc: float
    second_acc: float
    difference: float
    interval: tuple[float, float]
    test: PairedTest
    verdict: str


def compare(first: Row, second: Row, k: int = 10) -> Comparison:
    """Compare two rows by a paired test on the same queries.

    Args:
        first: a row.
        second: a row of the same data, split and protocol.
        k: one of 1, 5, 10, 15, 20.

    Raises:
        InputError: the rows answer different questions, or k is another number.
    """
    if k not in RANKS:
        raise InputError(f"k: expected one of {', '.join(map(str, RANKS))}, got {k}")
    for what, one, other in (
        ("data", first.fingerprint, second.fingerprint),
        ("split", first.split, second.split),
        ("protocol", first.score.protocol, second.score.protocol),
        ("number of queries", first.score.num_queries, second.score.num_queries),
    ):
        if one != other:
            raise InputError(
                f"{first.name} and {second.name} cannot be compared: their {what} differs "
                f"({_short(one)} and {_short(other)}); score both on the same {'data' if what != 'protocol' else what}"
            )
    first_hits, second_hits = first.hits(k), second.hits(k)
    first_acc, second_acc = first.score.acc[k], second.score.acc[k]
    test = mcnemar_exact(first_hits, second_hits)
    better, worse = (second, first) if second_acc > first_acc else (first, second)
    if test.p_value < 0.05:
        verdict = f"{better.name} beats {worse.name} at Acc@{k} (p = {test.p_value:.2g})"
    else:
        verdict = f"{first.name} and {second.name} are not distinguishable at Acc@{k} (p = {test.p_value:.2g})"
    return Comparison(
        k=k,
        num_queries=first.score.num_queries,
        first_acc=first_acc,
        second_acc=second_acc,
        difference=second_acc - first_acc,
        interval=paired_bootstrap(first_hits, second_hits),
        test=test,
        verdict=verdict,
    )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 16 else text[:12] + "…"
