"""Boards of earlier versions, brought to today's by Alembic.

A new version is a module in `leaderboard.migrations.versions`, named after the one before it, whose `upgrade` spells
out what changes, without `leaderboard.schema`: that is of today, and the module must do the same in years. Then it is
named in `leaderboard.schema.VERSIONS`.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from harness.types import InputError
from leaderboard.database import Database, Place
from leaderboard.opening import lock_creation, refuse_newer, refuse_path, version_of
from leaderboard.schema import VERSION, VERSIONS


@dataclass(frozen=True)
class Migration:
    """What `migrate` did.

    Attributes:
        board: its path or URL, without a password.
        before: the version that it had.
        after: the version that it has.
        copy: of the board as it was before; None on a server, and where nothing was to be done.
    """

    board: str
    before: str
    after: str
    copy: Path | None = None


def migrate(path_or_url: str | Path) -> Migration:
    """Bring a board to today's version; interrupted or failing, it stays as it was.

    Of a SQLite file a copy is kept beside it, named ``NAME.before-0002``. A server is its keeper's to copy (pg_dump).

    Args:
        path_or_url: as for `leaderboard.store.Board`.

    Returns:
        What was done; ``before == after`` where nothing was.

    Raises:
        InputError: it is no board, or one of a later version, or it cannot be read or written, or a row is damaged.
    """
    place = Place.of(path_or_url)
    if place.path is not None:
        refuse_path(place.path, create=False)
    database = Database(place)
    try:
        with database.reading("cannot be opened as a leaderboard") as connection:
            before = _version(connection, place.name)
        if before == VERSION:
            return Migration(place.name, before, VERSION)
        with database.writing("cannot be migrated, and is as it was") as connection:
            lock_creation(connection)
            before = _version(connection, place.name)
            if before == VERSION:
                return Migration(place.name, before, VERSION)
            # Copied when no one else can write any more, so that the copy has every row.
            copy = None if place.path is None else _copy(place.path)
            _upgrade(connection, before, place.name)
        return Migration(place.name, before, VERSION, copy)
    finally:
        database.close()


def _version(connection: Connection, name: str) -> str:
    found = version_of(connection, name)
    if found is None:
        raise InputError(f"{name}: holds no leaderboard yet, so there is nothing to migrate")
    refuse_newer(found, name)
    return found


def _upgrade(connection: Connection, before: str, name: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    # A percent sign would begin a reference to another option.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    if before == VERSIONS[0]:
        command.stamp(config, before)
    try:
        command.upgrade(config, VERSION)
    except ValueError as error:
        raise InputError(f"{name}: cannot be migrated, and is as it was: {error}") from error


def _copy(path: Path) -> Path:
    """Copy a board, whole or not at all, to a name that was free."""
    unfinished = path.with_name(f".{path.name}.copy")
    unfinished.unlink(missing_ok=True)
    try:
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(unfinished)) as target,
        ):
            source.backup(target)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        number = 1
        while True:
            copy = path.with_name(f"{path.name}.before-{VERSION}" + (f".{number}" if number > 1 else ""))
            try:
                os.link(unfinished, copy)
            except FileExistsError:
                number += 1
            else:
                _sync_folder(path.parent)
                return copy
    except (OSError, sqlite3.Error) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be migrated, and is as it was: no copy can be kept: {said}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Bring new names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
