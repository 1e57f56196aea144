"""The paper's tables with our own figures beside the published ones, never in one column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.types import InputError
from leaderboard.published import PublishedTable, published

REPRODUCED = (2, 3, 5, 6, 7)
"""The tables whose figures this harness can measure."""

Measured = Mapping[int, Mapping[str, Mapping[str, float | None]]]
"""Table number → row name → column name → measured value in [0, 1], or None where there is none.

Row names are those of the paper (``ATSS``, ``m4``, ``WBF_3``, ``m1-16 (w/o m7)``, ``WBF_5 (126k) | NN``); others are
added below. Column names are the table's.
"""

Cell = str | float | None


@dataclass(frozen=True)
class Column:
    """A column of a `PaperTable`: its heading, and where its figures come from."""

    heading: str
    kind: Literal["label", "published", "measured", "setting"]


@dataclass(frozen=True)
class PaperTable:
    """One table, ready to be shown anywhere.

    Attributes:
        number: the paper's number of the table.
        title: what it shows.
        unit: ``percent`` or ``fraction``, of both kinds of figures; ``words`` where there are none.
        columns: headings with their kinds.
        rows: one cell a column; None is blank.
        published_places: decimal places that the published figures were printed with.
        notes: what a reader has to know.
    """

    number: int
    title: str
    unit: Literal["percent", "fraction", "count", "words"]
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    published_places: int
    notes: tuple[str, ...]

    def markdown(self) -> str:
        """The table in Markdown; published figures as they were printed, blank where there is none."""
        measured_places = {"percent": 1, "fraction": 4}.get(self.unit, 0)
        places = [self.published_places if c.kind == "published" else measured_places for c in self.columns]
        lines = [f"### Table {self.number}: {self.title}", ""]
        lines.append(_markdown_line([column.heading for column in self.columns]))
        words = [column.kind == "label" or self.unit == "words" for column in self.columns]
        lines.append(_markdown_line(["---" if left else "---:" for left in words]))
        for row in self.rows:
            cells = zip(row, places, strict=True)
            lines.append(_markdown_line([_figure(cell, cell_places) for cell, cell_places in cells]))
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines) + "\n"


def paper_tables(
    measured: Measured, rendered: bool, data: str, notes: Mapping[int, Sequence[str]] | None = None
) -> list[PaperTable]:
    """The paper's tables 2, 3, 5, 6 and 7, published and measured figures apart.

    Args:
        measured: what was measured; anything may be missing.
        rendered: whether it was measured on rendered data, which the headings then say.
        data: a short name of the data that was measured on, for the headings.
        notes: table number → what a reader has to know of what was measured.

    Returns:
        All five tables, in order.

    Raises:
        InputError: a table or a column that is not in the paper; lists those that are.
        ValueError: a measured value outside [0, 1].
    """
    for number in measured:
        if number not in REPRODUCED:
            raise InputError(f"table {number}: cannot be measured, expected one of {', '.join(map(str, REPRODUCED))}")
    heading = f"measured on {'RENDERED data' if rendered else 'photographs'} ({data})"
    more = notes or {}
    return [
        _table(published().table(number), measured.get(number, {}), heading, more.get(number, ()))
        for number in REPRODUCED
    ]


def sources_table(here: Mapping[str, tuple[int, int, bool]]) -> PaperTable:
    """The paper's Table 1 beside the data sets at hand.

    Args:
        here: data set -> different items, photos, and whether any were rendered; further data sets come last.
    """
    paper = published().table(1)
    known = {paper.row_key(number): number for number in range(len(paper.rows))}
    rows: list[tuple[Cell, ...]] = []
    for name in [*known, *(name for name in here if name not in known)]:
        told: list[Cell] = [None if name not in known else paper.value(known[name], column) for column in paper.columns]
        items, images, rendered = here.get(name, (None, None, None))
        what = None if rendered is None else "RENDERED" if rendered else "photographs"
        rows.append((name, told[0], items, told[1], images, what))
    columns = (
        Column("dataset", "label"),
        Column("pairs published", "published"),
        Column("items at hand", "measured"),
        Column("images published", "published"),
        Column("images at hand", "measured"),
        Column("at hand are", "label"),
    )
    note = (
        "What the paper calls a pair differs between its data sets: for MVC, MPV and Zalando it is about one an item, "
        "for Street2Shop a match of a street photo and a product, for DeepFashion2 a pair of matching garments."
    )
    return PaperTable(1, paper.title, paper.unit, columns, tuple(rows), 0, (*paper.notes, note))


def settings_table(here: Mapping[str, Mapping[str, str]]) -> PaperTable:
    """The paper's Table 4 beside what its settings become here.

    Args:
        here: heading of a column → parameter, as the paper calls it → the value here.

    Raises:
        InputError: a parameter that is not in the paper; lists those that are.
    """
    paper = published().settings
    for values in here.values():
        strange = [name for name in values if name not in paper.rows]
        if strange:
            raise InputError(f"table {paper.number}: {strange[0]!r} is not in it; expected {', '.join(paper.rows)}")
    columns = [Column("parameter", "label"), Column("published", "published")]
    columns += [Column(heading, "setting") for heading in here]
    rows = [(name, value, *(values.get(name) for values in here.values())) for name, value in paper.rows.items()]
    return PaperTable(paper.number, paper.title, "words", tuple(columns), tuple(rows), 0, ())


def _table(
    paper: PublishedTable,
    measured: Mapping[str, Mapping[str, float | None]],
    heading: str,
    notes: Sequence[str],
) -> PaperTable:
    for name, values in measured.items():
        for column, value in values.items():
            if column not in paper.columns:
                raise InputError(
                    f"table {paper.number}: {name}: unknown column {column!r}, "
                    f"expected one of {', '.join(paper.columns)}"
                )
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"table {paper.number}: {name}: {column}: expected a value in [0, 1], got {value}")
    known = {paper.row_key(number): number for number in range(len(paper.rows))}
    columns = [Column(label, "label") for label in paper.labels]
    for name in paper.columns:
        columns += [Column(f"{name} published ({paper.data})", "published"), Column(f"{name} {heading}", "measured")]
    rows: list[tuple[Cell, ...]] = []
    for name in [*known, *(name for name in measured if name not in known)]:
        number = known.get(name)
        if number is None:
            keys = dict(zip(paper.key or paper.labels[:1], name.split(" | "), strict=False))
            cells: list[Cell] = [keys.get(label) for label in paper.labels]
        else:
            cells = [str(paper.rows[number][label]) for label in paper.labels]
        for column in paper.columns:
            ours = measured.get(name, {}).get(column)
            if ours is not None and paper.unit == "percent":
                ours *= 100
            cells += [None if number is None else paper.value(number, column), ours]
        rows.append(tuple(cells))
    return PaperTable(
        paper.number, paper.title, paper.unit, tuple(columns), tuple(rows), paper.places, (*paper.notes, *notes)
    )


def _figure(cell: Cell, places: int) -> str:
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else f"{cell:.{places}f}"


def _markdown_line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
