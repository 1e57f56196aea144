"""Databases that refuse, are damaged or go away: one clear message each, no password in any, nothing lost."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from harness.types import InputError
from leaderboard import database
from leaderboard.database import Place
from leaderboard.migrations import migrate
from leaderboard.schema import METADATA
from leaderboard.store import Board
from tests.leaderboard import postgres
from tests.leaderboard.samples import sample


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's right to write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everyone can look into."""
    path = Path(tempfile.mkdtemp(prefix="board-"))
    path.chmod(0o755)
    yield path
    path.chmod(0o755)
    shutil.rmtree(path)


def every_use(board: Board) -> list:
    """All that a board can be asked."""
    return [
        board.rows,
        board.timings,
        board.entered,
        board.content,
        lambda: board.questions("0" * 64),
        lambda: board.row("0"),
        lambda: board.add(sample("new")),
    ]


def test_a_read_only_board_is_read_and_not_written(folder):
    with Board(folder / "board.db") as board:
        board.add(sample())
    (folder / "board.db").chmod(0o444)
    folder.chmod(0o555)
    with as_nobody(), Board(folder / "board.db") as board:
        assert [row.name for row in board.rows()] == ["m4"]
        assert board.row(sample().id[:8]).name == "m4"
        with pytest.raises(InputError, match="is read-only; the file and its folder must be writable"):
            board.add(sample("new"))
    assert sorted(path.name for path in folder.iterdir()) == [".board.db.lock", "board.db"]


def test_a_read_only_board_shows_what_others_add_meanwhile(folder):
    path = folder / "board.db"
    with Board(path) as writer:
        writer.add(sample("first"))
        for name in ("board.db", "board.db-wal", "board.db-shm"):
            (folder / name).chmod(0o444)
        folder.chmod(0o555)
        with as_nobody():
            reader = Board(path, create=False)
            assert len(reader.rows()) == 1
        writer.add(sample("second"))
        with as_nobody():
            assert len(reader.rows()) == 2
    with as_nobody():
        assert len(reader.rows()) == 2


def test_rows_that_a_crash_left_beside_a_read_only_board_are_not_overlooked(folder):
    other = folder / "copied"
    other.mkdir(mode=0o755)
    with Board(folder / "board.db") as board:
        board.add(sample())
        for name in ("board.db", "board.db-wal"):
            shutil.copy(folder / name, other / name)
            (other / name).chmod(0o444)
    other.chmod(0o555)
    with as_nobody(), pytest.raises(InputError, match=r"its newest rows lie in board.db-wal"):
        Board(other / "board.db", create=False)
    other.chmod(0o755)
    with Board(other / "board.db") as board:
        assert len(board.rows()) == 1


def test_a_folder_that_cannot_be_written(folder):
    folder.chmod(0o555)
    with as_nobody(), pytest.raises(InputError, match="cannot be made a leaderboard: Permission denied"):
        Board(folder / "board.db")
    assert list(folder.iterdir()) == []


def test_a_file_that_cannot_be_read(folder):
    Board(folder / "board.db").close()
    (folder / "board.db").chmod(0o000)
    with as_nobody(), pytest.raises(InputError, match="cannot be opened as a leaderboard: Permission denied"):
        Board(folder / "board.db", create=False)


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "board.db"
    with Board(path) as board:
        for number in range(30):
            board.add(sample(f"m{number}"))
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size // 2)
    with pytest.raises(InputError, match="malformed; the file is damaged; restore the board from a copy") as caught:
        Board(path, create=False).rows()
    assert str(path) in str(caught.value)
    assert path.stat().st_size == size // 2


def test_pages_of_zeros_are_named(tmp_path):
    path = tmp_path / "board.db"
    with Board(path) as board:
        for number in range(30):
            board.add(sample(f"m{number}"))
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\0" * (path.stat().st_size - 4096))
    with pytest.raises(InputError, match="damaged; restore"):
        Board(path, create=False).rows()


def test_a_full_disk_loses_nothing(tmp_path):
    path = tmp_path / "board.db"
    with Board(path) as board:
        board.add(sample("before"))
        with board.appending("") as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            # What SQLite says then is what it says of a full disk.
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        rows = [sample(f"m{number}", contamination="x" * 5_000) for number in range(100)]
        with pytest.raises(InputError, match="the row cannot be written: database or disk is full; make room"):
            list(map(board.add, rows))
        kept = {row.name for row in board.rows()}
    with Board(path) as board:
        assert {row.name for row in board.rows()} == kept
        assert "before" in kept
        board.add(sample("after"))


def test_a_board_that_is_held_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    with Board(tmp_path / "board.db") as board, closing(sqlite3.connect(tmp_path / "board.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(InputError, match="another program has held the board"):
            board.add(sample())
        assert board.rows() == []
        other.rollback()
        board.add(sample())


def test_a_file_that_is_taken_away(tmp_path):
    board = Board(tmp_path / "board.db")
    board.close()
    (tmp_path / "board.db").unlink()
    with pytest.raises(InputError, match="unable to open database file; the file and its folder must be there"):
        board.rows()
    assert not (tmp_path / "board.db").exists()


@pytest.mark.parametrize("table", sorted(METADATA.tables))
def test_a_board_without_one_of_its_tables(tmp_path, table):
    Board(tmp_path / "board.db").close()
    with closing(sqlite3.connect(tmp_path / "board.db")) as connection:
        connection.execute(f"DROP TABLE {table}")
    with pytest.raises(InputError, match=f"is no whole leaderboard .without {table}"):
        Board(tmp_path / "board.db")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://me:hush@host/board", "a board is a SQLite file or in PostgreSQL, got mysql"),
        ("postgresql+nosuch://me:hush@host/board", "cannot be used as a database URL"),
        ("postgresql://me:hush@host:port/board", "cannot be read as a database URL"),
        ("sqlite:///board.db?mode=ro", "options of SQLite are not taken"),
        ("postgresql://me:hush@127.0.0.1:1/board", "check that the server runs"),
        ("postgresql://me@127.0.0.1:1/board?password=hush", "check that the server runs"),
        ("postgresql://me@127.0.0.1:1/board?PassWord=hush", "check that the server runs"),
        ("postgresql://me:a@hush@host/board", "has more than one @"),
        ("postgresql://me:a%40@/hush@host/board", "has more than one @"),
        ("postgresql://me:hush@no-such-host.invalid/board", "check that the server runs"),
        ("postgresql://me:hush@127.0.0.1:1/board?nosuchoption=1", "nosuchoption"),
    ],
)
def test_urls_that_lead_nowhere(url, message):
    for use in (Board, migrate):
        with pytest.raises(InputError, match=message) as caught:
            use(url)
        assert "hush" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_server_that_never_answers(monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        # A whole second less than two is as good as none to libpq.
        monkeypatch.setattr(database, "CONNECT_SECONDS", 2)
        with pytest.raises(InputError, match=r"timeout.*check that the server runs"):
            Board(f"postgresql://me:hush@127.0.0.1:{silent.getsockname()[1]}/board")


def test_without_the_driver_the_message_says_how_to_get_it():
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from leaderboard.store import Board\n"
        "try: Board('postgresql://me:hush@host/board')\n"
        "except ValueError as error: print(error)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert "pip install 'psycopg[binary]'" in done.stdout
    assert "hush" not in done.stdout


def test_names_and_passwords_that_the_server_refuses(postgres_server, postgres_url):
    Board(postgres_url).close()
    for url, message in (
        (postgres_server.url("nosuch"), "make the database first, with createdb"),
        (postgres_server.url("postgres", "wr0ng"), "give the user and the password"),
        (postgres_url.replace("tester", "stranger"), "give the user and the password"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            Board(url)
        assert postgres.PASSWORD not in str(caught.value)
        assert "wr0ng" not in str(caught.value)


def test_a_database_that_may_only_be_read(postgres_server, postgres_url):
    with Board(postgres_url) as board:
        board.add(sample())
    name = postgres_url.rsplit("/", 1)[1]
    user = f"reader_{name}"
    postgres_server.sql(name, f"CREATE ROLE {user} LOGIN PASSWORD 'read'")
    postgres_server.sql(name, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}")
    place = Place.of(postgres_url).url.set(username=user, password="read")
    with Board(place.render_as_string(hide_password=False)) as board:
        assert len(board.rows()) == 1
        with pytest.raises(InputError, match=r"permission denied .* ask whoever keeps the database for the rights"):
            board.add(sample("new"))


def stopped_within(board: Board, server: postgres.Server) -> None:
    """Let a server go in the middle of a transaction."""
    with board.appending("cannot be imported") as connection:
        connection.exec_driver_sql("SELECT 1")
        server.stop()
        connection.exec_driver_sql("SELECT 1")


def test_a_lost_connection_is_told_and_found_again():
    if postgres.programs() is None:
        pytest.skip(postgres.MISSING)
    pytest.importorskip("psycopg")
    with postgres.server() as own:
        url = own.new_database()
        with Board(url) as board:
            board.add(sample())
            own.stop()
            for use in every_use(board):
                with pytest.raises(InputError, match="check that the server runs") as caught:
                    use()
                assert postgres.PASSWORD not in str(caught.value)
                assert "tester:***@" in str(caught.value)
            with pytest.raises(InputError, match="cannot be opened as a leaderboard"):
                Board(url)
            own.start()
            assert [row.name for row in board.rows()] == ["m4"]
            board.add(sample("new"))
            with pytest.raises(InputError, match=r"cannot be imported.*check that the server runs"):
                stopped_within(board, own)
            own.start()
            assert len(board.rows()) == 2
