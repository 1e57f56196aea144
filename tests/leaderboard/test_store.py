import multiprocessing
import sqlite3
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from harness.scoring.questions import Questions
from harness.types import InputError, Score
from leaderboard.entered import EnteredScore
from leaderboard.rows import Losses, Row, StageRecord, pack_ranks, unpack_ranks
from leaderboard.schema import METADATA
from leaderboard.store import Board
from leaderboard.timing_runs import TimingRun
from tests.leaderboard.samples import RANKS, sample


def test_a_row_comes_back_as_it_was_added(place):
    row = sample(contamination="m7 was trained on validation", hedged=True)
    board = Board(place)
    row_id = board.add(row)
    (back,) = Board(place, create=False).rows()
    assert back.id == row.id == row_id
    for name in ("spec", "name", "split", "fingerprint", "rendered", "artifacts", "code_version", "hardware"):
        assert getattr(back, name) == getattr(row, name)
    assert (back.stages, back.contamination, back.hedged) == (row.stages, row.contamination, True)
    assert back.created == row.created
    assert back.score.hit_ranks.tolist() == RANKS
    assert back.score.acc == row.score.acc == {1: 0.2, 5: 0.4, 10: 0.5, 15: 0.7, 20: 0.8}


def test_the_same_result_added_twice_is_one_row(place):
    board = Board(place)
    first = sample()
    again = replace(first, stages=(StageRecord("detect", 0.0),), created=datetime.now(UTC))
    assert board.add(first) == board.add(again)
    (kept,) = board.rows()
    assert kept.stages == first.stages


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
def test_another_result_is_another_row(place, changes):
    board = Board(place)
    assert board.add(sample()) != board.add(sample(**changes))
    assert len(board.rows()) == 2


def test_rows_are_listed_by_age_and_filtered(place):
    board = Board(place)
    start = datetime(2026, 5, 1, tzinfo=UTC)
    for number, (name, split, protocol) in enumerate(
        [("late", "validation", "official"), ("early", "test", "official"), ("strict", "test", "strict")]
    ):
        board.add(sample(name, split=split, protocol=protocol, created=start + timedelta(days=(2, 0, 1)[number])))
    assert [row.name for row in board.rows()] == ["early", "strict", "late"]
    assert [row.name for row in board.rows(split="test", protocol="strict")] == ["strict"]
    assert board.rows(fingerprint="nothing") == []


def test_rows_are_found_by_the_beginning_of_their_id(place):
    board = Board(place)
    row = sample()
    board.add(row)
    assert board.row(row.id[:10]).id == row.id
    for wrong in ("", "zzz"):
        with pytest.raises(InputError, match="0 rows have an id that begins with"):
            board.row(wrong)


@pytest.mark.parametrize("table", ["rows", "questions", "timings", "entered"])
def test_rows_cannot_be_edited_or_deleted(place, table):
    with Board(place) as board:
        fill(board)
        name = f"leaderboard_{table}"
        statements = [f"UPDATE {name} SET id = 'x'", f"DELETE FROM {name}"]
        if "://" in place:
            statements += [f"TRUNCATE {name}", f"UPDATE {name} SET id = 'x' WHERE false"]
        for statement in statements:
            with (
                pytest.raises(InputError, match="cannot be changed: leaderboard rows are appended, never edited"),
                board.appending("cannot be changed") as connection,
            ):
                connection.execute(text(statement))
        if "://" not in place:
            # SQLite takes the old row out for this without asking the trigger on DELETE.
            columns = [column.name for column in METADATA.tables[name].columns if column.name != "id"]
            with board.appending("cannot be changed") as connection:
                connection.execute(
                    text(f"INSERT OR REPLACE INTO {name} SELECT id, {', '.join('1' for _ in columns)} FROM {name}")
                )
        assert_full(board)


def questions() -> Questions:
    column = np.arange(10)
    return Questions(column, column + 1, column % 3, {"scale": column % 4})


def full_row() -> Row:
    return sample(
        "full",
        losses=Losses(np.arange(10, dtype=np.uint8) % 6, ("hit",)),
        questions_id=questions().id,
        settings={"WBF_5": "IoU 0.6"},
        command="run.py score 'm4'",
        stages=(StageRecord("detect ATSS", 40.0, 0.1, True, 12, "photos"),),
    )


def official() -> EnteredScore:
    return EnteredScore("m1-16", "best", "test", {10: 0.84, 1: 0.5}, "mail of the server", "0" * 64)


def timing() -> TimingRun:
    return TimingRun(
        full_row().id, {"stages": [{"stage": "decode", "median_s": 0.25, "energy_j": None}]}, full_row().created
    )


def fill(board: Board) -> None:
    board.add(full_row(), questions())
    board.add_timing(timing())
    board.enter(official())


def assert_full(board: Board) -> None:
    (row,) = board.rows()
    for name in ("id", "stages", "settings", "command", "questions_id", "created"):
        assert getattr(row, name) == getattr(full_row(), name)
    assert row.losses is not None
    assert row.losses.fates.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3]
    assert row.losses.untold == ("hit",)
    kept = board.questions(questions().id)
    assert kept is not None
    assert kept.as_json() == questions().as_json()
    assert board.timings() == board.timings(row.id) == [timing()]
    assert [score.id for score in board.entered()] == [official().id]


def test_everything_comes_back(place):
    with Board(place) as board:
        fill(board)
        fill(board)
        assert_full(board)
        assert board.questions("0" * 64) is None
        assert board.timings("0" * 64) == []
    with Board(place, create=False) as board:
        assert_full(board)


def test_a_timing_needs_its_row_and_a_row_its_own_questions(place):
    with Board(place) as board:
        with pytest.raises(InputError, match=f"no row {full_row().id[:12]} that was timed"):
            board.add_timing(timing())
        with pytest.raises(ValueError, match="not those of the row"):
            board.add(sample(), questions())
        assert board.timings() == board.rows() == []


def test_a_row_and_its_questions_are_kept_together_or_not_at_all(place):
    row = full_row()
    with Board(place) as board:
        object.__setattr__(row, "command", "a lone surrogate: \udc80")
        with pytest.raises(InputError, match="the row cannot be written"):
            board.add(row, questions())
        assert board.questions(questions().id) is None
        fill(board)
        assert_full(board)


@pytest.mark.parametrize("num_matching", [2, 3])
def test_a_prefix_of_several_rows(place, num_matching):
    with Board(place) as board:
        rows = [sample(f"m{number}") for number in range(40)]
        for row in rows:
            board.add(row)
        firsts = Counter(row.id[0] for row in rows)
        digit, count = firsts.most_common(num_matching)[-1]
        with pytest.raises(InputError, match=f"{count} rows have an id that begins with '{digit}'"):
            board.row(digit)
        assert board.row(rows[5].id.upper()).id == rows[5].id
        with pytest.raises(InputError, match="0 rows"):
            board.row("%")


def test_an_acknowledged_row_outlives_a_power_cut(tmp_path):
    with Board(tmp_path / "board.db") as board, board.appending("") as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"


@pytest.mark.parametrize(
    ("statement", "read"),
    [
        ("UPDATE leaderboard_timings SET result_json = '{\"stages\": []}'", "timings"),
        ("UPDATE leaderboard_timings SET created = '?'", "timings"),
        ("UPDATE leaderboard_entered SET content_json = replace(content_json, '0.84', '0.94')", "entered"),
        ("UPDATE leaderboard_entered SET content_json = '{}'", "entered"),
        ("UPDATE leaderboard_rows SET fates = NULL", "rows"),
        ("UPDATE leaderboard_rows SET settings_json = '{}'", "rows"),
        ("UPDATE leaderboard_questions SET content = x'00'", "content"),
    ],
)
def test_whatever_was_changed_is_named(tmp_path, statement, read):
    board = Board(tmp_path / "board.db")
    fill(board)
    with sqlite3.connect(tmp_path / "board.db") as connection:
        connection.execute(f"DROP TRIGGER {statement.split()[1]}_no_update")
        connection.execute(statement)
    with pytest.raises(InputError, match=r"(does not match its id|is damaged).*restore the board from a copy"):
        getattr(board, read)()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE leaderboard_rows SET name = 'better'", "does not match its id"),
        ("UPDATE leaderboard_rows SET contamination = NULL", "does not match its id"),
        ("UPDATE leaderboard_rows SET hit_ranks = x'00'", "the outcome per query is damaged"),
        ("UPDATE leaderboard_rows SET acc10 = 0.95", "accuracies are not those of its outcome"),
        ("UPDATE leaderboard_rows SET acc10_low = 0.9", "accuracies are not those of its outcome"),
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
        connection.execute("DROP TRIGGER leaderboard_rows_no_update")
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
    notes = tmp_path / "notes.txt"
    notes.write_text("these are notes, more than sixteen bytes of them")
    cut = tmp_path / "cut.db"
    cut.write_bytes(b"SQLite format 3\x00" + b"\x00" * 200)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE cats (name TEXT)")
    old = tmp_path / "old.db"
    with sqlite3.connect(old) as connection:
        connection.execute("CREATE TABLE leaderboard_rows (id TEXT)")
    for path, message in (
        (notes, "not a SQLite file"),
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
