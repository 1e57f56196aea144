"""The databases that hold studies: an SQLite file, or a server that several machines reach."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.trial import FrozenTrial

from harness.types import InputError

HEARTBEAT_S = 30
"""A worker says this often that it is alive."""

_MOST_COLLISIONS = 10

MISSED = 6
"""Heartbeats after which a worker counts as dead."""


@dataclass(frozen=True)
class Database:
    """Where studies are kept.

    Attributes:
        url: of SQLAlchemy's form.
        heartbeat_s: see `HEARTBEAT_S`.
    """

    url: str
    heartbeat_s: int = HEARTBEAT_S

    @classmethod
    def at(cls, where: Path | str) -> Database:
        """That of an SQLite file, or of a URL such as ``postgresql+psycopg://me@host/studies``."""
        text = str(where)
        return cls(text if "://" in text else f"sqlite:///{Path(text).absolute()}")

    @property
    def shown(self) -> str:
        """For people: without a password."""
        scheme, _, rest = self.url.partition("://")
        user, at, host = rest.rpartition("@")
        return self.url.removeprefix("sqlite:///") if not at else f"{scheme}://{user.partition(':')[0]}@{host}"

    @property
    def _file(self) -> Path | None:
        return Path(self.url.removeprefix("sqlite:///")) if self.url.startswith("sqlite:///") else None

    @contextmanager
    def open(
        self, when_stale: Callable[[optuna.Study, FrozenTrial], None] | None = None
    ) -> Iterator[optuna.storages.RDBStorage]:
        """The database, made where it is an SQLite file that is not there.

        Args:
            when_stale: called once, by whoever first notices, with a trial whose worker counts as dead.

        Raises:
            InputError: it cannot be reached, read or written, now or within the block.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats
            try:
                yield self._connected(when_stale)
            except ImportError as error:
                raise InputError(
                    f"{self.shown}: the driver for this database is not installed ({error}); for PostgreSQL: "
                    "pip install 'psycopg[binary]' and a URL that begins with postgresql+psycopg://"
                ) from error
            except Exception as error:
                cause = _database_error(error)
                if cause is None:
                    raise
                remedy = (
                    "where the disk is full make room, else remove the file and search anew"
                    if self._file is not None
                    else "see that the server runs and that the URL names an existing database, a user and a password"
                )
                raise InputError(f"{self.shown}: the studies' database cannot be used ({cause}); {remedy}") from error

    def turn(self) -> AbstractContextManager[Any]:
        """Held by a worker while it takes a trial for its own.

        A server locks the trial's row; of an SQLite file two can read that it waits before either has written that it
        runs, and both would run it.
        """
        return nullcontext() if self._file is None else FileLock(self._file.with_name(f".{self._file.name}.lock"))

    def _connected(self, when_stale: Any) -> optuna.storages.RDBStorage:
        """Connected by one worker at a time: Optuna makes the tables that it does not find, and two would collide."""
        options = {
            "heartbeat_interval": self.heartbeat_s,
            "grace_period": MISSED * self.heartbeat_s,
            "heartbeat_stale_trial_callback": when_stale,
        }
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self.turn():
                # Writers of an SQLite file wait for one another.
                patient = {"connect_args": {"timeout": 60}}
                return optuna.storages.RDBStorage(self.url, engine_kwargs=patient, **options)
        for _ in range(_MOST_COLLISIONS):
            try:
                return optuna.storages.RDBStorage(self.url, engine_kwargs={"pool_pre_ping": True}, **options)
            except Exception as error:  # of whichever driver
                if not re.search("already exists|duplicate key|does not exist", _database_error(error) or ""):
                    raise
                time.sleep(0.5)
        return optuna.storages.RDBStorage(self.url, engine_kwargs={"pool_pre_ping": True}, **options)


def _database_error(error: BaseException) -> str | None:
    """The first line of what a database said, if an error is one of a database."""
    causes: list[BaseException] = []
    while error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__ or error
    said = [one for one in causes if type(one).__module__.partition(".")[0] in ("sqlite3", "psycopg", "psycopg2")]
    if not said:
        said = [one for one in causes if type(one).__module__.partition(".")[0] == "sqlalchemy"]
    return (str(said[0]) or type(said[0]).__name__).splitlines()[0] if said else None
