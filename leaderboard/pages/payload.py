"""The rows of a board as compact JSON, for the script of the board's page: 5,000 rows take about a megabyte."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from leaderboard.costs import PARTS, pareto, seconds_of_parts
from leaderboard.pages.links import row_path
from leaderboard.rows import Row
from leaderboard.standings import Entry, Section

if TYPE_CHECKING:
    from markupsafe import Markup

_FIRST_MODEL = re.compile(r"[^\s,*+|]+?(?=-\d+(?:\D|$)|[\s,*+|]|$)")


class _Texts:
    """Texts that many rows share, each kept once."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}

    def place(self, text: str) -> int:
        return self.places.setdefault(text, len(self.places))


def payload(sections: Sequence[Section], galleries: Collection[str], compared: dict[str, Any]) -> Markup:
    """What the page's script sorts, filters and groups, as JSON that may stand in a ``<script>`` element.

    Args:
        sections: of the page, in its order.
        galleries: ids of rows whose answers can be looked at.
        compared: which pairs have a page: ``any``, or ``against_best`` and ``among_best``, numbers of ranked rows.
    """
    texts = _Texts()
    parts = []
    for section in sections:
        front = front_of(section)
        parts.append(
            {
                "axis": section.axis,
                "longest": longest(section),
                "ranked": [_row(e, texts, e.row.id in front, galleries) for e in section.ranked],
                "apart": [_row(e, texts, False, galleries) for e in section.apart],
            }
        )
    return as_script({"texts": list(texts.places), "parts": PARTS, "compared": compared, "sections": parts})


def as_script(values: object) -> Markup:
    """JSON in which no character can end the element that it stands in, or a line of a script."""
    from markupsafe import Markup

    text = json.dumps(values, separators=(",", ":"))
    # Only ASCII is left; of that these three could begin an end tag, a comment or an entity.
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def front_of(section: Section) -> frozenset[str]:
    """Ids of the rows on the front of accuracy against cost, each against the others on the same hardware."""
    return frozenset(section.ranked[place].row.id for places in pareto(section.ranked).values() for place in places)


def longest(section: Section) -> float:
    """The longest total of a section, which its bars are drawn against, in seconds."""
    return max((entry.total_seconds or 0.0 for entry in (*section.ranked, *section.apart)), default=0.0)


def box_source(row: Row) -> str:
    """Where the boxes are from, as the spec says it: ``WBF_5``, ``ATSS``, ``GT``; ``unknown`` where it does not."""
    return row.spec.partition(" + ")[2].partition(" | ")[0].strip() or "unknown"


def first_model(row: Row) -> str:
    """The first retrieval model of the spec: ``m1`` of ``m1-16 (w/o m7) + WBF_5``."""
    found = _FIRST_MODEL.match(row.spec)
    return found[0] if found else "unknown"


def _row(entry: Entry, texts: _Texts, on_front: bool, galleries: Collection[str]) -> list[Any]:
    """In the order that ``leaderboard.js`` names."""
    row = entry.row
    acc = row.score.acc
    return [
        row_path(row).removeprefix("rows/").removesuffix(".html"),
        row.name,
        0 if row.spec == row.name else row.spec,
        entry.rank,
        *(round(value, 12) for value in (acc[10], entry.low, entry.high, acc[1], acc[20])),
        None if entry.total_seconds is None else round(entry.total_seconds, 3),
        texts.place(entry.hardware_label),
        texts.place(box_source(row)),
        texts.place(first_model(row)),
        round(row.created.timestamp()),
        texts.place(entry.versus_best if entry.rank is not None else ""),
        texts.place(ties(entry)),
        texts.place(remark(entry)),
        [texts.place(reason) for reason in entry.reasons],
        int(on_front),
        int(row.id in galleries),
        [number for part, took in seconds_of_parts(row).items() for number in (PARTS.index(part), round(took, 2))],
    ]


def ties(entry: Entry) -> str:
    """Those that the row cannot be told from: ``3 others: #2–#4``; empty where there is none."""
    return entry.tied_words if entry.tied_with else ""


def remark(entry: Entry) -> str:
    """What tells the row from others of the same ensemble, and its other names."""
    known = f"also known as {', '.join(entry.also_known_as)}" if entry.also_known_as else ""
    return "; ".join(text for text in (entry.variant, known) if text)
