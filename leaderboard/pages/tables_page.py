"""The paper's tables beside ours as a page of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leaderboard.pages.rendering import render, write_text
from leaderboard.published import published
from leaderboard.tables import PaperTable

TITLE = "The paper's tables, beside ours"


def html_page(tables: Sequence[PaperTable], title: str = TITLE) -> str:
    """The HTML of a self-contained page.

    Args:
        tables: as `leaderboard.tables` makes them.
        title: the page's heading.
    """
    judged = [cell for table in tables for cell in _judged(table)]
    return render(
        "tables.html",
        styles=("tables.css",),
        title=title,
        source=published().source,
        tables=[(table, table.texts()) for table in tables],
        any_rendered=any(table.rendered for table in tables),
        num_judged=len(judged),
        num_reproduced=judged.count("yes"),
    )


def write_html_page(tables: Sequence[PaperTable], out: Path, title: str = TITLE) -> Path:
    """Write the page, whole or not at all; its folder is made, an old one is replaced. Returns ``out``.

    Args:
        tables: as `leaderboard.tables` makes them.
        out: the HTML file.
        title: the page's heading.
    """
    return write_text(out, html_page(tables, title))


def _judged(table: PaperTable) -> list[str]:
    places = [place for place, column in enumerate(table.columns) if column.kind == "reproduced"]
    return [str(row[place]) for row in table.rows for place in places if row[place] is not None]
