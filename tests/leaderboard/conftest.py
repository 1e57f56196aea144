"""Boards on both databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.leaderboard import postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A PostgreSQL server for the whole session, which tests leave running."""
    if postgres.programs() is None:
        pytest.skip(postgres.MISSING)
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed (pip install 'psycopg[binary]')")
    with postgres.server() as one:
        yield one


@pytest.fixture
def postgres_url(postgres_server: postgres.Server) -> str:
    """The URL of an empty database."""
    return postgres_server.new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where there is no board yet: the path of a file, then the URL of an empty database."""
    if request.param == "sqlite":
        return str(tmp_path / "board.db")
    return str(request.getfixturevalue("postgres_url"))
