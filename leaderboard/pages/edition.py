"""The pages of one state of a board, made when they are first asked for and kept until the board changes."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

from harness.types import InputError
from leaderboard.pages.site import Site
from leaderboard.store import Board

HTML, JSON = "text/html; charset=utf-8", "application/json"

_KEPT_BYTES = 64 << 20
"""Of pages, packed and not, that are kept until the board changes."""


@dataclass(frozen=True)
class Page:
    """What is answered with, as bytes."""

    body: bytes
    mime: str = HTML

    @cached_property
    def tag(self) -> str:
        """Equal for equal contents."""
        return hashlib.sha256(self.body).hexdigest()[:32]

    @cached_property
    def packed(self) -> bytes:
        """Compressed by gzip; the same bytes each time."""
        return gzip.compress(self.body, 5, mtime=0)


class Edition:
    """The pages of one state of a board.

    Args:
        board: where the rows are.
        title: the heading of the board's page.
        galleries: beginnings of ids of rows, by the names of files.
    """

    def __init__(self, board: Board, title: str, galleries: frozenset[str]) -> None:
        self._board = board
        self._site = Site(board, title=title, galleries=_full_ids(board, galleries), any_pair=True)
        self._making = threading.Lock()
        self._pages: OrderedDict[str, Page] = OrderedDict()
        self._bytes = 0

    def page(self, path: str) -> Page | None:
        """A page by its path; None where there is none.

        Raises:
            InputError: the rows cannot be compared, or the board cannot be read.
        """
        found = self._pages.get(path)
        if found is None:
            with self._making:
                found = self._pages.get(path) or self._make(path)
        return found

    def _make(self, path: str) -> Page | None:
        if path == "export.json":
            from leaderboard.exchange import export_board

            page = Page(json.dumps(export_board(self._board), ensure_ascii=False).encode(), JSON)
        else:
            text = self._site.page(path)
            if text is None:
                return None
            page = Page(text.encode())
        self._pages[path] = page
        self._bytes += len(page.body)
        while self._bytes > _KEPT_BYTES and len(self._pages) > 1:
            self._bytes -= len(self._pages.popitem(last=False)[1].body)
        return page


def _full_ids(board: Board, galleries: frozenset[str]) -> frozenset[str]:
    """Ids of the rows whose galleries these are; those of rows that the board has not are left out."""
    found = set()
    for short in galleries:
        try:
            found.add(board.row(short).id)
        except InputError:
            continue
    return frozenset(found)
