"""Accuracy against cost as an inline SVG: seconds on a logarithmic axis, Acc@10 with its interval, the Pareto front.

Costs of different machines do not compare, so each machine has a plot of its own. Places are percentages of the
frame, so the plot fills any width with letters of one size. The front and the best rows are links; of a large board
the others are dots of one path, some 15 bytes each, and all rows stand in the table above the plot anyway.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from leaderboard.costs import pareto
from leaderboard.pages.links import row_path
from leaderboard.standings import Entry, Section, duration

LINKED = 60
"""Rows beside those of the front that are links with an interval: the best ones."""

_NAMED = 6
"""Points of the front whose names are written beside them."""

NAME_LETTERS = 34
"""Of such a name."""

_LETTER = 0.7
"""Its width in percent of a wide screen's plot."""

_TICKS_S = (0.001, 0.01, 0.1, 1, 10, 60, 600, 3600, 36_000, 360_000, 3_600_000)
_FINE_TICKS_S = (
    *(factor * ten for ten in (0.001, 0.01, 0.1, 1) for factor in (1, 2, 5)),
    *(10, 20, 30, 60, 120, 300, 600, 1200, 1800),
    *(3600 * factor for factor in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)),
)


@dataclass(frozen=True)
class Point:
    """A row in the plot; x, y, low and high in percent of the frame, y downwards."""

    path: str
    name: str
    label: str
    seconds: str
    accuracy: str
    x: float
    y: float
    low: float
    high: float
    on_front: bool
    named: bool


@dataclass(frozen=True)
class Plot:
    """All that one machine's plot shows.

    Attributes:
        machine: its label.
        num_rows: rows in it.
        points: links, those of the front first, which go from cheap to good.
        dots: the other rows, as an SVG path of points in a frame of 1000 x 1000.
        front: the front as an SVG path of steps in the same frame.
        x_ticks, y_ticks: place in percent, and what is written there.
    """

    machine: str
    num_rows: int
    points: tuple[Point, ...]
    dots: str
    front: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]

    @property
    def on_front(self) -> tuple[Point, ...]:
        """The points of the front, from cheap to good."""
        return tuple(point for point in self.points if point.on_front)


def plots(section: Section) -> list[Plot]:
    """One plot a machine, that with the most rows first; rows without timings are in none."""
    machines: dict[str, list[Entry]] = {}
    for entry in section.ranked:
        if entry.total_seconds is not None:
            machines.setdefault(entry.hardware_label, []).append(entry)
    return [_plot(name, machines[name]) for name in sorted(machines, key=lambda name: (-len(machines[name]), name))]


def _plot(machine: str, entries: Sequence[Entry]) -> Plot:
    front = pareto(entries).get(machine, ())
    behind = [place for place in range(len(entries)) if place not in set(front)]
    linked, dotted = behind[:LINKED], behind[LINKED:]
    shown = [*front, *linked]
    x_axis = _Logarithmic([entry.total_seconds or 0.0 for entry in entries])
    y_axis = _Linear(
        [*(entries[place].low for place in shown), *(entry.row.score.acc[10] for entry in entries)],
        [*(entries[place].high for place in shown), *(entry.row.score.acc[10] for entry in entries)],
    )

    def x(place: int) -> float:
        return x_axis.place(entries[place].total_seconds or 0.0)

    def y(place: int) -> float:
        return y_axis.place(entries[place].row.score.acc[10])

    named = _not_crowded([(x(place), y(place), len(entries[place].row.name)) for place in front])
    points = tuple(
        _point(entries[place], x(place), y_axis, number < len(front), number in named)
        for number, place in enumerate(shown)
    )
    dots = sorted({(round(10 * x(place)), round(10 * y(place))) for place in dotted})
    return Plot(
        machine,
        len(entries),
        points,
        "".join(f"M{across} {down}h0" for across, down in dots),
        _steps([(10 * x(place), 10 * y(place)) for place in front]),
        x_axis.ticks(),
        y_axis.ticks(),
    )


def _point(entry: Entry, x: float, y_axis: _Linear, on_front: bool, named: bool) -> Point:
    accuracy = entry.row.score.acc[10]
    rendered = "RENDERED " if entry.row.rendered else ""
    return Point(
        path=row_path(entry.row),
        name=entry.row.name,
        label=f"{entry.row.name}: {rendered}Acc@10 {accuracy:.4f}, {entry.low:.3f} to {entry.high:.3f}; {entry.total}",
        seconds=entry.total,
        accuracy=f"{accuracy:.4f}",
        x=x,
        y=y_axis.place(accuracy),
        low=y_axis.place(entry.low),
        high=y_axis.place(entry.high),
        on_front=on_front,
        named=named,
    )


def _steps(points: Sequence[tuple[float, float]]) -> str:
    """Right and up from point to point: between two of them nothing better is to be had for less than the second."""
    if not points:
        return ""
    path = f"M{points[0][0]:.0f} {points[0][1]:.0f}"
    for (_, _), (right, up) in pairwise(points):
        path += f"H{right:.0f}V{up:.0f}"
    return path + "H1000"


def _not_crowded(places: Sequence[tuple[float, float, int]]) -> set[int]:
    """Which points of a front have room for their name, which stands at their upper left, where no other point is:
    the best one, and others far enough below the last that was named and from the left end.

    Args:
        places: x and y in percent, letters of the name; from cheap to good.
    """
    chosen: list[int] = []
    for number in reversed(range(len(places))):
        x, y, letters = places[number]
        has_room = x > _LETTER * min(letters, NAME_LETTERS) + 1
        if len(chosen) < _NAMED and has_room and all(abs(y - places[other][1]) > 8 for other in chosen):
            chosen.append(number)
    return set(chosen)


class _Logarithmic:
    def __init__(self, seconds: Iterable[float]) -> None:
        logs = [math.log10(max(value, 1e-3)) for value in seconds]
        middle, half = (min(logs) + max(logs)) / 2, max((max(logs) - min(logs)) / 2 * 1.12, 0.4)
        self.low, self.high = middle - half, middle + half

    def place(self, value: float) -> float:
        return round(100 * (math.log10(max(value, 1e-3)) - self.low) / (self.high - self.low), 2)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        found = [value for value in _TICKS_S if 0 <= self.place(value) <= 100]
        if len(found) < 3:
            found = [value for value in _FINE_TICKS_S if 0 <= self.place(value) <= 100]
        return tuple((self.place(value), _short(value)) for value in found)


class _Linear:
    def __init__(self, lows: Iterable[float], highs: Iterable[float]) -> None:
        low, high = min(lows), max(highs)
        margin = max((high - low) * 0.08, 0.01)
        self.low, self.high = max(0.0, low - margin), min(1.0, high + margin)

    def place(self, value: float) -> float:
        return round(100 * (self.high - value) / (self.high - self.low), 2)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        step = next(
            step
            for step in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
            if (self.high - self.low) / step <= 6 or step == 0.5
        )
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return tuple((self.place(number * step), f"{number * step:.3g}") for number in range(first, last + 1))


def _short(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:g} ms"
    return duration(seconds).replace(".0 s", " s").replace(" 00 s", "").replace(" 00 min", "")
