"""The board: scored rows in a database, appended and never edited."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import ColumnElement, Connection, Table, func, select
from sqlalchemy.dialects import postgresql, sqlite

from harness.scoring.questions import Questions
from harness.types import InputError
from leaderboard import records
from leaderboard.database import Database, Place
from leaderboard.entered import EnteredScore
from leaderboard.opening import create_file, lock_creation, refuse_newer, refuse_path, version_of
from leaderboard.rows import Row
from leaderboard.schema import ENTERED, QUESTIONS, ROWS, TIMINGS, VERSION, create_tables
from leaderboard.timing_runs import TimingRun


@dataclass(frozen=True)
class Content:
    """All that a board keeps, as of one moment, each kind by age.

    Attributes:
        rows: what was scored.
        questions: what is known of the queries of rows, by id.
        timings: benchmarks of rows.
        entered: scores told elsewhere.
    """

    rows: list[Row]
    questions: list[Questions]
    timings: list[TimingRun]
    entered: list[EnteredScore]


class Board:
    """A leaderboard in a SQLite file, or in a PostgreSQL database; also a context manager, which closes it.

    Args:
        path_or_url: a file path, or a URL such as ``postgresql://me@host/name``.
        create: make an empty board where there is none.

    Raises:
        InputError: the path is no board (another file, another database, a folder), or one of another version, or
            there is none and ``create`` is not set, or it cannot be read, or the URL cannot be used, or its server
            does not answer. No message holds a password.
    """

    def __init__(self, path_or_url: str | Path, create: bool = True) -> None:
        place = Place.of(path_or_url)
        self.name = place.name
        if place.path is not None:
            refuse_path(place.path, create)
            if create:
                create_file(place.path)
        self._database = Database(place)
        self._kept_questions: set[str] = set()
        try:
            self._open(create)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def _open(self, create: bool) -> None:
        with self._database.reading("cannot be opened as a leaderboard") as connection:
            version = version_of(connection, self.name)
        if version is None and create:
            with self._database.writing("cannot be made a leaderboard") as connection:
                lock_creation(connection)
                version = version_of(connection, self.name)
                if version is None:
                    create_tables(connection)
                    version = VERSION
        if version is None:
            raise InputError(f"{self.name}: holds no leaderboard yet; score something first")
        if version != VERSION:
            refuse_newer(version, self.name)
            raise InputError(
                f"{self.name}: is a leaderboard of version {version}, and this code reads version {VERSION}; bring it "
                f"up to date, nothing is lost: run.py leaderboard migrate --board {shlex.quote(self.name)}"
            )

    def add(self, row: Row, questions: Questions | None = None) -> str:
        """Append a row; the same result added again stays one row, the first.

        When this returns, the row is on the disk.

        Args:
            row: what was scored.
            questions: what is known of its queries, which slices are cut by; kept once for all rows of the same, and
                together with the row or not at all.

        Returns:
            The row's id.

        Raises:
            ValueError: the questions are not those of the row.
            InputError: the database refuses to be written.
        """
        if questions is not None and questions.id != row.questions_id:
            raise ValueError("questions: are not those of the row")
        values = records.row_values(row)
        asked = None
        if questions is not None and questions.id not in self._kept_questions:
            asked = records.questions_values(questions)
        with self._database.writing() as connection:
            if asked is not None:
                append(connection, QUESTIONS, [asked])
            append(connection, ROWS, [values])
        if asked is not None:
            self._kept_questions.add(asked["id"])
        return str(values["id"])

    def add_timing(self, run: TimingRun) -> str:
        """Append a benchmark of the stages of a row; returns its id.

        Raises:
            InputError: there is no such row, or the database refuses to be written.
        """
        values = records.timing_values(run)
        with self._database.writing("the timing cannot be written") as connection:
            if not ids(connection, ROWS, [run.row_id]):
                raise InputError(f"{self.name}: there is no row {run.row_id[:12]} that was timed; add the row first")
            append(connection, TIMINGS, [values])
        return str(values["id"])

    def enter(self, score: EnteredScore) -> str:
        """Append a score that was told elsewhere; the same one entered again stays one. Returns its id.

        Raises:
            InputError: the database refuses to be written.
        """
        values = records.entered_values(score)
        with self._database.writing("the score cannot be written") as connection:
            append(connection, ENTERED, [values])
        return str(values["id"])

    def rows(
        self, *, split: str | None = None, fingerprint: str | None = None, protocol: str | None = None
    ) -> list[Row]:
        """The rows in the order in which they were made.

        Args:
            split: only rows of this split.
            fingerprint: only rows of this data.
            protocol: only rows of this protocol.

        Raises:
            InputError: a row is damaged, or was changed after it was added; the message names it. Or the database
                cannot be read.
        """
        wanted = [
            ROWS.c[name] == value
            for name, value in (("split", split), ("fingerprint", fingerprint), ("protocol", protocol))
            if value is not None
        ]
        with self._database.reading() as connection:
            return self._rows(connection, wanted)

    def row(self, id_or_prefix: str) -> Row:
        """The one row whose id begins so.

        Raises:
            InputError: no row, or more than one; or as for `rows`.
        """
        prefix = id_or_prefix.lower()
        num_rows, found = 0, []
        if re.fullmatch("[0-9a-f]{1,64}", prefix):
            # A range, which both databases look up in the index; g comes after the last digit.
            wanted = [ROWS.c.id >= prefix, ROWS.c.id < prefix + "g"]
            with self._database.reading() as connection:
                num_rows = connection.execute(select(func.count()).select_from(ROWS).where(*wanted)).scalar_one()
                found = self._rows(connection, wanted) if num_rows == 1 else []
        if not found:
            raise InputError(
                f"{self.name}: {num_rows} rows have an id that begins with {id_or_prefix!r}, expected one; "
                "the ids stand in the list of rows"
            )
        return found[0]

    def questions(self, questions_id: str) -> Questions | None:
        """What is known of the queries of rows with this ``questions_id``; None where it was not kept.

        Raises:
            InputError: it is damaged or was changed, or the database cannot be read.
        """
        with self._database.reading() as connection:
            found = self._questions(connection, [QUESTIONS.c.id == questions_id])
        return found[0] if found else None

    def timings(self, row_id: str | None = None) -> list[TimingRun]:
        """Benchmarks of a row's stages, or of all rows, in the order in which they were made.

        Raises:
            InputError: one is damaged or was changed, or the database cannot be read.
        """
        with self._database.reading() as connection:
            return self._timings(connection, [] if row_id is None else [TIMINGS.c.row_id == row_id])

    def entered(self) -> list[EnteredScore]:
        """Scores that were told elsewhere, in the order in which they were entered.

        Raises:
            InputError: one is damaged or was changed, or the database cannot be read.
        """
        with self._database.reading() as connection:
            return self._entered(connection)

    def state(self) -> tuple[int, str, int, int]:
        """What tells one state of the board from another, as it is only ever added to: how many rows there are, the
        newest one's id, and how many benchmarks and entered scores.

        Raises:
            InputError: the database cannot be read.
        """
        with self._database.reading() as connection:
            rows, timings, entered = (
                connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in (ROWS, TIMINGS, ENTERED)
            )
            newest = select(ROWS.c.id).order_by(ROWS.c.created.desc(), ROWS.c.id.desc()).limit(1)
            return rows, connection.execute(newest).scalar() or "", timings, entered

    def content(self) -> Content:
        """All of it, as of one moment.

        Raises:
            InputError: as for `rows`.
        """
        with self._database.reading() as connection:
            questions = sorted(self._questions(connection, []), key=lambda one: one.id)
            return Content(
                self._rows(connection, []), questions, self._timings(connection, []), self._entered(connection)
            )

    @contextmanager
    def appending(self, what: str) -> Iterator[Connection]:
        """A connection for several `append`: all are kept when the block ends, or none.

        Args:
            what: goes wrong, for messages, such as ``cannot be imported into``.

        Raises:
            InputError: the database refuses to be written.
        """
        with self._database.writing(what) as connection:
            yield connection

    def _rows(self, connection: Connection, wanted: list[ColumnElement[bool]]) -> list[Row]:
        # Sorted here: databases differ in how they compare texts, and times differ in their zones.
        found = [(values["id"], records.row_from(values, self.name)) for values in _found(connection, ROWS, wanted)]
        return [row for _, row in sorted(found, key=lambda pair: (pair[1].created, pair[0]))]

    def _questions(self, connection: Connection, wanted: list[ColumnElement[bool]]) -> list[Questions]:
        return [records.questions_from(values, self.name) for values in _found(connection, QUESTIONS, wanted)]

    def _timings(self, connection: Connection, wanted: list[ColumnElement[bool]]) -> list[TimingRun]:
        found = [records.timing_from(values, self.name) for values in _found(connection, TIMINGS, wanted)]
        return sorted(found, key=lambda run: (run.created, run.id))

    def _entered(self, connection: Connection) -> list[EnteredScore]:
        found = [records.entered_from(values, self.name) for values in _found(connection, ENTERED, [])]
        return sorted(found, key=lambda score: (score.created, score.id))


def append(connection: Connection, table: Table, values: list[dict[str, Any]]) -> None:
    """Append to a table of a board what it does not have yet.

    Args:
        connection: from `Board.appending`.
        table: of `leaderboard.schema`.
        values: the columns, by `leaderboard.records`.
    """
    if values:
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        connection.execute(insert(table).on_conflict_do_nothing(), values)


def ids(connection: Connection, table: Table, among: Iterable[str]) -> set[str]:
    """Which of these ids a table of a board has."""
    wanted, there = list(among), set[str]()
    # SQLite takes no more than some thousands of parameters at once.
    for start in range(0, len(wanted), 500):
        some = select(table.c.id).where(table.c.id.in_(wanted[start : start + 500]))
        there.update(connection.execute(some).scalars())
    return there


def _found(connection: Connection, table: Table, wanted: list[ColumnElement[bool]]) -> Iterator[Any]:
    return iter(connection.execute(select(table).where(*wanted)).mappings())
