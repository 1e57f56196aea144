"""The board's page: all rows, one section a data set, split and protocol; those told or published by others apart."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from harness.types import RANKS
from leaderboard.entered import EnteredScore
from leaderboard.pages.links import gallery_path, row_path
from leaderboard.pages.payload import payload, remark, ties
from leaderboard.pages.plot import plots
from leaderboard.pages.rendering import fragment, render
from leaderboard.published import Published, PublishedTable
from leaderboard.standings import Section

SHOWN = 100
"""Rows of a list that stand in the page before its script has run; the script shows as many at a time."""

_OPEN_TABLES = (6, 8, 10)
"""Published tables that stand open: those of ensembles, of the challenge, and of the data set's own baseline."""


def board_page(
    sections: Sequence[Section],
    *,
    title: str,
    literature: Published,
    entered: Sequence[EnteredScore] = (),
    galleries: Collection[str] = (),
    compared: Mapping[str, Any] | None = None,
) -> str:
    """The page of a whole board.

    Args:
        sections: what `leaderboard.standings.sections` found.
        title: the page's heading.
        literature: published numbers, shown in tables of their own.
        entered: scores that others told, shown in a table of their own.
        galleries: ids of rows that have a gallery to link to.
        compared: which pairs of rows have a page, as `leaderboard.pages.payload.payload` takes it; none if not given.

    Returns:
        HTML that needs no other file but those that its links name.
    """
    return render(
        "leaderboard.html",
        styles=("leaderboard.css", "plot.css"),
        scripts=("copy.js", "leaderboard.js"),
        title=title,
        sections=sections,
        plots=[
            fragment("plot.html", plots=plots(section), rendered=section.row.rendered, open=True)
            for section in sections
        ],
        entered=sorted(entered, key=lambda score: (score.split, -score.acc[10], score.id)),
        literature=literature,
        galleries=frozenset(galleries),
        payload=payload(sections, frozenset(galleries), dict(compared or {"against_best": 0, "among_best": 0})),
        shown=SHOWN,
        shown_tables=_OPEN_TABLES,
        ranks=RANKS,
        number=_published_number,
        remark=remark,
        ties=ties,
        row_path=row_path,
        gallery_path=gallery_path,
    )


def _published_number(table: PublishedTable, row: int, column: str) -> str:
    value = table.value(row, column)
    return "–" if value is None else f"{value:,.{table.places}f}"
