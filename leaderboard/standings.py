"""Rows grouped by what they answer, ranked, and compared with the best of their group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leaderboard.comparison import compare
from leaderboard.rows import Row

NUM_STAGE_COLOURS = 8


@dataclass(frozen=True)
class StageBar:
    """One stage's piece of a row's bar: its share of the longest total in percent, and its colour."""

    stage: str
    seconds: str
    share: float
    colour: int


@dataclass(frozen=True)
class Entry:
    """A row as it is shown."""

    row: Row
    rank: int | None
    low: float
    high: float
    versus_best: str
    versus_best_note: str
    total_seconds: float | None
    total: str
    bars: tuple[StageBar, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """The rows of one data set, split and protocol, on detected or on ground-truth boxes.

    Attributes:
        rows: any one of its rows, for what they share.
        ranked: rows that count, best first.
        apart: contaminated and hedged rows, best first.
        stages: the stages that occur, with their colours.
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


def sections(rows: Sequence[Row]) -> list[Section]:
    """Group rows by `Row.group`, photographs before rendered data, and rank each group by Acc@10."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.rendered, *row.group), []).append(row)
    return [_section(groups[key]) for key in sorted(groups)]


def _section(rows: list[Row]) -> Section:
    rows = sorted(rows, key=lambda row: (-row.score.acc[10], -row.score.acc[1], row.created, row.id))
    stages = list(dict.fromkeys(stage for row in rows for stage in row.stage_seconds))
    colours = {stage: number % NUM_STAGE_COLOURS for number, stage in enumerate(stages)}
    longest = max((sum(row.stage_seconds.values()) for row in rows), default=0.0)
    counting = [row for row in rows if row.counts]
    intervals = [row.interval() for row in rows]
    low, high = min(low for low, _ in intervals), max(high for _, high in intervals)
    margin = max((high - low) * 0.06, 0.005)
    entries = [_entry(row, counting, colours, longest) for row in rows]
    return Section(
        row=rows[0],
        ranked=tuple(entry for entry in entries if entry.row.counts),
        apart=tuple(entry for entry in entries if not entry.row.counts),
        stages=tuple(colours.items()),
        axis=(max(0.0, low - margin), min(1.0, high + margin)),
    )


def _entry(row: Row, counting: list[Row], colours: dict[str, int], longest: float) -> Entry:
    low, high = row.interval()
    seconds = row.stage_seconds
    versus, note = _versus_best(row, counting)
    reasons = [] if row.contamination is None else [f"Contaminated: {row.contamination}"]
    if row.hedged:
        reasons.append("Class hedging: the same boxes stand under many categories")
    return Entry(
        row=row,
        rank=1 + sum(other.score.acc[10] > row.score.acc[10] for other in counting) if row.counts else None,
        low=low,
        high=high,
        versus_best=versus,
        versus_best_note=note,
        total_seconds=sum(seconds.values()) if seconds else None,
        total=duration(sum(seconds.values())) if seconds else "–",
        bars=tuple(
            StageBar(stage, duration(value), round(100 * value / longest, 2) if longest else 0.0, colours[stage])
            for stage, value in seconds.items()
        ),
        reasons=tuple(reasons),
    )


def _versus_best(row: Row, counting: list[Row]) -> tuple[str, str]:
    """The paired comparison with the best row that counts, in a few words and in a sentence."""
    if not row.counts or not counting:
        return "not ranked", "Not compared, because it does not count."
    if row is counting[0]:
        return "best", "The highest Acc@10 of these."
    result = compare(counting[0], row)
    low, high = result.interval
    note = (
        f"Acc@10 {result.difference:+.4f} against {counting[0].name}, 95 % interval {low:+.4f} to {high:+.4f}; "
        f"only this one right: {result.test.only_second}, only the best: {result.test.only_first}; "
        f"McNemar p = {result.test.p_value:.2g}"
    )
    return ("worse" if result.test.p_value < 0.05 else "not distinguishable"), note


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
