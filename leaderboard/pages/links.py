"""Where the pages of a leaderboard lie, seen from its folder."""

from __future__ import annotations

from leaderboard.rows import Row

INDEX = "index.html"

_ID_CHARACTERS = 16
"""Of a row's id in the name of a file: 64 bits."""


def row_path(row: Row) -> str:
    """A row's own page."""
    return f"rows/{row.id[:_ID_CHARACTERS]}.html"


def pair_path(first: Row, second: Row) -> str:
    """The page that compares two rows; differences in it are second minus first."""
    return f"compare/{first.id[:_ID_CHARACTERS]}-{second.id[:_ID_CHARACTERS]}.html"


def gallery_path(row: Row) -> str:
    """The queries of a row with their answers, as pictures."""
    return f"gallery/{row.id[:_ID_CHARACTERS]}.html"
