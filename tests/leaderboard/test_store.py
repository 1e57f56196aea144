import multiprocessing
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.types import InputError, Score
from leaderboard.rows import Row, pack_ranks, unpack_ranks
from leaderboard.store import Board
from tests.leaderboard.samples import RANKS, sample


def test_a_row_comes_back_as_it_was_added(tmp_path):
    row = sample(contamination="m7 was trained on validation", hedged=True)
    board = Board(tmp_path / "board.db")
    row_id = board.add(row)
    (back,) = Board(tmp_path / "board.db", create=False).rows()
    assert back.id == row.id == row_id
    for name in ("spec", "name", "split", "fingerprint", "rendered", "artifacts", "code_version", "hardware"):
        assert getattr(back, name) == getattr(row, name)
    assert (back.stage_seconds, back.contamination, back.hedged) == (row.stage_seconds, row.contamination, True)
    assert back.created == row.created
    assert back.score.hit_ranks.tolist() == RANKS
    assert back.score.acc == row.score.acc == {1: 0.2, 5: 0.4, 10: 0.5, 15: 0.7, 20: 0.8}


def test_the_same_result_added_twice_is_one_row(tmp_path):
    board = Board(tmp_path / "board.db")
    first = sample()
    again = replace(first, stage_seconds={"detect": 0.0}, created=datetime.now(UTC))
    assert board.add(first) == board.add(again)
    (kept,) = board.rows()
    assert kept.stage_seconds == first.stage_seconds


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": "m5"},
        {"name": "other"},
        {"split": "test"},
        {"fingerprint": "0" * 64},
        {"rendered": False},
        {"artifacts": ("a" * 64,)},
        {"code_version": "0.2"},
        {"hardware": {"cpu": "other"}},
        {"contamination": "saw it"},
        {"hedged": True},
        {"protocol": "strict"},
        {"ranks": [*RANKS[:-1], 12]},
        {"ranks": [*RANKS, 0]},
    ],
)
def test_another_result_is_another_row(tmp_path, changes):
    board = Board(tmp_path / "board.db")
    assert board.add(sample()) != board.add(sample(**changes))
    assert len(board.rows()) == 2


def test_rows_are_listed_by_age_and_filtered(tmp_path):
    board = Board(tmp_path / "board.db")
    start = datetime(2026, 5, 1, tzinfo=UTC)
    for number, (name, split, protocol) in enumerate(
        [("late", "validation", "official"), ("early", "test", "official"), ("strict", "test", "strict")]
    ):
        board.add(sample(name, split=split, protocol=protocol, created=start + timedelta(days=(2, 0, 1)[number])))
    assert [row.name for row in board.rows()] == ["early", "strict", "late"]
    assert [row.name for row in board.rows(split="test", protocol="strict")] == ["strict"]
    assert board.rows(fingerprint="nothing") == []


def test_rows_are_found_by_the_beginning_of_their_id(tmp_path):
    board = Board(tmp_path / "board.db")
    row = sample()
    board.add(row)
    assert board.row(row.id[:10]).id == row.id
    for wrong in ("", "zzz"):
        with pytest.raises(InputError, match="0 rows have an id that begins with"):
            board.row(wrong)


def test_rows_cannot_be_edited_or_deleted(tmp_path):
    path = tmp_path / "board.db"
    Board(path).add(sample())
    with sqlite3.connect(path) as connection:
        for statement in ("UPDATE leaderboard_rows SET name = 'x'", "DELETE FROM leaderboard_rows"):
            with pytest.raises(sqlite3.IntegrityError, match="appended, never edited"):
                connection.execute(statement)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE leaderboard_rows SET name = 'better'", "does not match its id"),
        ("UPDATE leaderboard_rows SET contamination = NULL", "does not match its id"),
        ("UPDATE leaderboard_rows SET hit_ranks = x'00'", "the outcome per query is damaged"),
        ("UPDATE leaderboard_rows SET num_queries = 9", "the outcome per query is damaged"),
        ("UPDATE leaderboard_rows SET artifacts_json = '{'", "is damaged"),
        ("UPDATE leaderboard_rows SET created = 'yesterday'", "is damaged"),
    ],
)
def test_changed_rows_are_named(tmp_path, statement, message):
    path = tmp_path / "board.db"
    board = Board(path)
    row_id = board.add(sample(contamination="saw it"))
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TRIGGER leaderboard_no_update")
        connection.execute(statement)
    with pytest.raises(InputError, match=message) as caught:
        board.rows()
    assert row_id[:12] in str(caught.value)


def add_many(arguments: tuple[Path, int]) -> None:
    path, writer = arguments
    for number in range(15):
        board = Board(path)
        board.add(sample(f"w{writer}-{number}"))
        board.add(sample(f"shared-{number}"))
        board.close()


def test_writers_at_the_same_time(tmp_path):
    path = tmp_path / "board.db"
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(add_many, [(path, writer) for writer in range(3)])
    names = [row.name for row in Board(path).rows()]
    assert len(names) == len(set(names)) == 15 + 3 * 15


def test_paths_that_are_no_board(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("these are notes, more than sixteen bytes of them")
    cut = tmp_path / "cut.db"
    cut.write_bytes(b"SQLite format 3\x00" + b"\x00" * 200)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE cats (name TEXT)")
    old = tmp_path / "old.db"
    with sqlite3.connect(old) as connection:
        connection.execute("CREATE TABLE leaderboard_rows (id TEXT)")
    for path, message in (
        (text, "not a SQLite file"),
        (cut, "cannot be opened as a leaderboard"),
        (other, "no leaderboard .tables: cats"),
        (old, "of another version"),
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "folder.db", "does not exist"),
    ):
        before = path.read_bytes() if path.is_file() else None
        with pytest.raises(InputError, match=message) as caught:
            Board(path)
        assert str(path) in str(caught.value)
        assert before is None or path.read_bytes() == before
    with pytest.raises(InputError, match="there is no leaderboard"):
        Board(tmp_path / "none.db", create=False)
    assert not (tmp_path / "none.db").exists()


def test_urls(tmp_path):
    board = Board(f"sqlite:///{tmp_path / 'by_url.db'}")
    board.add(sample())
    assert len(Board(tmp_path / "by_url.db").rows()) == 1
    memory = Board("sqlite://")
    memory.add(sample())
    assert len(memory.rows()) == 1
    assert not Path(":memory:").exists()
    with pytest.raises(InputError, match="cannot be used as a database URL"):
        Board("nosuchdatabase://somewhere/board")
    with pytest.raises(InputError, match="cannot be read as a database URL") as caught:
        Board("post gres://user:secret@[host/board")
    assert "secret" not in str(caught.value)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=200))
def test_outcomes_are_kept_exactly(ranks):
    score = Score("official", len(ranks), np.array(ranks))
    assert unpack_ranks("official", len(ranks), pack_ranks(score), "here").hit_ranks.tolist() == ranks


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spec": ""}, "spec: expected a text"),
        ({"split": "val"}, "split: expected one of train, validation, test, got 'val'"),
        ({"created": datetime(2026, 1, 1)}, "time zone"),
        ({"stage_seconds": {"embed": -1.0}}, "stage_seconds: embed"),
        ({"stage_seconds": {"embed": float("nan")}}, "stage_seconds: embed"),
        ({"ranks": [70_000]}, "hit ranks"),
    ],
)
def test_rows_check_themselves(changes, message):
    with pytest.raises(ValueError, match=message):
        sample(**changes)


def test_what_counts_and_the_interval():
    assert sample().counts
    assert not sample(contamination="saw it").counts
    assert not sample(hedged=True).counts
    low, high = sample().interval()
    assert low < 0.5 < high
    assert sample().hits(1).sum() == 2
    assert isinstance(sample(), Row)
