"""A row's page: its accuracy, where it fails, what it costs, what made it, and how to run it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeGuard

from harness.scoring.ledger import MEANINGS
from harness.scoring.questions import Questions
from harness.scoring.slices import Slice, cut
from harness.types import RANKS
from leaderboard.costs import PARTS, part_of
from leaderboard.pages.links import INDEX, gallery_path, row_path
from leaderboard.pages.payload import remark
from leaderboard.pages.rendering import render
from leaderboard.rows import Losses, Row
from leaderboard.standings import Entry, Section, duration
from leaderboard.timing_runs import BUSY, TimingRun

TIES_SHOWN = 20
"""Of the rows that a row cannot be told from: the nearest in rank."""

SMALL_SLICE = 30
"""Queries below which a slice is marked as small."""

_TOO_LARGE = 2.0**63
"""Of numbers of a benchmark; there is nothing of that many to measure."""

_GROUPS: Mapping[str, str] = {
    "category": "Category",
    "scale": "Scale of the garment",
    "occlusion": "Occlusion",
    "zoom_in": "Zoom-in",
    "viewpoint": "Viewpoint",
    "counterparts": "Matching shop items",
}


@dataclass(frozen=True)
class Accuracy:
    """Acc@k with its interval."""

    k: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Fate:
    """What became of some queries; ``count`` and ``share`` are None where that could not be told."""

    name: str
    meaning: str
    count: int | None
    share: float | None
    colour: int


@dataclass(frozen=True)
class StageLine:
    """A stage of the bar and of its table; ``share`` in percent of the row's own total."""

    stage: str
    share: float
    colour: int
    cold: str
    run: str
    from_store: str
    count: str
    each: str


def row_page(
    entry: Entry,
    section: Section,
    *,
    questions: Questions | None = None,
    timings: Sequence[TimingRun] = (),
    has_gallery: bool = False,
    compared_path: str | None = None,
) -> str:
    """The page of one row.

    Args:
        entry: the row as its section shows it.
        section: the section.
        questions: what its queries are cut by; None where the board does not have them.
        timings: the benchmarks that belong to it.
        has_gallery: whether there is a gallery to link to.
        compared_path: the page that compares it with the best of its section, seen from the board's folder.

    Returns:
        HTML that needs no other file but those that its links name, which are seen from the folder ``rows``.
    """
    row = entry.row
    accuracies = [Accuracy(k, row.score.acc[k], *row.interval(k)) for k in RANKS]
    slices = [] if questions is None or len(questions) != row.score.num_queries else cut(questions, row.score.hit_ranks)
    tied = entry.tied_with or ()
    place = next((n for n, other in enumerate(section.ranked) if other is entry), None)
    nearest = sorted(sorted(tied, key=lambda other: abs(other - (place or 0)))[:TIES_SHOWN])
    return render(
        "row.html",
        styles=("row.css",),
        scripts=("copy.js", "row.js"),
        title=row.name,
        entry=entry,
        row=row,
        section=section,
        remark=remark(entry),
        accuracies=accuracies,
        on_accuracy_axis=_axis(accuracies),
        tied=[section.ranked[other] for other in nearest],
        num_tied=len(tied),
        slices=[(_GROUPS.get(name, name), list(found)) for name, found in groupby(slices, key=_group_of)],
        on_unit_axis=lambda value: round(100 * value, 2),
        small_slice=SMALL_SLICE,
        fates=[] if row.losses is None else _fates(row.losses),
        stages=_stages(row),
        timings=[
            (run, lines, _bench_columns(lines), _end_to_end(run), _busy(run))
            for run, lines in (
                (run, _bench_lines(run)) for run in sorted(timings, key=lambda run: run.created, reverse=True)
            )
        ],
        facts=facts(row.hardware),
        gallery_path=gallery_path(row) if has_gallery else None,
        compared_path=compared_path,
        missing=_missing(row, bool(slices)),
        row_path=row_path,
        index=INDEX,
    )


def facts(values: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Nested JSON values as names and texts, for a list of definitions."""
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += facts(value, f"{before}{name} ")
        else:
            shown = value if isinstance(value, list | tuple) else [value]
            text = ", ".join(str(one) for one in shown if one is not None)
            found.append((f"{before}{name}".replace("_", " "), text or "–"))
    return found


def _group_of(one: Slice) -> str:
    return one.group


def _axis(accuracies: Sequence[Accuracy]) -> Any:
    """A function from an accuracy to its place in percent, for whiskers that fill their column."""
    low, high = min(one.low for one in accuracies), max(one.high for one in accuracies)
    margin = max((high - low) * 0.06, 0.005)
    start, end = max(0.0, low - margin), min(1.0, high + margin)
    return lambda value: round(100 * (value - start) / (end - start), 2)


def _fates(losses: Losses) -> list[Fate]:
    total = len(losses.fates)
    return [
        Fate(name, MEANINGS.get(name, ""), count, None if count is None else 100 * count / total, number)
        for number, (name, count) in enumerate(losses.totals().items())
    ]


def _stages(row: Row) -> list[StageLine]:
    total = row.total_seconds or 0.0
    return [
        StageLine(
            stage=stage.stage,
            share=round(100 * stage.seconds / total, 2) if total else 0.0,
            colour=PARTS.index(part_of(stage.stage)),
            cold=duration(stage.seconds),
            run="–" if stage.run_seconds is None else duration(stage.run_seconds),
            from_store={None: "–", True: "yes", False: "no"}[stage.from_store]
            + (f", made on {stage.made_on}" if stage.made_on else ""),
            count="–" if stage.count is None else f"{stage.count:,} {stage.unit}".rstrip(),
            each=_each(stage.seconds, stage.count),
        )
        for stage in row.stages
    ]


def _each(seconds: float, count: int | None) -> str:
    return "–" if not count else _span(seconds / count)


def _span(seconds: float) -> str:
    """Seconds of one thing, in the unit that suits them."""
    if seconds >= 60:
        return duration(seconds)
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 0.995 or unit == "µs":
            return f"{seconds * factor:.3g} {unit}"
    raise AssertionError


BENCH_COLUMNS: Mapping[str, str] = {
    "median": "Median, one",
    "p95": "p95",
    "p99": "p99",
    "per_second": "A second",
    "baseline": "Baseline",
    "count": "At once",
    "host": "Host memory",
    "gpu": "GPU memory",
    "energy": "Energy",
    "batch": "Batch",
    "precision": "Precision",
}
"""Of a benchmark's table; those that hold nothing are left out."""

NOTHING = "–"


def _bench_columns(lines: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {name: title for name, title in BENCH_COLUMNS.items() if any(one[name] != NOTHING for one in lines)}


def _bench_lines(run: TimingRun) -> list[dict[str, str]]:
    """One dictionary of texts a stage; a dash for what was not measured. Seconds are of one thing, not of all."""
    lines = []
    for stage in run.result["stages"]:
        if not isinstance(stage, Mapping):
            continue
        lines.append(
            {
                "stage": str(stage.get("stage", "–")),
                "count": _number(stage.get("count"), "{:,.0f}", str(stage.get("unit") or "")),
                **{name: _of_one(stage.get(f"{name}_s"), stage.get("count")) for name in ("median", "p95", "p99")},
                "per_second": _rate(stage.get("per_second")),
                "host": _number(stage.get("peak_host_gib"), "{:.2f}", "GiB"),
                "gpu": _number(stage.get("peak_gpu_gib"), "{:.2f}", "GiB"),
                "energy": _number(stage.get("energy_j"), "{:,.1f}", "J"),
                "batch": _plain(stage.get("batch_size")),
                "precision": _plain(stage.get("precision")),
                "baseline": _baseline(stage.get("baseline")),
            }
        )
    return lines


def _plain(value: Any) -> str:
    return "–" if value is None else str(value)


def _is_number(value: Any) -> TypeGuard[float]:
    """Whether it can be shown as one; a benchmark of another team may hold any JSON value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _TOO_LARGE


def _seconds(value: Any) -> str:
    return _span(float(value)) if _is_number(value) else "–"


def _of_one(value: Any, count: Any) -> str:
    return _seconds(value / count) if _is_number(value) and _is_number(count) and count > 0 else _seconds(value)


def _rate(value: Any) -> str:
    if not _is_number(value):
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _number(value: Any, form: str, unit: str = "") -> str:
    return f"{form.format(value)} {unit}".rstrip() if _is_number(value) else "–"


def _baseline(value: Any) -> str:
    """``faiss: 20.9 ms, 1.7 times as long``; what the benchmark says of it where it says something else."""
    if not isinstance(value, Mapping):
        return _plain(value)
    name, ratio = value.get("stage") or value.get("name"), value.get("ratio")
    parts = [_seconds(value["median_s"])] if "median_s" in value else []
    if _is_number(ratio):
        parts.append(f"takes {ratio:.3g} times as long")
    if not parts:
        parts = [
            f"{key.replace('_', ' ')} {one}" for key, one in value.items() if isinstance(one, str) or _is_number(one)
        ]
    return f"{name}: {', '.join(parts)}" if name else ", ".join(parts) or "–"


def _busy(run: TimingRun) -> str:
    """What else the machine did, where that was much; empty otherwise."""
    load = run.result.get("load_per_core")
    if not _is_number(load) or load < BUSY:
        return ""
    return f"The machine was busy when this began: {load:.1f} processes wanted each of its cores."


def _end_to_end(run: TimingRun) -> list[tuple[str, str]]:
    """The seconds of all stages together, cold and warm."""
    whole = run.result.get("end_to_end")
    if not isinstance(whole, Mapping):
        return []
    return [
        (key.removesuffix("_s").replace("_", " "), _span(float(value)))
        for key, value in whole.items()
        if key.endswith("_s") and _is_number(value)
    ]


def _missing(row: Row, has_slices: bool) -> list[str]:
    """What the row does not tell; rows of earlier versions lack all of it."""
    parts = []
    if row.losses is None:
        parts.append("what became of every query")
    if not has_slices:
        parts.append("which query was which, and so no slices")
    if row.command is None:
        parts.append("the command that made it")
    if not row.stages:
        parts.append("how long it took")
    return parts
