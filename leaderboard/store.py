"""The board: scored rows in a database, appended and never edited."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import (
    DDL,
    URL,
    Boolean,
    Column,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    inspect,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, NoSuchModuleError
from sqlalchemy.sql.elements import ColumnElement

from harness.types import RANKS, InputError
from leaderboard.rows import Row, pack_ranks, unpack_ranks

BUSY_SECONDS = 60
"""How long a writer waits for another one."""

_METADATA = MetaData()
ROWS = Table(
    "leaderboard_rows",
    _METADATA,
    Column("id", String(64), primary_key=True),
    Column("created", String(40), nullable=False),
    Column("name", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("split", String(16), nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("rendered", Boolean, nullable=False),
    Column("protocol", Text, nullable=False),
    Column("num_queries", Integer, nullable=False),
    *(Column(f"acc{k}", Float, nullable=False) for k in RANKS),
    Column("acc10_low", Float, nullable=False),
    Column("acc10_high", Float, nullable=False),
    Column("contamination", Text),
    Column("hedged", Boolean, nullable=False),
    Column("code_version", Text, nullable=False),
    Column("artifacts_json", Text, nullable=False),
    Column("hardware_json", Text, nullable=False),
    Column("stage_seconds_json", Text, nullable=False),
    Column("hit_ranks", LargeBinary, nullable=False),
)
"""Accuracies and interval are there for people who ask in SQL; the rows themselves are rebuilt from the outcome."""

for _verb in ("UPDATE", "DELETE"):
    event.listen(
        ROWS,
        "after_create",
        DDL(  # type: ignore[no-untyped-call]
            f"CREATE TRIGGER leaderboard_no_{_verb.lower()} BEFORE {_verb} ON leaderboard_rows "
            "BEGIN SELECT RAISE(ABORT, 'leaderboard rows are appended, never edited'); END"
        ).execute_if(dialect="sqlite"),
    )


class Board:
    """A leaderboard in a SQLite file, or in any database that SQLAlchemy can reach.

    Args:
        path_or_url: a file path, or a URL such as ``postgresql+psycopg://host/name``.
        create: make an empty board where there is none.

    Raises:
        InputError: the path is no board (another file, another database, a folder), or there is none and ``create`` is
            not set, or the URL cannot be used.
    """

    def __init__(self, path_or_url: str | Path, create: bool = True) -> None:
        self.name = str(path_or_url)
        if isinstance(path_or_url, str) and "://" in path_or_url:
            url = _read_url(path_or_url)
            self.name = url.render_as_string(hide_password=True)
        else:
            url = URL.create("sqlite", database=str(path_or_url))
        path = (
            Path(str(url.database))
            if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
            else None
        )
        if path is not None:
            _refuse_path(path, create)
        try:
            if path is not None and create:
                _create_file(path)
            self._engine = _engine(url)
            self._open(create)
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise InputError(f"{self.name}: cannot be used as a database URL: {error}") from error
        except DatabaseError as error:
            raise InputError(
                f"{self.name}: cannot be opened as a leaderboard: {error.orig}; give the path of a board, or a new path"
            ) from error

    def _open(self, create: bool) -> None:
        found = inspect(self._engine)
        tables = found.get_table_names()
        if ROWS.name in tables:
            missing = {column.name for column in ROWS.columns} - {c["name"] for c in found.get_columns(ROWS.name)}
            if missing:
                raise InputError(
                    f"{self.name}: is a leaderboard of another version (without {', '.join(sorted(missing))}); "
                    "give a new path"
                )
        elif self._engine.dialect.name == "sqlite" and tables:
            raise InputError(
                f"{self.name}: is a database, but no leaderboard (tables: {', '.join(sorted(tables)[:5])}); "
                "give another path"
            )
        elif create:
            _METADATA.create_all(self._engine)
        else:
            raise InputError(f"{self.name}: holds no leaderboard yet; score something first")

    def add(self, row: Row) -> str:
        """Append a row; the same result added again stays one row, the first.

        Args:
            row: what was scored.

        Returns:
            The row's id.

        Raises:
            InputError: the database refuses to be written.
        """
        low, high = row.interval(10)
        values: dict[str, Any] = {
            "id": row.id,
            "created": row.created.isoformat(),
            "name": row.name,
            "spec": row.spec,
            "split": row.split,
            "fingerprint": row.fingerprint,
            "rendered": row.rendered,
            "protocol": row.score.protocol,
            "num_queries": row.score.num_queries,
            **{f"acc{k}": row.score.acc[k] for k in RANKS},
            "acc10_low": low,
            "acc10_high": high,
            "contamination": row.contamination,
            "hedged": row.hedged,
            "code_version": row.code_version,
            "artifacts_json": json.dumps(list(row.artifacts)),
            "hardware_json": json.dumps(dict(row.hardware), ensure_ascii=False),
            "stage_seconds_json": json.dumps(dict(row.stage_seconds), ensure_ascii=False),
            "hit_ranks": pack_ranks(row.score),
        }
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(ROWS).values(values))
        except IntegrityError:
            if not self._has(row.id):
                raise
        except DatabaseError as error:
            raise InputError(f"{self.name}: the row cannot be written: {error.orig}") from error
        return row.id

    def rows(
        self, *, split: str | None = None, fingerprint: str | None = None, protocol: str | None = None
    ) -> list[Row]:
        """The rows in the order in which they were made.

        Args:
            split: only rows of this split.
            fingerprint: only rows of this data.
            protocol: only rows of this protocol.

        Raises:
            InputError: a row is damaged, or was changed after it was added; the message names it.
        """
        wanted: list[ColumnElement[bool]] = [
            ROWS.c[name] == value
            for name, value in (("split", split), ("fingerprint", fingerprint), ("protocol", protocol))
            if value is not None
        ]
        with self._engine.connect() as connection:
            found = connection.execute(select(ROWS).where(*wanted).order_by(ROWS.c.created, ROWS.c.id)).mappings().all()
        return [self._row(dict(values)) for values in found]

    def row(self, id_or_prefix: str) -> Row:
        """The one row whose id begins so.

        Raises:
            InputError: no row, or more than one.
        """
        found = [row for row in self.rows() if id_or_prefix and row.id.startswith(id_or_prefix)]
        if len(found) != 1:
            raise InputError(
                f"{self.name}: {len(found)} rows have an id that begins with {id_or_prefix!r}, expected one; "
                "the ids stand in the list of rows"
            )
        return found[0]

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def _has(self, row_id: str) -> bool:
        with self._engine.connect() as connection:
            return connection.execute(select(ROWS.c.id).where(ROWS.c.id == row_id)).first() is not None

    def _row(self, values: dict[str, Any]) -> Row:
        where = f"{self.name}: row {values['id'][:12]}"
        score = unpack_ranks(values["protocol"], values["num_queries"], values["hit_ranks"], where)
        try:
            row = Row(
                spec=values["spec"],
                name=values["name"],
                split=values["split"],
                fingerprint=values["fingerprint"],
                rendered=values["rendered"],
                artifacts=tuple(json.loads(values["artifacts_json"])),
                code_version=values["code_version"],
                hardware=json.loads(values["hardware_json"]),
                stage_seconds=json.loads(values["stage_seconds_json"]),
                score=score,
                contamination=values["contamination"],
                hedged=values["hedged"],
                created=datetime.fromisoformat(values["created"]),
            )
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{where}: is damaged ({error}); restore the board from a copy") from error
        if row.id != values["id"]:
            raise InputError(f"{where}: does not match its id, so it was changed; restore the board from a copy")
        return row


def _read_url(text: str) -> URL:
    try:
        return make_url(text)
    except (ArgumentError, ValueError) as error:
        # What stands before the @ may be a password.
        place = text.rsplit("@", 1)[-1]
        raise InputError(f"{place}: cannot be read as a database URL; expected driver://host/name") from error


def _engine(url: URL) -> Engine:
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _refuse_path(path: Path, create: bool) -> None:
    if path.is_dir():
        raise InputError(
            f"{path}: is a folder, not a leaderboard; give the path of a file, such as {path}/leaderboard.db"
        )
    if path.exists():
        with path.open("rb") as file:
            start = file.read(16)
        if start and start != b"SQLite format 3\x00":
            raise InputError(f"{path}: is no leaderboard (not a SQLite file); give another path")
    elif not create:
        raise InputError(f"{path}: there is no leaderboard; score something first, or give its path")
    elif not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")


def _create_file(path: Path) -> None:
    """Make an empty board, whole or not at all: it gets its name when it is complete."""
    if path.exists() and path.stat().st_size:
        return
    unfinished = path.with_name(f".{path.name}.unfinished")
    with FileLock(path.with_name(f".{path.name}.lock")):
        if path.exists() and path.stat().st_size:
            return
        unfinished.unlink(missing_ok=True)
        engine = _engine(URL.create("sqlite", database=str(unfinished)))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # Readers and one writer at a time need not wait for one another; the file remembers the mode.
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        _METADATA.create_all(engine)
        engine.dispose()
        unfinished.replace(path)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()
