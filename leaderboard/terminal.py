"""The leaderboard as tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leaderboard.standings import Section, sections
from leaderboard.store import Board

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text


def show(board: Board) -> list[Table]:
    """The rows of a board, one table a data set, split and protocol, best first; those that do not count come last.

    Args:
        board: where the rows are.

    Returns:
        Tables for rich to print, readable from 80 columns on; without rows one that says so in its caption.

    Raises:
        InputError: the board is damaged.
    """
    from rich.text import Text

    found = [_table(section) for section in sections(board.rows())]
    if not found:
        found = [_headings(Text("Leaderboard"))]
        found[0].caption = "no rows yet"
    return found


def _headings(title: Text) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        collapse_padding=True,
        padding=(0, 1),
        title=title,
        title_justify="left",
        header_style="bold",
        pad_edge=False,
    )
    table.add_column("#", justify="right")
    table.add_column("row", no_wrap=True)
    table.add_column("ensemble", overflow="fold", ratio=2)
    for heading in ("Acc@10", "95 % interval", "Acc@1", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("remarks", overflow="fold", ratio=1)
    return table


def _table(section: Section) -> Table:
    from rich.text import Text

    shared = section.row
    title = Text("RENDERED data, not DeepFashion2\n" if shared.rendered else "", style="bold yellow")
    title.append(f"{shared.split} {shared.fingerprint[:8]}, ", style="not bold")
    title.append(f"{shared.score.protocol} protocol, {shared.boxes} boxes", style="not bold")
    table = _headings(title)
    for entry in (*section.ranked, *section.apart):
        row = entry.row
        # Text, not markup: names and specs come from users and may hold square brackets.
        ensemble = Text(row.name, style="bold" if entry.rank == 1 else "")
        if row.spec != row.name:
            ensemble.append(f"\n{row.spec}", style="dim")
        table.add_row(
            Text("–" if entry.rank is None else str(entry.rank)),
            Text(row.id[:8], style="dim"),
            ensemble,
            Text(f"{row.score.acc[10]:.4f}"),
            Text(f"{entry.low:.3f}–{entry.high:.3f}"),
            Text(f"{row.score.acc[1]:.4f}"),
            Text(entry.total),
            Text("; ".join(entry.reasons) or entry.versus_best, style="red" if entry.reasons else ""),
        )
    return table
