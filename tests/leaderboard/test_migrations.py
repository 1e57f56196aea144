"""Boards of earlier versions: told apart, and brought to today's with nothing lost."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from harness.types import InputError
from leaderboard.database import Database, Place
from leaderboard.migrations import migrate
from leaderboard.rows import StageRecord
from leaderboard.schema import METADATA, VERSION, VERSION_TABLE, VERSIONS
from leaderboard.store import Board
from tests.leaderboard.samples import sample

OLD = Path(__file__).with_name("board_0001.sql")
"""What the code of version 0001 made, five rows, as SQLite prints it."""


def old_values() -> tuple[str, list[dict]]:
    """The statement that makes the table, and the rows by age."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(OLD.read_text())
        connection.row_factory = sqlite3.Row
        (table,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'leaderboard_rows'").fetchone()
        found = [dict(row) for row in connection.execute("SELECT * FROM leaderboard_rows ORDER BY created")]
    return table, found


def make_old(place: str) -> None:
    """A board as version 0001 made it."""
    if "://" not in place:
        with closing(sqlite3.connect(place)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(OLD.read_text())
        return
    table, rows = old_values()
    with sa.create_engine(Place.of(place).url).begin() as connection:
        connection.execute(sa.text(table.replace("BLOB", "BYTEA")))
        for row in rows:
            row |= {"rendered": bool(row["rendered"]), "hedged": bool(row["hedged"])}
            names = ", ".join(row)
            connection.execute(
                sa.text(f"INSERT INTO leaderboard_rows ({names}) VALUES ({', '.join(f':{name}' for name in row)})"), row
            )


def table(place: str, name: str = "leaderboard_rows") -> list[dict]:
    database = Database(Place.of(place))
    with database.reading() as connection:
        key = "id" if name != VERSION_TABLE else "version_num"
        found = connection.execute(sa.text(f"SELECT * FROM {name} ORDER BY {key}")).mappings().all()
    database.close()
    return [{key: bytes(v) if isinstance(v, memoryview) else v for key, v in one.items()} for one in found]


def test_an_old_board_is_named_with_the_command_that_mends_it(place):
    make_old(place)
    with pytest.raises(InputError, match="of version 0001, and this code reads version 0002") as caught:
        Board(place)
    assert f"run.py leaderboard migrate --board {Place.of(place).name}" in str(caught.value).replace("'", "")


def test_nothing_is_lost(place):
    make_old(place)
    before = table(place)
    done = migrate(place)
    assert (done.before, done.after) == VERSIONS == ("0001", VERSION)
    after = table(place)
    assert [row["id"] for row in after] == [row["id"] for row in before]
    assert len(after) == 5
    for old, new in zip(before, after, strict=True):
        seconds = json.loads(old.pop("stage_seconds_json"))
        assert {name: new[name] for name in old} == old
        assert [(one["stage"], one["seconds"]) for one in json.loads(new["stages_json"])] == list(seconds.items())
        assert new["settings_json"] == "{}"
        assert {new[name] for name in ("fates", "untold_json", "questions_id", "command")} == {None}
    with Board(place, create=False) as board:
        # Every row's id is computed anew.
        rows = board.rows()
        assert [row.name for row in rows] == ["m4", "m7", "<b>it's</b> m1-16", "m0", "strict"]
        assert rows[0].stages == tuple(
            StageRecord(*one) for one in (("detect", 40.0), ("embed", 20.25), ("search", 0.1))
        )
        assert rows[2].stages == ()
        assert rows[3].stages == (StageRecord("detect", 7.0),)
        board.add(sample("new"))
        assert len(board.rows()) == 6


def test_the_copy_is_the_board_as_it_was_and_older_copies_stay(tmp_path):
    path = tmp_path / "board.db"
    taken = tmp_path / "board.db.before-0002"
    taken.write_text("someone's")
    make_old(str(path))
    before = table(str(path))
    done = migrate(path)
    assert done.copy == tmp_path / "board.db.before-0002.2"
    assert table(str(done.copy)) == before
    assert taken.read_text() == "someone's"
    assert migrate(done.copy).before == "0001"


def test_a_board_of_today_stays_as_it_is(place):
    with Board(place) as board:
        board.add(sample())
    before = table(place)
    done = migrate(place)
    assert (done.before, done.after, done.copy) == (VERSION, VERSION, None)
    assert table(place) == before


def test_a_migrated_board_has_the_tables_of_a_new_one(place):
    make_old(place)
    migrate(place)
    assert differences(place) == []
    assert table(place, VERSION_TABLE) == [{"version_num": VERSION}]


def test_a_new_board_has_the_tables_of_the_code(place):
    Board(place).close()
    assert differences(place) == []
    assert table(place, VERSION_TABLE) == [{"version_num": VERSION}]


def differences(place: str) -> list:
    database = Database(Place.of(place))
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        found = compare_metadata(context, METADATA)
    database.close()
    return found


def triggers(path: Path) -> list:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name").fetchall()


def test_migrated_and_new_boards_have_the_same_triggers(tmp_path):
    make_old(str(tmp_path / "old.db"))
    migrate(tmp_path / "old.db")
    Board(tmp_path / "new.db").close()
    assert triggers(tmp_path / "old.db") == triggers(tmp_path / "new.db")
    assert len(triggers(tmp_path / "new.db")) == 12


def damage(place: str) -> str:
    """Make the last row's seconds unreadable; its id."""
    database = Database(Place.of(place))
    with database.writing() as connection:
        if "://" not in place:
            connection.execute(sa.text("DROP TRIGGER leaderboard_no_update"))
        last = connection.execute(sa.text("SELECT max(id) FROM leaderboard_rows")).scalar_one()
        connection.execute(
            sa.text("UPDATE leaderboard_rows SET stage_seconds_json = '[oh' WHERE id = :last"), {"last": last}
        )
    database.close()
    return str(last)


def test_a_migration_that_fails_leaves_the_board_as_it_was(place):
    make_old(place)
    last = damage(place)
    before = table(place)
    with pytest.raises(InputError, match="cannot be migrated, and is as it was: row") as caught:
        migrate(place)
    assert last[:12] in str(caught.value)
    assert table(place) == before
    with pytest.raises(InputError, match="of version 0001"):
        Board(place)


KILLED = """
import json, os, sys
from leaderboard.migrations import migrate
count = 0
real = json.dumps
def dumps(*words, **more):
    global count
    count += 1
    if count == 4:
        os.kill(os.getpid(), 9)
    return real(*words, **more)
json.dumps = dumps
migrate(sys.argv[1])
"""


def test_a_migration_that_is_killed_leaves_the_board_as_it_was(place):
    make_old(place)
    before = table(place)
    done = subprocess.run([sys.executable, "-c", KILLED, place], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -9
    assert table(place) == before
    assert migrate(place).before == "0001"
    with Board(place) as board:
        assert len(board.rows()) == 5


def test_a_board_of_a_later_version(place):
    Board(place).close()
    database = Database(Place.of(place))
    with database.writing() as connection:
        connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '0099'"))
    database.close()
    for use in (Board, migrate):
        with pytest.raises(InputError, match="version 0099, later than 0002"):
            use(place)


def test_what_is_no_board_is_not_migrated(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("these are notes, more than sixteen bytes of them")
    empty = tmp_path / "empty.db"
    empty.touch()
    for path, message in (
        (text, "not a SQLite file"),
        (tmp_path / "none.db", "there is no leaderboard"),
        (empty, "nothing to migrate"),
    ):
        with pytest.raises(InputError, match=message):
            migrate(path)
    assert sorted(os.listdir(tmp_path)) == ["empty.db", "notes.txt"]


def test_a_board_whose_folder_has_a_percent_sign(tmp_path):
    folder = tmp_path / "100%? #1"
    folder.mkdir()
    make_old(str(folder / "board.db"))
    assert migrate(folder / "board.db").copy is not None
    with Board(folder / "board.db") as board:
        assert len(board.rows()) == 5
    shutil.rmtree(folder)
