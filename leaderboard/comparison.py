"""Two rows compared on the same queries: at every k, slice by slice, and by what became of every query.

Every test stands alone at 5 %. Of thirty slices one or two differ by chance where nothing does: a slice says where to
look, not that something was found.

Legend: Q queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harness.scoring.comparison import Comparison, compare_at_ranks, paired_comparison
from harness.scoring.ledger import FATES
from harness.scoring.questions import Questions
from harness.scoring.significance import PairedTest, mcnemar_exact
from harness.scoring.slices import Slice, cut, parts
from harness.types import RANKS, InputError, Ints
from leaderboard.rows import Row

SMALL_SLICE = 100
"""Slices of fewer queries are marked: the 95 % interval of an accuracy in them may reach 0.1 to either side."""


@dataclass(frozen=True)
class SlicePair:
    """A part of the queries, and how two rows do on it.

    Attributes:
        group: ``category``, ``scale``, ``occlusion``, ``zoom_in``, ``viewpoint`` or ``counterparts``.
        name: which value.
        num_queries: at least 1.
        first: the first row's score there.
        second: the second row's.
        differences: second minus first, for each k of `RANKS`.
        tests: McNemar's exact test for each k, not corrected for the number of slices.
        is_small: whether it has fewer than `SMALL_SLICE` queries.
    """

    group: str
    name: str
    num_queries: int
    first: Slice
    second: Slice
    differences: Mapping[int, float]
    tests: Mapping[int, PairedTest]
    is_small: bool


@dataclass(frozen=True)
class Transitions:
    """What became of the queries in the first row, against what became of them in the second.

    Attributes:
        fates: in order of precedence, as `harness.scoring.ledger.FATES`.
        counts: queries by fate in the first row (lines) and in the second (columns); None where either row could not
            tell that fate: its queries stand under a later one.
        first_totals: of the first row; None where it could not be told.
        second_totals: of the second row.
    """

    fates: tuple[str, ...]
    counts: tuple[tuple[int | None, ...], ...]
    first_totals: Mapping[str, int | None]
    second_totals: Mapping[str, int | None]


@dataclass(frozen=True, eq=False)
class SideBySide:
    """All that two rows tell beside one another.

    Attributes:
        first, second: the rows; differences are second minus first.
        by_k: the paired comparison at each k of `RANKS`.
        slices: of every part that has a query; None where what slices are cut by was not kept.
        transitions: of the loss ledgers; None where a row has none.
        notes: what a reader has to know: what is missing and why, what differs beside the ensemble.
    """

    first: Row
    second: Row
    by_k: Mapping[int, Comparison]
    slices: tuple[SlicePair, ...] | None
    transitions: Transitions | None
    notes: tuple[str, ...]

    def only_first(self, k: int = 10) -> Ints:
        """Queries, as places in the query file's order from 0, that only the first row gets right within k."""
        return np.flatnonzero(self.first.hits(k) & ~self.second.hits(k))

    def only_second(self, k: int = 10) -> Ints:
        """Queries that only the second row gets right within k; see `only_first`."""
        return np.flatnonzero(self.second.hits(k) & ~self.first.hits(k))

    def both_right(self, k: int = 10) -> Ints:
        """Queries that both rows get right within k; see `only_first`."""
        return np.flatnonzero(self.first.hits(k) & self.second.hits(k))

    def neither_right(self, k: int = 10) -> Ints:
        """Queries that neither row gets right within k; see `only_first`."""
        return np.flatnonzero(~(self.first.hits(k) | self.second.hits(k)))

    def as_json(self, k: int = 10) -> dict[str, Any]:
        """JSON values: both rows' ids, the comparison at every k, slices, ledgers, and the queries that part them.

        Args:
            k: within which a query counts as right in ``only_first`` and ``only_second``.
        """
        return {
            "first": self.first.id,
            "second": self.second.id,
            "by_k": {str(rank): asdict(one) for rank, one in self.by_k.items()},
            "slices": None if self.slices is None else [_keys_as_text(asdict(one)) for one in self.slices],
            "transitions": None if self.transitions is None else asdict(self.transitions),
            "k": k,
            "only_first": self.only_first(k).tolist(),
            "only_second": self.only_second(k).tolist(),
            "notes": list(self.notes),
        }


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


def side_by_side(first: Row, second: Row, questions: Questions | None = None) -> SideBySide:
    """Everything that two rows tell beside one another.

    Args:
        first: a row.
        second: a row of the same data, split and protocol.
        questions: what is known of their queries, for the slices; see `leaderboard.store.Board.questions`.

    Raises:
        InputError: the rows answer different questions, or ``questions`` are not theirs.
    """
    by_k = compare_rows(first, second)
    slices = None if questions is None else _slices(first, second, questions)
    transitions = _transitions(first, second)
    return SideBySide(first, second, by_k, slices, transitions, tuple(_notes(first, second, slices, transitions)))


def _refuse_other_questions(first: Row, second: Row) -> None:
    differing = [("data", first.fingerprint, second.fingerprint), ("split", first.split, second.split)]
    if first.questions_id is not None and second.questions_id is not None:
        differing.append(("queries", first.questions_id, second.questions_id))
    for what, one, other in differing:
        if one != other:
            verb = "differ" if what == "queries" else "differs"
            raise InputError(
                f"{first.name} and {second.name} cannot be compared: their {what} {verb} "
                f"({_short(one)} and {_short(other)}); score both on the same data"
            )


def _slices(first: Row, second: Row, questions: Questions) -> tuple[SlicePair, ...]:
    for row in (first, second):
        known = row.questions_id
        if len(questions) != row.score.num_queries or (known is not None and known != questions.id):
            raise InputError(
                f"{row.name}: is a score of {row.score.num_queries:,} queries ({_short(known or 'not named')}), but "
                f"{len(questions):,} others were given ({_short(questions.id)}); give those of the row"
            )
    chosen = [part for part in parts(questions) if bool(part[2].any())]
    cuts = zip(chosen, cut(questions, first.score.hit_ranks), cut(questions, second.score.hit_ranks), strict=True)
    hits = {k: (first.hits(k), second.hits(k)) for k in RANKS}
    return tuple(
        SlicePair(
            group=group,
            name=name,
            num_queries=one.num_queries,
            first=one,
            second=other,
            differences={k: other.acc[k] - one.acc[k] for k in RANKS},
            tests={k: mcnemar_exact(before[mask], after[mask]) for k, (before, after) in hits.items()},
            is_small=one.num_queries < SMALL_SLICE,
        )
        for (group, name, mask), one, other in cuts
    )


def _transitions(first: Row, second: Row) -> Transitions | None:
    if first.losses is None or second.losses is None:
        return None
    size = len(FATES)
    codes = first.losses.fates.astype(np.int64) * size + second.losses.fates
    table = np.bincount(codes, minlength=size * size).reshape(size, size).tolist()
    told = [[fate not in row.untold for fate in FATES] for row in (first.losses, second.losses)]
    return Transitions(
        fates=tuple(map(str, FATES)),
        counts=tuple(
            tuple(count if told[0][line] and told[1][column] else None for column, count in enumerate(counts))
            for line, counts in enumerate(table)
        ),
        first_totals=first.losses.totals(),
        second_totals=second.losses.totals(),
    )


def beware(first: Row, second: Row) -> list[str]:
    """Why two rows that can be compared are not ranked together, a sentence each."""
    notes = [f"{row.name} does not count: {reason}." for row in (first, second) for reason in _reasons(row)]
    if first.boxes != second.boxes:
        notes.append(
            f"{first.name} has {first.boxes} boxes, {second.name} {second.boxes} ones; the queries are the same, the "
            "rows are never ranked together."
        )
    return notes


def _notes(first: Row, second: Row, slices: Sequence[SlicePair] | None, transitions: Transitions | None) -> list[str]:
    notes = beware(first, second)
    if slices is None:
        notes.append("What the queries are cut by was not kept with these rows; score them again for slices.")
    elif any(one.is_small for one in slices):
        notes.append(f"Slices of fewer than {SMALL_SLICE} queries are marked: their figures say little.")
    if slices:
        notes.append(f"{len(slices)} slices are each tested alone: of 20 that differ by nothing, up to one is found.")
    if transitions is None:
        without = [row.name for row in (first, second) if row.losses is None]
        notes.append(f"Without a loss ledger: {', '.join(without)}; score again for one.")
    for row in (first, second):
        if row.losses is not None and row.losses.untold:
            notes.append(
                f"{row.name} could not tell {', '.join(row.losses.untold)}; those queries stand under a later outcome."
            )
    return notes


def _reasons(row: Row) -> list[str]:
    return ([row.contamination] if row.contamination is not None else []) + (["class hedging"] if row.hedged else [])


def _keys_as_text(value: Any) -> Any:
    """The same JSON values with the k of mappings as text, which JSON wants."""
    if isinstance(value, Mapping):
        return {str(key): _keys_as_text(one) for key, one in value.items()}
    return value


def _short(text: str) -> str:
    return text if len(text) <= 16 else text[:12] + "…"
