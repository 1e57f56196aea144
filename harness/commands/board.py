"""`leaderboard`: show, compare, write the page."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.commands.options import WORK, Json, Work, emit, show, workplace, writable_file

board_app = typer.Typer(help="Scored rows: show, compare, write the page.", no_args_is_help=True)


Board = Annotated[Path | None, typer.Option("--board", help="The board; that of the working folder if not given.")]


@board_app.command("show")
def board_show(work: Work = WORK, board: Board = None) -> None:
    """The rows, best first, by data set and protocol."""
    from leaderboard.terminal import show as as_table

    show(*as_table(_board(work, board)))


@board_app.command("html")
def board_html(
    work: Work = WORK,
    board: Board = None,
    out: Annotated[Path | None, typer.Option("--out", help="The page; beside the board if not given.")] = None,
) -> None:
    """Write the leaderboard as one self-contained page."""
    from leaderboard.pages import write_page

    show(str(write_page(_board(work, board), writable_file(out or workplace(work).page))))


@board_app.command("compare")
def board_compare(
    first: Annotated[str, typer.Argument(help="A row's id, or its beginning.")],
    second: Annotated[str, typer.Argument(help="Another row's.")],
    work: Work = WORK,
    board: Board = None,
    k: Annotated[int, typer.Option(help="Of Acc@k: 1, 5, 10, 15 or 20.")] = 10,
    as_json: Json = False,
) -> None:
    """Compare two rows by a paired test on the same queries."""
    from leaderboard.comparison import compare

    rows = _board(work, board)
    found = compare(rows.row(first), rows.row(second), k)
    if as_json:
        emit(asdict(found))
    else:
        low, high = found.interval
        show(found.verdict, f"{second} minus {first}: {found.difference:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}")


def _board(work: Path, board: Path | None) -> Any:
    from leaderboard.store import Board as Rows

    return Rows(board or workplace(work).board, create=False)
