"""`leaderboard`: show, compare, hand over, enter, migrate. Its pages are made in `pages`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from harness.commands.options import (
    WORK,
    Board,
    Json,
    SplitOption,
    Work,
    board_name,
    emit,
    show,
    spec_of,
    workplace,
    writable_file,
)
from harness.types import RANKS, InputError

if TYPE_CHECKING:
    from harness.scoring.comparison import Comparison
    from harness.workplace import Workplace
    from leaderboard.rows import Row
    from leaderboard.store import Board as Rows

board_app = typer.Typer(help="Scored rows: show, compare, pages, hand over.", no_args_is_help=True)


@board_app.command("show")
def board_show(
    work: Work = WORK,
    board: Board = None,
    form: Annotated[
        Literal["table", "csv", "markdown", "latex"], typer.Option("--format", help="Of what is printed.")
    ] = "table",
    as_json: Json = False,
) -> None:
    """The rows, best first, by data set and protocol; for the terminal, a spreadsheet, a README or a paper."""
    from leaderboard import formats
    from leaderboard.standings import sections
    from leaderboard.terminal import show as as_table

    with opened(work, board) as rows:
        if form == "table" and not as_json:
            show(*as_table(rows))
            return
        found, entered = sections(rows.rows()), rows.entered()
    if as_json:
        emit(formats.as_json(found, entered))
    elif form == "csv":
        sys.stdout.write(formats.as_csv(found))
    else:
        sys.stdout.write((formats.as_markdown if form == "markdown" else formats.as_latex)(found, entered))


@board_app.command("compare")
def board_compare(
    first: Annotated[
        str, typer.Argument(help="A challenge JSON; or a row: its id or the beginning of it, or its ensemble.")
    ],
    second: Annotated[str, typer.Argument(help="Another file, or another row.")],
    work: Work = WORK,
    board: Board = None,
    query: Annotated[Path | None, typer.Option("--query", help="val_query.json, to compare files.")] = None,
    gallery: Annotated[Path | None, typer.Option("--gallery", help="val_gallery.json, to compare files.")] = None,
    k: Annotated[int, typer.Option("--k", help="Of Acc@k in the verdict: 1, 5, 10, 15 or 20.")] = 10,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the page that compares two rows: slices, losses, timings.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare two result files, or two rows, by a paired test on the same queries: is the difference noise?"""
    if k not in RANKS:
        raise typer.BadParameter(f"expected one of {', '.join(map(str, RANKS))}, got {k}", param_hint="--k")
    if _are_files(first, second, query is not None or gallery is not None):
        from harness.scoring.comparison import compare_files

        if html is not None:
            raise typer.BadParameter("is made of two rows, not of two files", param_hint="--html")
        if query is None or gallery is None:
            missing = " and ".join(name for name, path in (("--query", query), ("--gallery", gallery)) if path is None)
            raise InputError(
                f"{missing}: missing; result files are scored before they are compared, so give both "
                "--query val_query.json and --gallery val_gallery.json (run.py data export writes them)"
            )
        found, warnings = compare_files(Path(first), Path(second), query, gallery)
    else:
        from leaderboard.comparison import beware, compare_rows

        with opened(work, board) as rows:
            place = workplace(work, board)
            one, other = _row(rows, place, first), _row(rows, place, second)
            found, warnings = compare_rows(one, other), list(beware(one, other))
            if html is not None:
                from leaderboard.pages.comparison_page import comparison_page
                from leaderboard.pages.rendering import write_text

                questions = None if one.questions_id is None else rows.questions(one.questions_id)
                write_text(writable_file(html), comparison_page(one, other, questions, in_site=False))
    if as_json:
        by_k = {str(rank): asdict(result) for rank, result in found.items()}
        emit({"first": first, "second": second, **by_k[str(k)], "by_k": by_k, "warnings": warnings})
    else:
        show(*(f"warning: {warning}" for warning in warnings))
        show(*(["RENDERED data, not DeepFashion2"] if found[k].rendered else []))
        show(_table(found), f"first: {first}, second: {second}; difference is second minus first", found[k].verdict)
        show(*([] if html is None else [f"wrote {html}"]))


@board_app.command("export")
def board_export(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The JSON to write; an old one is replaced.")],
    work: Work = WORK,
    board: Board = None,
    as_json: Json = False,
) -> None:
    """Write all of the board as one JSON, for another team's `import`."""
    from leaderboard.exchange import write_export

    with opened(work, board) as rows:
        counts = write_export(rows, writable_file(out))
    emit({"file": str(out), **counts}) if as_json else show(f"wrote {out}: {_counted(counts)}")


@board_app.command("import")
def board_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `leaderboard export` wrote.")],
    work: Work = WORK,
    board: Board = None,
    as_json: Json = False,
) -> None:
    """Add what another board has; what is here already stays as it is, and is not there twice."""
    from leaderboard.exchange import import_board

    with opened(work, board, create=True) as rows:
        report = asdict(import_board(rows, file))
        name = rows.name
    if as_json:
        emit({"board": name, **report})
    else:
        show(*(f"{what}: {count['new']:,} new, {count['known']:,} here already" for what, count in report.items()))


@board_app.command("enter")
def board_enter(
    spec: Annotated[str, typer.Argument(help="The ensemble, or a name from submissions/ensembles.")],
    acc10: Annotated[float, typer.Option("--acc10", help="Acc@10 in [0, 1], as it was told.")],
    source: Annotated[str, typer.Option("--source", help="Who said so: a server, a mail, an address.")],
    split: SplitOption = "test",
    name: Annotated[str | None, typer.Option("--name", help="What people call it; the spec if not given.")] = None,
    acc1: Annotated[float | None, typer.Option("--acc1")] = None,
    acc5: Annotated[float | None, typer.Option("--acc5")] = None,
    acc15: Annotated[float | None, typer.Option("--acc15")] = None,
    acc20: Annotated[float | None, typer.Option("--acc20")] = None,
    submission: Annotated[
        Path | None, typer.Option("--submission", help="The file that was handed in, to keep its SHA-256.")
    ] = None,
    rendered: Annotated[bool, typer.Option("--rendered", help="It was scored on rendered data.")] = False,
    work: Work = WORK,
    board: Board = None,
    as_json: Json = False,
) -> None:
    """Enter an official score that was told elsewhere, such as on the test split; it is shown as such, never ranked."""
    from harness.artifacts import file_sha256
    from harness.pipeline import parse_in
    from leaderboard.entered import EnteredScore

    given = {1: acc1, 5: acc5, 10: acc10, 15: acc15, 20: acc20}
    place = workplace(work, board)
    named = spec_of(spec)
    canonical = str(parse_in(place, named))
    try:
        score = EnteredScore(
            spec=canonical,
            name=name or (spec if named != spec else canonical),
            split=split,
            acc={k: value for k, value in given.items() if value is not None},
            source=source,
            submission_sha256=None if submission is None else file_sha256(submission),
            rendered=rendered,
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    with opened(work, board, create=True) as rows:
        entered = rows.enter(score)
    if as_json:
        emit({"id": entered, "spec": canonical, "split": split, "acc": {str(k): v for k, v in score.acc.items()}})
    else:
        show(f"{canonical} on {split}: Acc@10 {acc10:.6f}, told by {source}; entered in {board_name(place.board)}")


@board_app.command("migrate")
def board_migrate(work: Work = WORK, board: Board = None, as_json: Json = False) -> None:
    """Bring the board of an earlier version to this one's form; of a file a copy is kept beside it."""
    from leaderboard.migrations import migrate

    done = migrate(workplace(work, board).board)
    if as_json:
        emit(asdict(done) | {"copy": None if done.copy is None else str(done.copy)})
    elif done.before == done.after:
        show(f"{done.board} is of version {done.after} already")
    else:
        kept = f"; as it was it lies in {done.copy}" if done.copy is not None else ""
        show(f"{done.board} is of version {done.after} now, was of {done.before}{kept}")


@contextmanager
def opened(work: Path, board: str | None, *, create: bool = False) -> Iterator[Rows]:
    """The board of a working folder, or another one."""
    from leaderboard.store import Board as Rows

    place = workplace(work, board)
    if create:
        place.root.mkdir(parents=True, exist_ok=True)
    with Rows(place.board, create=create) as rows:
        yield rows


def _row(rows: Rows, place: Workplace, text: str) -> Row:
    """The row whose id begins so, or the newest one of this name or ensemble."""
    if re.fullmatch("[0-9a-fA-F]+", text):
        return rows.row(text)
    from harness.pipeline import parse_in
    from harness.spec import SpecError

    try:
        spec = str(parse_in(place, spec_of(text)))
    except SpecError:
        spec = text
    found = [row for row in rows.rows() if text == row.name or spec == row.spec]
    if not found:
        raise InputError(
            f"{rows.name}: no row's id begins with {text!r}, and none is of this name or ensemble; "
            "run.py leaderboard show lists them"
        )
    return found[-1]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items())


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
