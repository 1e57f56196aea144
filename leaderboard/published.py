"""The numbers of the paper and of the challenge, read from ``published.toml``."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from harness.types import InputError


class PublishedTable(BaseModel):
    """One published table.

    Attributes:
        number: the paper's number of the table.
        title: what it shows.
        data: what it was measured on.
        unit: of every number in it.
        labels: the columns that say what a row is.
        key: the labels that name it; the first one if not given.
        columns: the columns that hold numbers.
        rows: a text for every label; a number for every column, or nothing where the paper has none.
        notes: what a reader has to know.
        name: where it was published, if not as the paper's table of that number.
        source: who published it; empty for the paper.
        tolerance: column -> within how much of the published figure one of ours counts as reproduced, in the table's
            unit; other columns are never judged.
        tolerance_reason: why so much.
        column_data: column -> what it was measured on, where the columns differ.
        entered: columns beside which stand scores that were told elsewhere, nothing that is measured here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    title: str
    data: str
    unit: Literal["percent", "fraction", "count"]
    labels: tuple[str, ...]
    key: tuple[str, ...] = ()
    columns: tuple[str, ...]
    rows: tuple[dict[str, str | int | float], ...]
    notes: tuple[str, ...] = ()
    name: str = ""
    source: str = ""
    tolerance: dict[str, float] = {}
    tolerance_reason: str = ""
    column_data: dict[str, str] = {}
    entered: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_rows(self) -> Self:
        limit = {"percent": 100.0, "fraction": 1.0, "count": float("inf")}[self.unit]
        for number, row in enumerate(self.rows):
            for name, value in row.items():
                if name in self.labels:
                    fits = isinstance(value, str)
                else:
                    fits = name in self.columns and not isinstance(value, str) and 0 <= value <= limit
                if not fits:
                    raise ValueError(f"row {number}: {name}: {value!r} does not belong there")
            missing = set(self.labels) - set(row)
            if missing:
                raise ValueError(f"row {number}: without {', '.join(sorted(missing))}")
        return self

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        for what in ("tolerance", "column_data", "entered"):
            strange = sorted(set(getattr(self, what)) - set(self.columns))
            if strange:
                raise ValueError(f"{what}: {strange[0]!r} is no column; expected some of {', '.join(self.columns)}")
        if any(not (value >= 0 and value < float("inf")) for value in self.tolerance.values()):
            raise ValueError("tolerance: expected numbers >= 0")
        if self.tolerance and not self.tolerance_reason:
            raise ValueError("tolerance: expected a tolerance_reason beside it")
        return self

    @property
    def heading(self) -> str:
        """What it is called: ``Table 6``, or by its name where another source has it."""
        return self.name or f"Table {self.number}"

    def measured_on(self, column: str) -> str:
        """What a column was measured on."""
        return self.column_data.get(column, self.data)

    def row_key(self, row: int) -> str:
        """The name of a row, such as ``m4`` or ``WBF_5 (126k) | NN``."""
        return " | ".join(str(self.rows[row][label]) for label in self.key or self.labels[:1])

    @property
    def places(self) -> int:
        """Decimal places that the table was printed with."""
        figures = (value for row in self.rows for name, value in row.items() if name in self.columns)
        return max(len(str(figure).partition(".")[2]) for figure in figures)

    def value(self, row: int, column: str) -> float | None:
        """The number in a row and column; None where the paper has none."""
        found = self.rows[row].get(column)
        return None if found is None else float(found)

    def reproduced(self, column: str, told: float | None, ours: float | None) -> str | None:
        """Whether a figure of ours is within the tolerance of the published one.

        Args:
            column: one of its columns.
            told: the published figure.
            ours: ours, in the table's unit.

        Returns:
            ``yes``, ``no, by +0.0130`` (ours less the published one), or None where either is missing or the column
            has no tolerance.
        """
        tolerance = self.tolerance.get(column)
        if tolerance is None or told is None or ours is None:
            return None
        difference = ours - told
        # A figure on the very edge is within it, whatever binary fractions make of the two.
        if abs(difference) <= tolerance + 1e-9:
            return "yes"
        places = {"percent": 2, "fraction": 4}.get(self.unit, 0)
        return f"no, by {difference:+,.{places}f}"


class PublishedSettings(BaseModel):
    """A published table of settings, words beside words.

    Attributes:
        number: the paper's number of the table.
        title: what it shows.
        rows: parameter -> value, as the paper writes them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    title: str
    rows: dict[str, str]


class Published(BaseModel):
    """All published tables and where they were published.

    Attributes:
        source: of all tables that name no other.
        released: split -> photos of DeepFashion2 that were handed out.
        tables: by number.
        settings: Table 4.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    released: dict[str, int]
    tables: tuple[PublishedTable, ...]
    settings: PublishedSettings

    def table(self, number: int) -> PublishedTable:
        """The table with the paper's number.

        Raises:
            InputError: there is no such table; lists those that there are.
        """
        for table in self.tables:
            if table.number == number:
                return table
        raise InputError(f"table {number}: unknown, expected one of {', '.join(str(t.number) for t in self.tables)}")


@cache
def published() -> Published:
    """The published numbers that come with the package."""
    return read_published(Path(__file__).with_name("published.toml"))


def read_published(path: Path) -> Published:
    """Read published numbers.

    Args:
        path: a TOML file in the form of ``published.toml``.

    Raises:
        InputError: the file cannot be read, or an entry is wrong; names the place.
    """
    try:
        return Published.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
