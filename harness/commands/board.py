"""`leaderboard`: show, compare, write the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.commands.options import WORK, Json, Work, emit, show, workplace, writable_file
from harness.types import RANKS, InputError

if TYPE_CHECKING:
    from harness.scoring.comparison import Comparison

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
    first: Annotated[str, typer.Argument(help="A challenge JSON; or a row's id, or its beginning.")],
    second: Annotated[str, typer.Argument(help="Another file, or another row's id.")],
    work: Work = WORK,
    board: Board = None,
    query: Annotated[Path | None, typer.Option("--query", help="val_query.json, to compare files.")] = None,
    gallery: Annotated[Path | None, typer.Option("--gallery", help="val_gallery.json, to compare files.")] = None,
    k: Annotated[int, typer.Option("--k", help="Of Acc@k in the verdict: 1, 5, 10, 15 or 20.")] = 10,
    as_json: Json = False,
) -> None:
    """Compare two result files, or two rows, by a paired test on the same queries: is the difference noise?"""
    if k not in RANKS:
        raise typer.BadParameter(f"expected one of {', '.join(map(str, RANKS))}, got {k}", param_hint="--k")
    if _are_files(first, second, query is not None or gallery is not None):
        from harness.scoring.comparison import compare_files

        if query is None or gallery is None:
            missing = " and ".join(name for name, path in (("--query", query), ("--gallery", gallery)) if path is None)
            raise InputError(
                f"{missing}: missing; result files are scored before they are compared, so give both "
                "--query val_query.json and --gallery val_gallery.json (run.py data export writes them)"
            )
        found, warnings = compare_files(Path(first), Path(second), query, gallery)
    else:
        from leaderboard.comparison import compare_rows

        rows = _board(work, board)
        found, warnings = compare_rows(rows.row(first), rows.row(second)), []
    if as_json:
        by_k = {str(rank): asdict(one) for rank, one in found.items()}
        emit({"first": first, "second": second, **by_k[str(k)], "by_k": by_k, "warnings": warnings})
    else:
        show(*(f"warning: {one}" for one in warnings))
        show(_table(found), f"first: {first}, second: {second}; difference is second minus first", found[k].verdict)


def _are_files(first: str, second: str, files_meant: bool) -> bool:
    """Whether two result files are to be compared, not two rows."""
    there = [name for name in (first, second) if Path(name).is_file()]
    if len(there) == 2:
        return True
    if there or files_meant:
        other = first if there == [second] else second if there else f"{first} and {second}"
        raise InputError(
            f"{other}: no such file"
            + (f", but {there[0]} is one" if there else "")
            + "; give two challenge JSONs, or two row ids without --query and --gallery"
        )
    return False


def _table(found: Mapping[int, Comparison]) -> Any:
    """One line a k, for 80 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from harness.scoring.comparison import about

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    counts = ("only\n1st", "only\n2nd", "p", "queries\nneeded")
    for heading in ("", "first", "second", "diff.", "95 % interval", *counts):
        table.add_column(heading, justify="right", no_wrap=True)
    for k, one in found.items():
        low, high = one.interval
        table.add_row(
            f"Acc@{k}",
            f"{one.first_acc:.4f}",
            f"{one.second_acc:.4f}",
            f"{one.difference:+.4f}",
            f"{low:+.4f}…{high:+.4f}",
            f"{one.test.only_first:,}",
            f"{one.test.only_second:,}",
            f"{one.test.p_value:.2g}",
            "–" if one.queries_needed is None else f"{about(one.queries_needed):,}",
        )
    table.caption = f"{found[RANKS[0]].num_queries:,} queries; p of McNemar's exact test; needed for 4 of 5 tries"
    table.caption_justify = "left"
    return table


def _board(work: Path, board: Path | None) -> Any:
    from leaderboard.store import Board as Rows

    return Rows(board or workplace(work).board, create=False)
