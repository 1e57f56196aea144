"""What lies at the place of a board: which format it has, or that it is none; and how an empty board is made there."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from filelock import FileLock
from sqlalchemy import URL, Connection, func, inspect, select, text

from harness.types import InputError
from leaderboard.database import Database, Place
from leaderboard.schema import METADATA, ROWS, VERSION, VERSION_TABLE, VERSIONS, create_tables

_CREATE_LOCK = 0x64665F626F617264
"""PostgreSQL's advisory lock while tables are made or migrated."""


def version_of(connection: Connection, name: str) -> str | None:
    """The format of the board in a database; None where there is none yet.

    Args:
        connection: to the database.
        name: of the board, for messages.

    Raises:
        InputError: it is a SQLite database of something else, or a board that no version of the code made.
    """
    tables = inspect(connection).get_table_names()
    if VERSION_TABLE in tables:
        stamps = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalars().all()
        missing = sorted(set(METADATA.tables) - set(tables)) if list(stamps) == [VERSION] else []
        if len(stamps) != 1 or missing:
            raise InputError(f"{name}: is no whole leaderboard (without {', '.join(missing) or 'version'}); restore it")
        return str(stamps[0])
    if ROWS.name in tables:
        columns = {column["name"] for column in inspect(connection).get_columns(ROWS.name)}
        # The first version bore no stamp.
        if not {"id", "created", "stage_seconds_json", "hit_ranks"} <= columns:
            raise InputError(
                f"{name}: has a table {ROWS.name} of another version, which no release made; give another path"
            )
        return VERSIONS[0]
    if connection.dialect.name == "sqlite" and tables:
        raise InputError(
            f"{name}: is a database, but no leaderboard (tables: {', '.join(sorted(tables)[:5])}); give another path"
        )
    return None


def refuse_newer(version: str, name: str) -> None:
    """Raise `InputError` if a board's version is none that this code knows."""
    if version not in VERSIONS:
        raise InputError(
            f"{name}: is a leaderboard of version {version}, later than {VERSION}, the last that this code knows; "
            "use a later version of the code"
        )


def lock_creation(connection: Connection) -> None:
    """Let one at a time make or migrate tables, until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_CREATE_LOCK)))


def refuse_path(path: Path, create: bool) -> None:
    """Raise `InputError` if a path cannot be that of a SQLite board.

    Args:
        path: of a file.
        create: whether it may be made.
    """
    try:
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
    except OSError as error:
        raise InputError(f"{path}: cannot be opened as a leaderboard: {error.strerror}") from error


def create_file(path: Path) -> None:
    """Make an empty SQLite board, whole or not at all: it gets its name when it is complete.

    Args:
        path: where; a board that is there stays.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    try:
        if path.exists() and path.stat().st_size:
            return
        unfinished = path.with_name(f".{path.name}.unfinished")
        with FileLock(path.with_name(f".{path.name}.lock")):
            if path.exists() and path.stat().st_size:
                return
            for name in (unfinished.name, f"{unfinished.name}-wal", f"{unfinished.name}-shm"):
                path.with_name(name).unlink(missing_ok=True)
            with closing(sqlite3.connect(unfinished)) as connection:
                # Readers and one writer at a time need not wait for one another; the file remembers the mode.
                connection.execute("PRAGMA journal_mode = WAL")
            database = Database(Place(URL.create("sqlite"), unfinished, str(path)))
            with database.writing("cannot be made a leaderboard") as opened:
                create_tables(opened)
            database.close()
            unfinished.replace(path)
    except (OSError, sqlite3.Error) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"{path}: cannot be made a leaderboard: {said}; give a path in a folder that can be written"
        ) from error
