"""The paper's tables with our own figures beside the published ones, never in one column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.types import InputError
from leaderboard.entered import EnteredScore
from leaderboard.escapes import markdown_line
from leaderboard.published import PublishedTable, published

REPRODUCED = (2, 3, 5, 6, 7)
"""The tables whose figures this harness can measure."""

FINAL_RESULTS = 8
"""The table of the challenge's final results, beside which only scores stand that were told elsewhere."""

RENDERED_NOT_JUDGED = (
    "Measured on RENDERED data: no figure measured here says whether the paper's figures are reproduced."
)

TOLD = "told elsewhere, not measured here"

Measured = Mapping[int, Mapping[str, Mapping[str, float | None]]]
"""Table number → row name → column name → measured value in [0, 1], or None where there is none.

Row names are those of the paper (``ATSS``, ``m4``, ``WBF_3``, ``m1-16 (w/o m7)``, ``WBF_5 (126k) | NN``); others are
added below. Column names are the table's.
"""

Entered = Mapping[int, Mapping[str, EnteredScore]]
"""Table number → row name → the official score that was told elsewhere, for the columns that are filled so."""

Cell = str | float | None

Kind = Literal["label", "published", "measured", "entered", "reproduced", "setting"]


@dataclass(frozen=True)
class Column:
    """A column of a `PaperTable`: its heading, and where its figures come from."""

    heading: str
    kind: Kind


@dataclass(frozen=True)
class PaperTable:
    """One table, ready to be shown anywhere.

    Attributes:
        number: the paper's number of the table.
        title: what it shows.
        unit: ``percent``, ``fraction`` or ``count``, of all figures; ``words`` where there are none.
        columns: headings with their kinds. A cell under ``reproduced`` is ``yes``, ``no, by +0.0130`` (ours less the
            published figure), or blank where that was not judged.
        rows: one cell a column; None is blank.
        published_places: decimal places that the published figures were printed with.
        notes: what a reader has to know.
        rendered: whether any figure was measured on rendered data.
    """

    number: int
    title: str
    unit: Literal["percent", "fraction", "count", "words"]
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    published_places: int
    notes: tuple[str, ...]
    rendered: bool = False

    def texts(self) -> list[list[str]]:
        """The cells as they are shown; published figures as they were printed, blank where there is none."""
        own = {"percent": 1, "fraction": 4}.get(self.unit, 0)
        places = {"published": self.published_places, "entered": self.published_places}
        return [
            [_figure(cell, places.get(column.kind, own)) for cell, column in zip(row, self.columns, strict=True)]
            for row in self.rows
        ]

    def markdown(self) -> str:
        """The table in Markdown."""
        lines = [f"### Table {self.number}: {self.title}", ""]
        lines.append(markdown_line([column.heading for column in self.columns]))
        words = [column.kind in ("label", "reproduced") or self.unit == "words" for column in self.columns]
        lines.append("| " + " | ".join("---" if left else "---:" for left in words) + " |")
        lines += map(markdown_line, self.texts())
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines) + "\n"


def paper_tables(
    measured: Measured,
    rendered: bool,
    data: str,
    notes: Mapping[int, Sequence[str]] | None = None,
    *,
    entered: Entered | None = None,
    not_judged: str | None = None,
) -> list[PaperTable]:
    """The paper's tables 2, 3, 5, 6 and 7: published figures, measured ones, and which of them are reproduced.

    Args:
        measured: what was measured, by the paper's protocol, of rows that count; anything may be missing.
        rendered: whether it was measured on rendered data, which the headings then say; such figures are never judged.
        data: a short name of the data that was measured on, for the headings.
        notes: table number → what a reader has to know of what was measured.
        entered: scores that were told elsewhere, on photographs.
        not_judged: why measured figures of photographs are not judged either, such as that they are of another split;
            a note says it. None to judge them.

    Returns:
        All five tables, in order.

    Raises:
        InputError: a table or a column that is not in the paper; lists those that are.
        ValueError: a measured value outside [0, 1], or an entered score of rendered data.
    """
    for number in (*measured, *(entered or {})):
        if number not in REPRODUCED:
            raise InputError(f"table {number}: cannot be measured, expected one of {', '.join(map(str, REPRODUCED))}")
    heading = f"measured on {'RENDERED data' if rendered else 'photographs'} ({data})"
    reason = RENDERED_NOT_JUDGED if rendered else not_judged
    more, told = notes or {}, entered or {}
    return [
        _table(published().table(one), measured.get(one, {}), told.get(one, {}), heading, more.get(one, ()), reason)
        for one in REPRODUCED
    ]


def final_results(entered: Sequence[EnteredScore]) -> PaperTable:
    """The paper's Table 8 with the official test scores that were entered below the published ones.

    Nothing in it is judged: the published figures are those of other teams, and Table 6 has the paper's own.

    Args:
        entered: of any split and data; only those of photographs of the test split are shown.
    """
    paper = published().table(FINAL_RESULTS)
    ours = sorted((one for one in entered if one.split == "test" and not one.rendered), key=lambda one: -one.acc[10])
    columns = [Column(label, "label") for label in paper.labels]
    columns += [Column(f"Acc@10 published ({paper.data})", "published"), Column(f"Acc@10 {TOLD}", "entered")]
    columns.append(Column("told by", "label"))
    rows: list[tuple[Cell, ...]] = [
        (*(str(row[label]) for label in paper.labels), paper.value(number, "Acc@10"), None, None)
        for number, row in enumerate(paper.rows)
    ]
    rows += [(None, None, one.name, None, one.acc[10], one.source) for one in ours]
    notes = list(paper.notes)
    if not ours:
        notes.append("No official score of the test split was entered on this board.")
    return PaperTable(paper.number, paper.title, paper.unit, tuple(columns), tuple(rows), paper.places, tuple(notes))


def sources_table(here: Mapping[str, tuple[int, int, bool]]) -> PaperTable:
    """The paper's Table 1 beside the data sets at hand.

    Args:
        here: data set -> different items, photos, and whether any were rendered; further data sets come last.
    """
    paper = published().table(1)
    known = {paper.row_key(number): number for number in range(len(paper.rows))}
    rows: list[tuple[Cell, ...]] = []
    for name in [*known, *(name for name in here if name not in known)]:
        told = [None if name not in known else paper.value(known[name], column) for column in paper.columns]
        items, images, rendered = here.get(name, (None, None, None))
        what = None if rendered is None else "RENDERED" if rendered else "photographs"
        same = paper.reproduced("images", told[1], images) if rendered is False else None
        rows.append((name, told[0], items, told[1], images, same, what))
    columns = (
        Column("dataset", "label"),
        Column("pairs published", "published"),
        Column("items at hand", "measured"),
        Column("images published", "published"),
        Column("images at hand", "measured"),
        Column("images reproduced (exactly)", "reproduced"),
        Column("at hand are", "label"),
    )
    note = (
        "What the paper calls a pair differs between its data sets: for MVC, MPV and Zalando it is about one an item, "
        "for Street2Shop a match of a street photo and a product, for DeepFashion2 a pair of matching garments."
    )
    notes = [*paper.notes, note, paper.tolerance_reason]
    any_rendered = any(rendered for _, _, rendered in here.values())
    if any_rendered:
        notes.append(RENDERED_NOT_JUDGED)
    return PaperTable(1, paper.title, paper.unit, columns, tuple(rows), 0, tuple(notes), any_rendered)


def settings_table(here: Mapping[str, Mapping[str, str]]) -> PaperTable:
    """The paper's Table 4 beside what its settings become here; words, so that nothing in it is judged.

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
    entered: Mapping[str, EnteredScore],
    heading: str,
    notes: Sequence[str],
    not_judged: str | None,
) -> PaperTable:
    _refuse_strange(paper, measured, entered)
    known = {paper.row_key(number): number for number in range(len(paper.rows))}
    columns = [Column(label, "label") for label in paper.labels]
    for name in paper.columns:
        columns.append(Column(f"{name} published ({paper.measured_on(name)})", "published"))
        told = name in paper.entered
        columns.append(Column(f"{name} {TOLD if told else heading}", "entered" if told else "measured"))
        if name in paper.tolerance:
            tolerance = paper.tolerance[name]
            unit = "" if paper.unit != "percent" else " point" if tolerance == 1 else " points"
            columns.append(Column(f"{name} reproduced (within {tolerance:g}{unit})", "reproduced"))
    rows: list[tuple[Cell, ...]] = []
    judged_any = False
    for name in dict.fromkeys((*known, *measured, *entered)):
        number = known.get(name)
        if number is None:
            keys = dict(zip(paper.key or paper.labels[:1], name.split(" | "), strict=False))
            cells: list[Cell] = [keys.get(label) for label in paper.labels]
        else:
            cells = [str(paper.rows[number][label]) for label in paper.labels]
        for column in paper.columns:
            published_figure = None if number is None else paper.value(number, column)
            if column in paper.entered:
                ours = entered[name].acc[10] if name in entered else None
                judged = True
            else:
                ours, judged = measured.get(name, {}).get(column), not_judged is None
                judged_any |= ours is not None
            if ours is not None and paper.unit == "percent":
                ours *= 100
            cells += [published_figure, ours]
            if column in paper.tolerance:
                cells.append(paper.reproduced(column, published_figure, ours) if judged else None)
        rows.append(tuple(cells))
    sources = dict.fromkeys(f"{name}: {score.source}" for name, score in entered.items())
    said = [*paper.notes, paper.tolerance_reason, *notes]
    said += [f"Test scores were told by: {'; '.join(sources)}."] if sources else []
    said += [not_judged] if not_judged is not None and judged_any else []
    rendered = "RENDERED" in heading
    filled = tuple(note for note in said if note)
    return PaperTable(
        paper.number, paper.title, paper.unit, tuple(columns), tuple(rows), paper.places, filled, rendered
    )


def _refuse_strange(
    paper: PublishedTable, measured: Mapping[str, Mapping[str, float | None]], entered: Mapping[str, EnteredScore]
) -> None:
    own = [column for column in paper.columns if column not in paper.entered]
    for name, values in measured.items():
        for column, value in values.items():
            if column not in own:
                raise InputError(
                    f"table {paper.number}: {name}: unknown column {column!r}, expected one of {', '.join(own)}"
                )
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"table {paper.number}: {name}: {column}: expected a value in [0, 1], got {value}")
    for name, score in entered.items():
        if score.rendered or not paper.entered:
            raise ValueError(f"table {paper.number}: {name}: a score of rendered data, or one that has no place there")


def _figure(cell: Cell, places: int) -> str:
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else f"{cell:,.{places}f}"
