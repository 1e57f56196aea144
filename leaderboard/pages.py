"""The leaderboard as one self-contained HTML page: no network, readable on a phone, usable by keyboard."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from pathlib import Path

from leaderboard.published import Published, PublishedTable, published
from leaderboard.rows import Row
from leaderboard.standings import sections
from leaderboard.store import Board

TEMPLATES = Path(__file__).parent / "templates"


def write_page(
    board: Board, out: Path, title: str = "Clothes retrieval leaderboard", literature: Published | None = None
) -> Path:
    """Write the leaderboard page.

    Args:
        board: where the rows are.
        out: the HTML file; an old one is replaced, by temporary name and rename.
        title: the page's heading.
        literature: published numbers to show beside, in tables of their own; those of the package if not given.

    Returns:
        ``out``.

    Raises:
        InputError: the board is damaged.
    """
    text = page(board.rows(), title, literature or published())
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(out.name + ".unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(out)
    return out


def page(rows: Sequence[Row], title: str, literature: Published) -> str:
    """The page's HTML; see `write_page`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["short_time"] = lambda row: row.created.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    templates.filters["number"] = _published_number
    return templates.get_template("leaderboard.html").render(
        title=title,
        sections=sections(rows),
        literature=literature,
        style=Markup((TEMPLATES / "leaderboard.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "leaderboard.js").read_text(encoding="utf-8")),
    )


def _published_number(table: PublishedTable, row: int, column: str) -> str:
    value = table.value(row, column)
    return "–" if value is None else f"{value:,.{table.places}f}"
