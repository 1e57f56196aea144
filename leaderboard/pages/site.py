"""All pages of a board: written into a folder, or made one by one for a server."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path

from harness.scoring.questions import Questions
from leaderboard.pages.board_page import board_page
from leaderboard.pages.comparison_page import comparison_page
from leaderboard.pages.links import INDEX, pair_path, row_path
from leaderboard.pages.rendering import refuse_foreign, write_text
from leaderboard.pages.row_page import row_page
from leaderboard.published import Published, published
from leaderboard.rows import Row
from leaderboard.standings import Entry, Section, sections
from leaderboard.store import Board

TITLE = "Clothes retrieval leaderboard"

AGAINST_BEST = 100
"""Ranked rows of a section that get a page which compares them with its best one."""

AMONG_BEST = 10
"""Best rows of a section that get a page for every pair of them."""

_ROW = re.compile(r"rows/([0-9a-f]{16})\.html")
_PAIR = re.compile(r"compare/([0-9a-f]{16})-([0-9a-f]{16})\.html")


class Site:
    """The pages of a board as it was when this was made.

    Args:
        board: where the rows are.
        title: the heading of the board's page.
        galleries: ids of rows whose answers can be looked at, or their first 16 characters.
        any_pair: whether every pair of a section can be had, as from a server; else those of `paths`.
        literature: published numbers to show; those of the package if not given.

    Raises:
        InputError: the board is damaged.
    """

    def __init__(
        self,
        board: Board,
        *,
        title: str = TITLE,
        galleries: Collection[str] = (),
        any_pair: bool = False,
        literature: Published | None = None,
    ) -> None:
        self.title = title
        rows = board.rows()
        self.sections: list[Section] = sections(rows)
        self._board = board
        self._entered = board.entered()
        short = {one[:16] for one in galleries}
        self._galleries = frozenset(row.id for row in rows if _short(row) in short) if short else frozenset()
        self._any_pair = any_pair
        self._literature = literature or published()
        self._questions: dict[str, Questions | None] = {}

    def paths(self) -> Iterator[str]:
        """Every page to write, seen from the board's folder; the board's own last, which links to all others."""
        for section in self.sections:
            for entry in (*section.ranked, *section.apart):
                yield row_path(entry.row)
                # The gallery of a run that a later one was folded over leads to the page that it was made with.
                yield from (row_path(run) for run in entry.runs[1:] if run.id in self._galleries)
            for first, second in _pairs(section):
                yield pair_path(first, second)
        yield INDEX

    def page(self, path: str) -> str | None:
        """A page by its path, seen from the board's folder; None where there is none, galleries among them.

        Raises:
            InputError: the board is damaged, or cannot be reached, or two rows answer different questions.
        """
        if path == INDEX:
            return self._index
        if found := _ROW.fullmatch(path):
            return self._row_page(found[1])
        if found := _PAIR.fullmatch(path):
            return self._pair_page(found[1], found[2])
        return None

    @cached_property
    def _index(self) -> str:
        return board_page(
            self.sections,
            title=self.title,
            literature=self._literature,
            entered=self._entered,
            galleries=self._galleries,
            compared={"any": 1} if self._any_pair else {"against_best": AGAINST_BEST, "among_best": AMONG_BEST},
        )

    @cached_property
    def _entries(self) -> dict[str, tuple[Entry, Section]]:
        """By the id in a path; runs that are folded into a row lead to it."""
        found: dict[str, tuple[Entry, Section]] = {}
        for section in self.sections:
            for entry in (*section.ranked, *section.apart):
                for run in entry.runs:
                    found[_short(run)] = entry, section
        return found

    @cached_property
    def _written_pairs(self) -> frozenset[str]:
        return frozenset(pair_path(*pair) for section in self.sections for pair in _pairs(section))

    def _row_page(self, short: str) -> str | None:
        if short not in self._entries:
            return None
        entry, section = self._entries[short]
        compared = None
        if entry.rank is not None and entry is not section.ranked[0]:
            path = pair_path(section.ranked[0].row, entry.row)
            compared = path if self._any_pair or path in self._written_pairs else None
        return row_page(
            entry,
            section,
            questions=self._questions_of(entry.row),
            timings=[run for one in entry.runs for run in self._board.timings(one.id)],
            has_gallery=entry.row.id in self._galleries,
            compared_path=compared,
        )

    def _pair_page(self, first: str, second: str) -> str | None:
        if first not in self._entries or second not in self._entries:
            return None
        if not self._any_pair and f"compare/{first}-{second}.html" not in self._written_pairs:
            return None
        one, other = self._entries[first][0].row, self._entries[second][0].row
        return comparison_page(one, other, self._questions_of(one), galleries=self._galleries)

    def _questions_of(self, row: Row) -> Questions | None:
        if row.questions_id is None:
            return None
        if row.questions_id not in self._questions:
            self._questions[row.questions_id] = self._board.questions(row.questions_id)
        found = self._questions[row.questions_id]
        # What another team handed over may name the queries of other data.
        return found if found is None or len(found) == row.score.num_queries else None


def write_site(board: Board, folder: Path, title: str = TITLE, galleries: Collection[str] | None = None) -> Path:
    """Write all pages of a board into a folder.

    Each page is whole or not there. Pages of rows and pairs that are no longer to be written are removed; other files
    of the folder, galleries among them, are left alone.

    Args:
        board: where the rows are.
        folder: made if it is not there.
        title: the heading of the board's page.
        galleries: ids of rows that have a page in ``folder/gallery``; those that lie there if not given.

    Returns:
        The board's own page, ``folder/index.html``.

    Raises:
        InputError: the board is damaged; or a file that is no page of a board has the name of one, then nothing is
            written.
        OSError: the folder cannot be written.
    """
    there = {path.stem for path in (folder / "gallery").glob("*.html")}
    site = Site(board, title=title, galleries=there if galleries is None else galleries)
    paths = list(site.paths())
    for path in paths:
        refuse_foreign(folder / path)
    written = set()
    for path in paths:
        text = site.page(path)
        assert text is not None, path
        write_text(folder / path, text)
        written.add(path)
    for path in _own_pages(folder) - written:
        (folder / path).unlink()
    return folder / INDEX


def _own_pages(folder: Path) -> set[str]:
    """Pages of rows and pairs that lie in a folder, by their names."""
    found = {f"{place}/{file.name}" for place in ("rows", "compare") for file in (folder / place).glob("*.html")}
    return {path for path in found if _ROW.fullmatch(path) or _PAIR.fullmatch(path)}


def _pairs(section: Section) -> Iterator[tuple[Row, Row]]:
    """The pairs of a section that have a page, the better row first."""
    ranked = [entry.row for entry in section.ranked]
    for place, first in enumerate(ranked[:AMONG_BEST]):
        last = AGAINST_BEST if place == 0 else AMONG_BEST
        for second in ranked[place + 1 : last]:
            yield first, second


def _short(row: Row) -> str:
    return row_path(row).removeprefix("rows/").removesuffix(".html")
