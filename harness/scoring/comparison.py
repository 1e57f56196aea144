"""Two systems compared on the same queries: what separates them, and whether that may be noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.scoring.hearing import Hearing
from harness.scoring.official import decide
from harness.scoring.plausibility import doubts
from harness.scoring.results import Results
from harness.scoring.significance import PairedTest, mcnemar_exact, paired_bootstrap, queries_needed
from harness.scoring.truth import read_truth
from harness.types import RANKS, InputError, Score

ALPHA = 0.05
"""Level of the test: a smaller p value counts as a difference."""

POWER = 0.8
"""How surely a difference is to be found where it is said how many queries that takes."""


@dataclass(frozen=True)
class Comparison:
    """What separates two systems at one k.

    Attributes:
        k: the k of Acc@k.
        num_queries: queries that both were asked.
        first_acc: Acc@k of the first.
        second_acc: Acc@k of the second.
        difference: second minus first.
        interval: its 95 % interval (paired bootstrap).
        test: McNemar's exact test.
        queries_needed: how many queries such a paired test takes to find this difference in 4 of 5 tries; None where
            both get the same number of queries right.
        rendered: whether the queries are of rendered photos, not DeepFashion2's.
        verdict: one sentence for a reader.
    """

    k: int
    num_queries: int
    first_acc: float
    second_acc: float
    difference: float
    interval: tuple[float, float]
    test: PairedTest
    queries_needed: int | None
    rendered: bool
    verdict: str


def paired_comparison(
    first: Score, second: Score, k: int, names: tuple[str, str], rendered: bool = False
) -> Comparison:
    """Compare two scores by a paired test on the same queries.

    Args:
        first: a score.
        second: a score by the same protocol of the same queries, in the same order.
        k: one of `RANKS`.
        names: what to call the two in the verdict.
        rendered: whether the queries are of rendered photos; the verdict says so.

    Raises:
        InputError: k is another number, or protocol or number of queries differ.
    """
    if k not in RANKS:
        raise InputError(f"k: expected one of {', '.join(map(str, RANKS))}, got {k}")
    for what, one, other in (
        ("protocol", first.protocol, second.protocol),
        ("number of queries", first.num_queries, second.num_queries),
    ):
        if one != other:
            raise InputError(
                f"{names[0]} and {names[1]} cannot be compared: their {what} differs ({one} and {other}); "
                f"score both on the same {'data' if what != 'protocol' else what}"
            )
    first_hits, second_hits = ((one.hit_ranks > 0) & (one.hit_ranks <= k) for one in (first, second))
    test = mcnemar_exact(first_hits, second_hits)
    needed = queries_needed(first_hits, second_hits, POWER, ALPHA)
    difference = second.acc[k] - first.acc[k]
    return Comparison(
        k=k,
        num_queries=first.num_queries,
        first_acc=first.acc[k],
        second_acc=second.acc[k],
        difference=difference,
        interval=paired_bootstrap(first_hits, second_hits),
        test=test,
        queries_needed=needed,
        rendered=rendered,
        verdict=("RENDERED data: " if rendered else "")
        + _verdict(names, k, difference, test, needed, first.num_queries),
    )


def compare_at_ranks(
    first: Score, second: Score, names: tuple[str, str], rendered: bool = False
) -> dict[int, Comparison]:
    """`paired_comparison` at every k of `RANKS`. Each test stands alone: five of them find a difference by chance more
    often than one does, so choose the k before looking."""
    return {k: paired_comparison(first, second, k, names, rendered) for k in RANKS}


def compare_files(first: Path, second: Path, queries: Path, gallery: Path) -> tuple[dict[int, Comparison], list[str]]:
    """Score two challenge result files by the official protocol and compare them query by query.

    Args:
        first: a challenge JSON.
        second: another.
        queries: ``val_query.json``.
        gallery: ``val_gallery.json``.

    Returns:
        The comparison at every k of `RANKS`, and the signs that one of the files is wrong.

    Raises:
        InputError: a file cannot be read or a row is wrong; the message names file, row and field.
    """
    names = (first.name, second.name) if first.name != second.name else (str(first), str(second))
    truth = read_truth(queries, gallery)
    scores, warnings = [], []
    for file in (first, second):
        hearing = Hearing.of(Results.from_json(file), *truth)
        scores.append(decide(hearing).score)
        warnings += [f"{file}: {doubt}" for doubt in doubts(hearing)]
    return compare_at_ranks(scores[0], scores[1], names, truth[0].is_rendered), warnings


def about(count: int) -> int:
    """A number of queries to two digits: no sample tells more of how many are needed."""
    return round(count, 2 - len(str(count)))


def _verdict(
    names: tuple[str, str], k: int, difference: float, test: PairedTest, needed: int | None, num_queries: int
) -> str:
    if needed is None:
        parted = test.only_first + test.only_second
        return (
            f"{names[0]} and {names[1]} are not distinguishable from noise at Acc@{k}: each gets "
            + (f"{test.only_first:,} queries right that the other misses" if parted else "the same queries right")
            + f", of {num_queries:,}"
        )
    if test.p_value < ALPHA:
        better, worse = names[::-1] if difference > 0 else names
        return (
            f"{better} beats {worse} at Acc@{k} (p = {test.p_value:.2g}): the difference is distinguishable from "
            f"noise on these {num_queries:,} queries; about {about(needed):,} would show it in 4 of 5 tries"
        )
    return (
        f"{names[0]} and {names[1]} are not distinguishable from noise at Acc@{k} (p = {test.p_value:.2g}) on these "
        f"{num_queries:,} queries; a difference of {abs(difference):.4f} would take about {about(needed):,} to show in "
        "4 of 5 tries"
    )
