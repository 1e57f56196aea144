"""The page that compares two rows query by query: what separates them, where, and what made them differ."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.scoring.comparison import ALPHA, Comparison, about
from harness.scoring.ledger import Fate
from harness.scoring.questions import Questions
from harness.scoring.significance import paired_bootstrap
from harness.scoring.slices import parts
from harness.types import RANKS
from leaderboard.comparison import SMALL_SLICE, SideBySide, Transitions, side_by_side
from leaderboard.costs import UNKNOWN_HARDWARE, hardware_label
from leaderboard.pages.links import INDEX, gallery_path, row_path
from leaderboard.pages.rendering import render
from leaderboard.rows import Row

K = 10
"""Of Acc@k in the verdict, the slices and the counts: that of the challenge."""

ON_SCALE = 20
"""Queries from which on a slice's interval must fit on the scale; those of fewer would stretch it for nothing."""

MAX_SHORT = 24
"""Longer values of the provenance are cut where they are addresses."""


@dataclass(frozen=True)
class Axis:
    """A scale of differences, 0 in the middle.

    Attributes:
        end: the difference at its right end.
    """

    end: float

    @classmethod
    def over(cls, bounds: Collection[float]) -> Axis:
        """The shortest scale of whole hundredths that holds all of these."""
        largest = max((abs(bound) for bound in bounds), default=0.0)
        return cls(max(0.01, float(np.ceil(largest * 100 - 1e-9)) / 100))

    def place(self, difference: float) -> float:
        """Where a difference stands, in percent from the left; what is outside stands at the end."""
        return round(50 + 50 * min(1.0, max(-1.0, difference / self.end)), 2)


@dataclass(frozen=True)
class Paired:
    """A paired difference as one line of a plot.

    Attributes:
        group: what the line belongs to: ``Acc`` or a group of slices.
        name: which.
        num_queries: that both were asked.
        first_acc, second_acc: accuracies in [0, 1].
        difference: second minus first.
        interval: its 95 % interval.
        only_first, only_second: queries that one alone gets right.
        p_value: of McNemar's exact test.
        needed: queries to show the difference in 4 of 5 tries, to two digits; None where there is none, or not told.
        is_small: whether it is of so few queries that it says little.
    """

    group: str
    name: str
    num_queries: int
    first_acc: float
    second_acc: float
    difference: float
    interval: tuple[float, float]
    only_first: int
    only_second: int
    p_value: float
    needed: int | None = None
    is_small: bool = False

    @property
    def better(self) -> str:
        """``first`` or ``second`` where the difference is distinguishable from noise, else ``neither``."""
        if self.p_value >= ALPHA or self.difference == 0:
            return "neither"
        return "second" if self.difference > 0 else "first"


@dataclass(frozen=True)
class Fact:
    """One thing that made the rows, of both."""

    name: str
    first: str
    second: str

    @property
    def differs(self) -> bool:
        """Whether the rows differ in it."""
        return self.first != self.second


def comparison_page(
    first: Row, second: Row, questions: Questions | None, *, galleries: Collection[str] = (), in_site: bool = True
) -> str:
    """The page's HTML; differences in it are second minus first.

    Args:
        first: a row.
        second: a row of the same data, split and protocol.
        questions: what is known of their queries, which slices are cut by; None where nobody knows.
        galleries: ids of rows that have a gallery.
        in_site: whether the page lies in the folder of a board's pages, so that it can link to them.

    Raises:
        InputError: the rows answer different questions.
    """
    found = side_by_side(first, second, questions)
    ranks = [_of_comparison(found.by_k[k]) for k in RANKS]
    slices = [] if questions is None else _slices(found, questions)
    telling = [one for one in slices if one.num_queries >= ON_SCALE] or slices
    return render(
        "comparison.html",
        styles=("comparison.css",),
        title=f"{first.name} against {second.name}",
        first=first,
        second=second,
        verdict=found.by_k[K].verdict.removeprefix("RENDERED data: "),
        better=ranks[RANKS.index(K)].better,
        ranks=ranks,
        ranks_axis=Axis.over([bound for one in ranks for bound in one.interval]),
        slices=slices,
        groups=list(dict.fromkeys(one.group for one in slices)),
        slices_axis=Axis.over([bound for one in telling for bound in one.interval]),
        both=len(found.both_right(K)),
        neither=len(found.neither_right(K)),
        at_k=ranks[RANKS.index(K)],
        k=K,
        small=SMALL_SLICE,
        on_scale=ON_SCALE,
        ledger=None if found.transitions is None else _ledger(found.transitions, first.score.num_queries),
        facts=_facts(first, second),
        stages=_stages(first, second),
        same_hardware=_same_hardware(first, second),
        hardware=(hardware_label(first.hardware), hardware_label(second.hardware)),
        board_link=f"../{INDEX}" if in_site else None,
        row_links=[f"../{row_path(row)}" if in_site else None for row in (first, second)],
        gallery_links=[
            f"../{gallery_path(row)}" if in_site and row.id in galleries else None for row in (first, second)
        ],
    )


def _of_comparison(one: Comparison) -> Paired:
    needed = None if one.queries_needed is None else about(one.queries_needed)
    accuracies = one.first_acc, one.second_acc, one.difference, one.interval
    test = one.test.only_first, one.test.only_second, one.test.p_value
    return Paired("Acc", f"Acc@{one.k}", one.num_queries, *accuracies, *test, needed)


def _slices(found: SideBySide, questions: Questions) -> list[Paired]:
    hits = found.first.hits(K), found.second.hits(K)
    chosen = [mask for _, _, mask in parts(questions) if bool(mask.any())]
    return [
        Paired(
            one.group,
            one.name,
            one.num_queries,
            one.first.acc[K],
            one.second.acc[K],
            one.differences[K],
            paired_bootstrap(hits[0][mask], hits[1][mask]),
            one.tests[K].only_first,
            one.tests[K].only_second,
            one.tests[K].p_value,
            is_small=one.is_small,
        )
        for one, mask in zip(found.slices or (), chosen, strict=True)
    ]


def _ledger(moves: Transitions, num_queries: int) -> dict[str, Any]:
    """Both ledgers, and how queries moved between fates."""
    totals = moves.first_totals, moves.second_totals
    return {
        "fates": moves.fates,
        "moved": moves.counts,
        "untold": [fate for fate in moves.fates if any(total[fate] is None for total in totals)],
        "totals": [[total[fate] for fate in moves.fates] for total in totals],
        "num_queries": num_queries,
        "hit": str(Fate.HIT),
    }


def _facts(first: Row, second: Row) -> list[Fact]:
    facts = [
        Fact("Ensemble", first.spec, second.spec),
        Fact("Boxes", first.boxes, second.boxes),
        Fact("Does not count", _remark(first), _remark(second)),
    ]
    facts += _mapped("", first.settings, second.settings, "as in its recipe")
    facts.append(Fact("Code", first.code_version, second.code_version))
    facts += _mapped("", _flat(first.hardware), _flat(second.hardware), "–")
    facts += _mapped("Artifact: ", _artifacts(first), _artifacts(second), "–")
    facts += [
        Fact("Row", first.id[:16], second.id[:16]),
        Fact("Command", first.command or "not kept", second.command or "not kept"),
    ]
    return facts


def _remark(row: Row) -> str:
    reasons = ([] if row.contamination is None else [row.contamination]) + (["class hedging"] if row.hedged else [])
    return "; ".join(reasons) or "counts"


def _mapped(prefix: str, first: Any, second: Any, absent: str) -> list[Fact]:
    return [
        Fact(f"{prefix}{name}", str(first.get(name, absent)), str(second.get(name, absent)))
        for name in dict.fromkeys((*first, *second))
    ]


def _flat(hardware: Any) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in hardware.items():
        if isinstance(value, dict):
            flat |= {str(inner): str(one) for inner, one in value.items()}
        else:
            flat[str(name).replace("_", " ")] = (
                ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            ) or "–"
    return flat


def _artifacts(row: Row) -> dict[str, str]:
    """Stage or model -> address or description; entries of another form by their place."""
    named: dict[str, str] = {}
    for number, text in enumerate(row.artifacts, 1):
        stage, is_address, address = text.partition(":")
        model, is_model, summary = text.partition(" is ")
        if is_address and " " not in stage:
            named[stage] = _shortened(address)
        elif is_model:
            named[model] = summary
        else:
            named[f"{number}"] = _shortened(text)
    return named


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SHORT or " " in text else text[:16] + "…"


def _same_hardware(first: Row, second: Row) -> bool:
    labels = hardware_label(first.hardware), hardware_label(second.hardware)
    return labels[0] == labels[1] != UNKNOWN_HARDWARE


def _stages(first: Row, second: Row) -> dict[str, Any] | None:
    """Seconds of every stage of both; None where nothing was timed."""
    seconds = [_seconds(row) for row in (first, second)]
    names = list(dict.fromkeys((*seconds[0], *seconds[1])))
    if not names:
        return None
    lines = [{"name": name, "seconds": [one.get(name) for one in seconds]} for name in names]
    return {
        "lines": lines,
        "totals": [first.total_seconds, second.total_seconds],
        "longest": max(1e-9, *(value for line in lines for value in _known(line["seconds"]))),
    }


def _seconds(row: Row) -> dict[str, float]:
    """Stage -> seconds; stages of one name, such as two searches, are added up."""
    found: dict[str, float] = {}
    for stage in row.stages:
        found[stage.stage] = found.get(stage.stage, 0.0) + stage.seconds
    return found


def _known(values: Any) -> Sequence[float]:
    return [value for value in values if value is not None]
