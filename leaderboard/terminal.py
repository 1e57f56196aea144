"""The leaderboard as tables for the terminal, from 60 columns on: the least needed columns are left out first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.types import RANKS
from leaderboard.entered import EnteredScore
from leaderboard.standings import Entry, Section, sections
from leaderboard.store import Board

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table
    from rich.text import Text


def show(board: Board) -> list[StandingsTable | EnteredTable | str]:
    """The results of a board, one table a data set, split and protocol, best first; those that do not count come last,
    and scores that were told elsewhere in a table of their own.

    Args:
        board: where the rows are.

    Returns:
        What rich prints, fitted to the width of its console when it is printed; without anything to show a sentence.

    Raises:
        InputError: the board is damaged.
    """
    found: list[StandingsTable | EnteredTable | str] = [StandingsTable(one) for one in sections(board.rows())]
    entered = board.entered()
    if entered:
        found.append(EnteredTable(tuple(entered)))
    return found or ["Leaderboard: no rows yet"]


@dataclass(frozen=True)
class StandingsTable:
    """A section for rich to print; its columns depend on the width that there is."""

    section: Section

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.table(options.max_width)
        yield ""

    def table(self, width: int) -> Table:
        """The table for a width in columns."""
        from rich.text import Text

        section, shared = self.section, self.section.row
        entries = (*section.ranked, *section.apart)
        chosen = _fitting(entries, width)
        title = Text("RENDERED data, not DeepFashion2\n" if shared.rendered else "", style="bold yellow")
        title.append(f"{shared.split} {shared.fingerprint[:8]}, ", style="not bold")
        title.append(f"{shared.score.protocol} protocol, {shared.boxes} boxes, ", style="not bold")
        title.append(f"{shared.score.num_queries:,} queries", style="not bold")
        table = _empty(title)
        for column, room in chosen:
            table.add_column(column.heading, justify=column.justify, overflow="fold", width=room)
        beside = any(column is _REMARKS for column, _ in chosen)
        for entry in entries:
            if entry.rank is None and section.ranked and entry is section.apart[0]:
                table.add_section()
            cells = [
                _ensemble(entry, with_remarks=not beside) if column is _ENSEMBLE else column.text(entry)
                for column, _ in chosen
            ]
            table.add_row(*cells)
        if any(column.heading == "tied" for column, _ in chosen):
            table.caption = (
                "tied: cannot be told from (McNemar's exact p ≥ 0.05, each pair by itself); interval: 95 %, Acc@10"
            )
            table.caption_justify = "left"
        return table


@dataclass(frozen=True)
class EnteredTable:
    """Scores that were told elsewhere, for rich to print: apart from everything that was measured."""

    scores: tuple[EnteredScore, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.table(options.max_width)
        yield ""

    def table(self, width: int) -> Table:
        """The table for a width in columns."""
        from rich.text import Text

        rendered = any(score.rendered for score in self.scores)
        table = _empty(Text("told elsewhere, not measured here", style="bold"))
        others = [k for k in RANKS if k != 10 and any(k in score.acc for score in self.scores)]
        ranks = (10, *others) if width >= _ROOMY + 8 * len(others) else (10,)
        dated = width >= _ROOMY
        table.add_column("ensemble", overflow="fold", ratio=3)
        table.add_column("split", no_wrap=True)
        for k in ranks:
            table.add_column(f"Acc@{k}", justify="right", no_wrap=True)
        table.add_column("told by", overflow="fold", ratio=2)
        if dated:
            table.add_column("entered", no_wrap=True)
        if rendered:
            table.add_column("", no_wrap=True)
        for score in self.scores:
            name = _named(score.name, score.spec)
            cells = [name, Text(score.split), *(Text(f"{score.acc[k]:.6f}" if k in score.acc else "") for k in ranks)]
            cells.append(Text(_printable(score.source)))
            cells += [Text(f"{score.created:%Y-%m-%d}")] if dated else []
            cells += [Text("RENDERED" if score.rendered else "", style="bold yellow")] if rendered else []
            table.add_row(*cells)
        return table


_ROOMY = 80


@dataclass(frozen=True)
class _Column:
    """A column: what stands in it, how narrow it may be, and whether it takes what room is left."""

    heading: str
    lines: Callable[[Entry], str]
    justify: Literal["left", "right"] = "right"
    least: int | None = None
    """None for columns that are as wide as their widest cell."""

    def text(self, entry: Entry) -> Text:
        from rich.text import Text

        style = {"row": "dim", "remarks": "red" if entry.reasons else ""}.get(self.heading, "")
        return Text(self.lines(entry), style=style)

    def wanted(self, entries: Sequence[Entry]) -> int:
        from rich.cells import cell_len

        lines = [line for entry in entries for line in self.lines(entry).split("\n")]
        return max(map(cell_len, (self.heading, *lines)))


def _acc(k: int) -> _Column:
    return _Column(f"Acc@{k}", lambda entry: f"{entry.row.score.acc[k]:.4f}")


_ENSEMBLE = _Column("ensemble", lambda entry: "\n".join(line for line, _ in _ensemble_lines(entry, False)), "left", 16)
_REMARKS = _Column("remarks", lambda entry: _printable("; ".join(entry.reasons)), "left", 24)
_ALWAYS = (_Column("#", lambda entry: "–" if entry.rank is None else str(entry.rank)), _ENSEMBLE, _acc(10))
_IF_THERE_IS_ROOM = (
    _Column("row", lambda entry: entry.row.id[:8], "left"),
    _Column("interval", lambda entry: f"{_share(entry.low)}–{_share(entry.high)}"),
    _Column("tied", lambda entry: _tied(entry), "left", 8),
    _acc(1),
    _Column("time", lambda entry: entry.total),
    _acc(20),
    _REMARKS,
    _Column("machine", lambda entry: _printable(entry.hardware_label), "left", 14),
    _acc(5),
    _acc(15),
)
"""The most needed first."""

_BEFORE_LONG_NAMES = 3
"""So many of these come in even where names of ensembles are broken for them: row, interval, tied."""

_ORDER = ("#", "row", "ensemble", "Acc@10", "interval", "tied", "Acc@1", "Acc@5", "Acc@15", "Acc@20", "time", "machine")

_GAP = 2
"""Between columns: one of padding, one of the box."""

_ENSEMBLE_BEFORE_MORE = 24
"""Room that the ensemble gets before a less needed column comes in, where its names are so long."""


def _fitting(entries: Sequence[Entry], width: int) -> list[tuple[_Column, int]]:
    """The columns that fit, in the order in which they stand, with their widths."""
    wanted = {column.heading: column.wanted(entries) for column in (*_ALWAYS, *_IF_THERE_IS_ROOM)}

    def least(column: _Column) -> int:
        if column is _ENSEMBLE and len(chosen) > len(_ALWAYS) + _BEFORE_LONG_NAMES:
            return min(_ENSEMBLE_BEFORE_MORE, wanted[column.heading])
        return wanted[column.heading] if column.least is None else min(column.least, wanted[column.heading])

    chosen = list(_ALWAYS)
    for column in _IF_THERE_IS_ROOM:
        if not any(column.lines(entry) for entry in entries):
            continue
        chosen.append(column)
        if sum(least(one) + _GAP for one in chosen) - _GAP > width:
            chosen.pop()
    rooms = {column.heading: least(column) for column in chosen}
    left = max(0, width - sum(rooms.values()) - _GAP * (len(chosen) - 1))
    for column in chosen:
        more = min(left, wanted[column.heading] - rooms[column.heading])
        rooms[column.heading] += more
        left -= more
    order = [*_ORDER, "remarks"]
    chosen.sort(key=lambda column: order.index(column.heading))
    return [(column, max(1, rooms[column.heading])) for column in chosen]


def _tied(entry: Entry) -> str:
    if entry.tied_with is None:
        return ""
    return entry.tied_words.partition(": ")[2] or "none"


def _share(value: float) -> str:
    """Three places without the zero before them."""
    return f"{value:.3f}".removeprefix("0")


def _ensemble_lines(entry: Entry, with_remarks: bool) -> list[tuple[str, str]]:
    """Lines of an entry with their styles."""
    row = entry.row
    lines = [(row.name, "bold" if entry.rank == 1 else "")]
    lines += [(row.spec, "dim")] if row.spec != row.name else []
    lines += [(f"also {', '.join(entry.also_known_as)}", "dim")] if entry.also_known_as else []
    lines += [(f"{entry.num_runs} runs", "dim")] if entry.num_runs > 1 else []
    lines += [(entry.variant, "italic dim")] if entry.variant else []
    lines += [(reason, "red") for reason in entry.reasons] if with_remarks else []
    return [(_printable(text), style) for text, style in lines]


def _ensemble(entry: Entry, with_remarks: bool) -> Text:
    from rich.text import Text

    # Text, not markup: names and specs come from users and may hold square brackets.
    return Text("\n").join(Text(text, style=style) for text, style in _ensemble_lines(entry, with_remarks))


def _named(name: str, spec: str) -> Text:
    from rich.text import Text

    text = Text(_printable(name))
    if spec != name:
        text.append(f"\n{_printable(spec)}", style="dim")
    return text


def _printable(text: str) -> str:
    """Without characters that would move the cursor or colour the terminal."""
    return "".join(one if one.isprintable() else "�" for one in text)


def _empty(title: Text) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        collapse_padding=True,
        padding=(0, _GAP - 1, 0, 0),
        title=title,
        title_justify="left",
        header_style="bold",
        pad_edge=False,
    )
