"""Rows grouped by what they answer, those of one result folded, ranked, and told apart or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.scoring.significance import mcnemar_exact
from leaderboard import telling_apart
from leaderboard.costs import PARTS, hardware_label, part_of, seconds_of_parts
from leaderboard.folding import fold, variants
from leaderboard.rows import Row


@dataclass(frozen=True)
class StageBar:
    """A piece of a row's bar, one of `leaderboard.costs.PARTS`: share of the longest total in percent, colour."""

    stage: str
    seconds: str
    share: float
    colour: int


@dataclass(frozen=True)
class Entry:
    """A result as it is shown: a row, and those that are folded into it.

    Attributes:
        row: the row to show.
        runs: all rows of this result, ``row`` first, then newest first.
        also_known_as: other names that these rows have.
        variant: what tells it from the section's other entries of the same spec; empty where there is none.
        rank: 1 for the best; equals in Acc@10 share one. None where it does not count.
        low, high: the 95 % interval of Acc@10.
        tied_with: places in `Section.ranked` of those that it cannot be told from (McNemar's exact p >= 0.05, each
            pair by itself); None where that was not asked, or where it does not count.
        tied_words: the same for a reader: ``3 others: #2–#4``, ``412 others: #7 … #590``,
            ``no other``; empty for None.
        versus_best: ``best``, ``worse``, ``not distinguishable`` or ``not ranked``.
        versus_best_note: the comparison with the best in a sentence.
        total_seconds: that making everything took, cold; None where no stage was timed.
        seconds_per_1000: the same for a thousand queries.
        total: ``total_seconds`` for a reader.
        hardware_label: the machine in a few words; costs of different machines do not compare.
        bars: the parts that its stages belong to, in the order of the flow.
        reasons: why it does not count.
    """

    row: Row
    runs: tuple[Row, ...]
    also_known_as: tuple[str, ...]
    variant: str
    rank: int | None
    low: float
    high: float
    tied_with: tuple[int, ...] | None
    tied_words: str
    versus_best: str
    versus_best_note: str
    total_seconds: float | None
    seconds_per_1000: float | None
    total: str
    hardware_label: str
    bars: tuple[StageBar, ...]
    reasons: tuple[str, ...]

    @property
    def num_runs(self) -> int:
        """Rows that this result has."""
        return len(self.runs)


@dataclass(frozen=True)
class Section:
    """The results of one data set, split and protocol, on detected or on ground-truth boxes.

    Attributes:
        row: any one of its rows, for what they share.
        ranked: results that count, best first.
        apart: contaminated and hedged results, best first.
        stages: the parts of `leaderboard.costs.PARTS` that occur, with their colours.
        axis: lower and upper end of the interval plots.
    """

    row: Row
    ranked: tuple[Entry, ...]
    apart: tuple[Entry, ...]
    stages: tuple[tuple[str, int], ...]
    axis: tuple[float, float]

    def place(self, acc: float) -> float:
        """Where an accuracy stands on the axis, in percent."""
        low, high = self.axis
        return round(100 * (acc - low) / (high - low), 2)


def sections(rows: Sequence[Row], *, tell_apart: bool = True) -> list[Section]:
    """Group rows by `Row.group`, photographs before rendered data, and rank the results of each group by Acc@10.

    Args:
        rows: in any order.
        tell_apart: test every pair of ranked results of a section, for `Entry.tied_with`; the tests are not corrected
            for their number, see `leaderboard.telling_apart`.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        # Row.group's queries are those of the data; rows that disagree on their number cannot be compared.
        groups.setdefault((row.rendered, *row.group, row.score.num_queries), []).append(row)
    return [_section(asked, tell_apart) for key in sorted(groups) for asked in _by_questions(groups[key])]


def _by_questions(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that name other queries apart, as they cannot be compared; those that name none stand with the rest, unless
    it could be either."""
    named: dict[str, list[Row]] = {}
    for row in rows:
        named.setdefault(row.questions_id or "", []).append(row)
    if len(named.keys() - {""}) < 2:
        return [list(rows)]
    return [named[questions_id] for questions_id in sorted(named)]


def _section(rows: list[Row], tell_apart: bool) -> Section:
    ids = {id(row): row.id for row in rows}

    def order(runs: tuple[Row, ...]) -> tuple[Any, ...]:
        row = runs[0]
        return -row.score.acc[10], -row.score.acc[1], row.created, ids[id(row)]

    folded = sorted(fold(rows), key=order)
    shown = [runs[0] for runs in folded]
    parts = {part_of(stage.stage) for row in shown for stage in row.stages}
    longest = max((row.total_seconds or 0.0 for row in shown), default=0.0)
    counting = [row for row in shown if row.counts]
    best = counting[0] if counting else None
    told = variants(shown)
    ranks = _ranks(counting)
    entries = [_entry(runs, told.get(id(runs[0]), ""), ranks.get(id(runs[0])), best, longest) for runs in folded]
    low, high = min(entry.low for entry in entries), max(entry.high for entry in entries)
    margin = max((high - low) * 0.06, 0.005)
    ranked = tuple(entry for entry in entries if entry.rank is not None)
    return Section(
        row=shown[0],
        ranked=_with_ties(ranked) if tell_apart and ranked else ranked,
        apart=tuple(entry for entry in entries if entry.rank is None),
        stages=tuple((part, colour) for colour, part in enumerate(PARTS) if part in parts),
        axis=(max(0.0, low - margin), min(1.0, high + margin)),
    )


def _ranks(counting: Sequence[Row]) -> dict[int, int]:
    """id() of rows that count, best first -> rank."""
    ranks: dict[int, int] = {}
    for place, row in enumerate(counting):
        before = counting[place - 1] if place else None
        tied = before is not None and before.score.acc[10] == row.score.acc[10]
        ranks[id(row)] = ranks[id(before)] if tied else place + 1
    return ranks


def _entry(
    runs: tuple[Row, ...],
    variant: str,
    rank: int | None,
    best: Row | None,
    longest: float,
) -> Entry:
    row = runs[0]
    low, high = row.interval()
    seconds = row.total_seconds
    versus, note = _versus_best(row, best)
    reasons = [] if row.contamination is None else [f"Contaminated: {row.contamination}"]
    if row.hedged:
        reasons.append("Class hedging: the same boxes stand under many categories")
    return Entry(
        row=row,
        runs=runs,
        also_known_as=tuple(dict.fromkeys(other.name for other in runs if other.name != row.name)),
        variant=variant,
        rank=rank,
        low=low,
        high=high,
        tied_with=None,
        tied_words="",
        versus_best=versus,
        versus_best_note=note,
        total_seconds=seconds,
        seconds_per_1000=None if seconds is None else 1000 * seconds / row.score.num_queries,
        total="–" if seconds is None else duration(seconds),
        hardware_label=hardware_label(row.hardware),
        bars=_bars(row, longest),
        reasons=tuple(reasons),
    )


def _bars(row: Row, longest: float) -> tuple[StageBar, ...]:
    return tuple(
        StageBar(part, duration(took), round(100 * took / longest, 2) if longest else 0.0, PARTS.index(part))
        for part, took in seconds_of_parts(row).items()
    )


def _with_ties(ranked: Sequence[Entry]) -> tuple[Entry, ...]:
    hits = np.stack([entry.row.hits() for entry in ranked])
    ranks = [entry.rank or 0 for entry in ranked]
    found = telling_apart.neighbours(telling_apart.tied(hits))
    return tuple(
        replace(entry, tied_with=others, tied_words=telling_apart.in_words(others, ranks))
        for entry, others in zip(ranked, found, strict=True)
    )


def _versus_best(row: Row, best: Row | None) -> tuple[str, str]:
    """The paired comparison with the best row that counts, in a few words and in a sentence."""
    if not row.counts or best is None:
        return "not ranked", "Not compared, because it does not count."
    if row is best:
        return "best", "The highest Acc@10 of these."
    test = mcnemar_exact(best.hits(), row.hits())
    note = (
        f"Acc@10 {row.score.acc[10] - best.score.acc[10]:+.4f} against {best.name}; "
        f"only this one right: {test.only_second:,}, only the best: {test.only_first:,}; "
        f"McNemar p = {test.p_value:.2g}"
    )
    return ("worse" if test.p_value < telling_apart.ALPHA else "not distinguishable"), note


def duration(seconds: float) -> str:
    """Seconds for a reader: ``0.42 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 9.95:
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
