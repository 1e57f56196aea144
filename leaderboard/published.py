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
    """All published tables and where they were published."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
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
