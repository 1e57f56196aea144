"""`leaderboard html`, `gallery`, `serve`: what people look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands.board import opened
from harness.commands.options import (
    WORK,
    Board,
    Data,
    Json,
    SplitOption,
    Work,
    emit,
    show,
    workplace,
    writable_file,
    writable_folder,
)

app = typer.Typer()


@app.command("html")
def board_html(
    work: Work = WORK,
    board: Board = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The folder of the pages; WORK/leaderboard if not given.")
    ] = None,
    title: Annotated[str, typer.Option("--title", help="Of the board.")] = "Clothes retrieval leaderboard",
    as_json: Json = False,
) -> None:
    """Write the pages: the board, one a row, comparisons. Each needs nothing but itself; open index.html."""
    from leaderboard.pages.site import write_site

    folder = writable_folder(out or workplace(work).pages)
    with opened(work, board) as rows:
        index = write_site(rows, folder, title=title)
    emit({"page": str(index)}) if as_json else show(str(index))


@app.command("gallery")
def board_gallery(
    what: Annotated[
        str, typer.Argument(metavar="ROW|SPEC|FILE", help="A row's id or its beginning, an ensemble, a challenge JSON.")
    ],
    data: Data,
    work: Work = WORK,
    board: Board = None,
    split: SplitOption = "validation",
    query: Annotated[Path | None, typer.Option("--query", help="val_query.json, for a challenge JSON.")] = None,
    gallery: Annotated[Path | None, typer.Option("--gallery", help="val_gallery.json, for a challenge JSON.")] = None,
    queries: Annotated[int, typer.Option("--queries", min=1, help="Queries to show; drawn from every outcome.")] = 200,
    out: Annotated[Path | None, typer.Option("--out", help="The page, instead of where it belongs.")] = None,
    as_json: Json = False,
) -> None:
    """Write a page of queries with their ten answers, right and wrong framed, to be filtered by what became of them.

    That of a row lies beside the pages of the board, which link to it from the next `leaderboard html` on; that of an
    ensemble is WORK/gallery.html, that of a file lies beside it.
    """
    from harness.jobs.gallery import write_gallery
    from harness.progress import bars

    with bars() as report:
        page = write_gallery(
            what,
            data,
            workplace(work, board),
            split=split,
            query=query,
            gallery=gallery,
            num_queries=queries,
            out=None if out is None else writable_file(out),
            report=report,
        )
    emit({"page": str(page)}) if as_json else show(str(page))


@app.command("serve")
def board_serve(
    work: Work = WORK,
    board: Board = None,
    host: Annotated[str, typer.Option("--host", help="0.0.0.0 for a team; there is no password.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8311,
    title: Annotated[str, typer.Option("--title", help="Of the board.")] = "Clothes retrieval leaderboard",
) -> None:
    """Serve the pages of the board as it is at any time, until Ctrl-C. Nobody can change anything through it."""
    from leaderboard.pages.server import serve

    place = workplace(work, board)
    serve(
        place.board,
        place.pages,
        host,
        port,
        title=title,
        ready=lambda address: typer.echo(f"the board is at {address} until Ctrl-C", err=True),
    )
