"""The database under a board: where it is, how it is reached, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool, Pool, QueuePool, StaticPool

from harness.types import InputError

BUSY_SECONDS = 60
"""How long a writer waits for another one."""
CONNECT_SECONDS = 10
"""How long a server may take to answer; ``?connect_timeout=`` in the URL says otherwise."""

_SECRET = ("password", "passfile", "sslpassword", "passwd", "pwd")
_SERVER_GONE = "check that the server runs and can be reached from here; what was added before is kept"
_REMEDIES = {
    "SQLITE_FULL": "make room on the disk and try again; what was added before is kept",
    "SQLITE_READONLY": "the file and its folder must be writable to add to a board",
    "SQLITE_BUSY": f"another program has held the board for {BUSY_SECONDS} s; try again when it is done",
    "SQLITE_CORRUPT": "the file is damaged; restore the board from a copy or from an export",
    "SQLITE_NOTADB": "the file is damaged, or no board; restore the board from a copy, or give another path",
    "SQLITE_IOERR": "look after the disk and try again; what was added before is kept",
    "SQLITE_CANTOPEN": "the file and its folder must be there and readable",
    "28": "give the user and the password that the server expects",
    "3D000": "make the database first, with createdb",
    "42501": "ask whoever keeps the database for the rights",
    "53100": "make room on the server's disk and try again; what was added before is kept",
    "53300": "try again when others are done",
    "25006": "the server takes no writing now, so give the URL of one that does",
    "57P": _SERVER_GONE,
    "08": _SERVER_GONE,
}
"""Beginning of an SQLite error's name, or of PostgreSQL's SQLSTATE -> what to do."""
_SAID_AT_THE_DOOR = {
    "FATAL: password": "28",
    "FATAL: no pg_hba.conf": "28",
    "FATAL: role": "28",
    "no password supplied": "28",
    "FATAL: database": "3D000",
    "FATAL: sorry, too many": "53300",
    "FATAL: remaining connection slots": "53300",
}
"""The driver gives no SQLSTATE where the server turns a connection away, only this text."""


@dataclass(frozen=True)
class Place:
    """Where a board is.

    Attributes:
        url: for SQLAlchemy.
        path: the SQLite file; None for a server, and in memory.
        name: for messages, without a password.
    """

    url: URL
    path: Path | None
    name: str

    @classmethod
    def of(cls, path_or_url: str | Path) -> Self:
        """Read a file path, or a URL.

        Raises:
            InputError: it is neither, or a database of another kind.
        """
        if not (isinstance(path_or_url, str) and "://" in path_or_url):
            return cls(URL.create("sqlite", database=str(path_or_url)), Path(path_or_url), str(path_or_url))
        kind = path_or_url.partition("://")[0]
        try:
            url = make_url(path_or_url)
        except (ArgumentError, ValueError):
            # The error and the rest of the text may hold a password.
            raise InputError(
                f"{kind}://…: cannot be read as a database URL; expected postgresql://user@host/name"
            ) from None
        if url.drivername in ("postgres", "postgresql"):
            url = url.set(drivername="postgresql+psycopg")
        if path_or_url.partition("?")[0].count("@") > 1:
            # What follows the first one is taken for the host, and would be shown.
            raise InputError(f"{kind}://…: has more than one @; write that of a password as %40, and / as %2F")
        hidden = url.update_query_dict({key: "***" for key in url.query if key.lower() in _SECRET})
        name = hidden.render_as_string(hide_password=True)
        if url.get_backend_name() not in ("sqlite", "postgresql"):
            raise InputError(
                f"{name}: cannot be used as a database URL: a board is a SQLite file or in PostgreSQL, "
                f"got {url.get_backend_name()}"
            )
        if url.get_backend_name() == "postgresql":
            return cls(url, None, name)
        if url.query:
            raise InputError(f"{name}: options of SQLite are not taken; give the path of the file")
        in_memory = url.database in (None, "", ":memory:")
        return cls(url, None if in_memory else Path(str(url.database)), name)

    @property
    def read_only(self) -> bool:
        """Whether the file or its folder cannot be written; never of a server, which says so when it is asked."""
        return self.path is not None and not (_writable(self.path) and _writable(self.path.parent))

    def without_secrets(self, text: str) -> str:
        """A driver's message on one line, without the password."""
        secrets = [self.url.password, *(value for key, value in self.url.query.items() if key.lower() in _SECRET)]
        for secret in secrets:
            if secret:
                text = text.replace(str(secret), "***")
        return " ".join(text.split())


class Database:
    """Connections to a board's database, with errors that say what to do.

    Args:
        place: where it is; a file must be there.

    Raises:
        InputError: there is no driver for the URL.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        try:
            self.engine = _engine(place)
        except ImportError as error:
            if place.url.drivername == "postgresql+psycopg":
                raise InputError(
                    f"{place.name}: PostgreSQL needs its driver, which is not installed: pip install 'psycopg[binary]' "
                    "(or this package with its extra: postgres)"
                ) from error
            raise InputError(f"{place.name}: cannot be used as a database URL: {error}") from error
        except (ArgumentError, NoSuchModuleError) as error:
            said = place.without_secrets(str(error))
            raise InputError(f"{place.name}: cannot be used as a database URL: {said}") from None

    @contextmanager
    def reading(self, what: str = "cannot be read") -> Iterator[Connection]:
        """A connection that sees one state of the board, whatever is added meanwhile.

        Args:
            what: goes wrong, for messages.

        Raises:
            InputError: the database refuses, or is gone.
        """
        with self._told(what), self.engine.connect() as connection:
            if self.engine.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextmanager
    def writing(self, what: str = "the row cannot be written") -> Iterator[Connection]:
        """A connection whose changes are all kept when the block ends, and none of them if it fails.

        Args:
            what: goes wrong, for messages.

        Raises:
            InputError: the database refuses, or is gone.
        """
        if self.place.read_only:
            raise InputError(f"{self.place.name}: {what}: is read-only; {_REMEDIES['SQLITE_READONLY']}")
        with self._told(what), self.engine.connect() as connection:
            # Begun as a reader, SQLite could not wait for another writer when it comes to writing.
            connection = connection.execution_options(begin="BEGIN IMMEDIATE")
            with connection.begin():
                yield connection

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            said = self.place.without_secrets(str(error.orig))
            raise InputError(f"{self.place.name}: {what}: {said}; {_remedy(error)}") from None
        except PoolTimeout as error:
            raise InputError(f"{self.place.name}: {what}: too many readers and writers at once; try again") from error
        except UnicodeEncodeError as error:
            raise InputError(f"{self.place.name}: {what}: a text is no Unicode ({error.reason})") from error


def _remedy(error: DBAPIError) -> str:
    code = getattr(error.orig, "sqlite_errorname", None) or getattr(error.orig, "sqlstate", None)
    if code is None and not isinstance(error.orig, sqlite3.Error):
        said = " ".join(str(error.orig).split())
        code = next((state for words, state in _SAID_AT_THE_DOOR.items() if words in said), "08")
    found = next((remedy for start, remedy in _REMEDIES.items() if str(code).startswith(start)), None)
    return found or "nothing was changed; give the path or the URL of a board"


def _engine(place: Place) -> Engine:
    if place.url.get_backend_name() == "postgresql":
        options: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS, "application_name": "leaderboard"}
        options = {name: value for name, value in options.items() if name not in place.url.query}
        # A server that was started again since is found without the caller's notice.
        return create_engine(place.url, pool_pre_ping=True, connect_args=options, hide_parameters=True)
    if place.path is None:
        pool: type[Pool] = StaticPool
        connect = _opener(":memory:")
    elif place.read_only:
        # Connected anew each time, because how to read depends on whether someone writes just then.
        pool, connect = NullPool, lambda: _connect_read_only(place)
    else:
        pool, connect = QueuePool, _opener(f"{place.path.absolute().as_uri()}?mode=rw")
    engine = create_engine("sqlite://", creator=connect, poolclass=pool, hide_parameters=True)
    event.listen(engine, "begin", _begin)
    return engine


def _connect(uri: str) -> sqlite3.Connection:
    # Without an isolation level the driver begins nothing by itself: `_begin` does.
    return sqlite3.connect(
        uri, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=uri.startswith("file:")
    )


def _opener(uri: str) -> Callable[[], sqlite3.Connection]:
    def connect() -> sqlite3.Connection:
        connection = _connect(uri)
        # An acknowledged row outlives a power cut.
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    return connect


def _connect_read_only(place: Place) -> sqlite3.Connection:
    assert place.path is not None
    uri = place.path.absolute().as_uri()
    connection = _connect(f"{uri}?mode=ro")
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        return connection
    except sqlite3.OperationalError as error:
        connection.close()
        if error.sqlite_errorname.split("_")[1] not in ("CANTOPEN", "READONLY"):
            raise
    # SQLite reads a board of its usual mode only beside files that it may not make here; left alone, it needs none.
    newest = place.path.with_name(f"{place.path.name}-wal")
    if newest.exists() and newest.stat().st_size:
        raise InputError(
            f"{place.name}: its newest rows lie in {newest.name}, and the folder cannot be written to read them; "
            "copy both files into a folder of yours"
        )
    return _connect(f"{uri}?mode=ro&immutable=1")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)
