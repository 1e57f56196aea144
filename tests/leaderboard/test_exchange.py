"""Boards as JSON files, and merged."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.scoring.questions import Questions
from harness.types import InputError
from leaderboard.entered import EnteredScore
from leaderboard.exchange import Count, ImportReport, export_board, import_board, read_export, write_export
from leaderboard.rows import Losses, Row, StageRecord
from leaderboard.store import Board
from leaderboard.timing_runs import TimingRun
from tests.leaderboard.samples import sample

QUERIES = Questions(np.arange(10), np.arange(10) + 1, np.arange(10) % 3, {"scale": np.arange(10) % 4})


def some_row(name: str, number: int = 0) -> Row:
    return sample(
        name,
        losses=Losses(np.arange(10, dtype=np.uint8) % 6),
        questions_id=QUERIES.id,
        settings={"WBF_5": "IoU 0.6"},
        created=datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=number),
    )


def fill(board: Board, names: str) -> None:
    """A row a letter, with a benchmark and an entered score of the same letter."""
    for name in names:
        row = some_row(name, ord(name))
        board.add(row, QUERIES)
        board.add_timing(TimingRun(row.id, {"stages": [], "name": name}, row.created))
        board.enter(EnteredScore(name, name, "test", {10: 0.5, 20: 1}, "the server", created=row.created))


def exported(place: str | Path, path: Path, names: str) -> Path:
    with Board(place) as board:
        fill(board, names)
        write_export(board, path)
    return path


def test_a_file_is_what_the_board_keeps(place, tmp_path):
    with Board(place) as board:
        fill(board, "ab")
        counts = write_export(board, tmp_path / "board.json")
        whole = export_board(board)
    assert counts == {"rows": 2, "questions": 1, "timings": 2, "entered": 2}
    assert json.loads((tmp_path / "board.json").read_text()) == whole
    assert (whole["format"], whole["version"]) == ("deepfashion2-harness leaderboard", 1)
    row = whole["rows"][0]
    assert row["hit_ranks"] == [1, 0, 3, 12, 1, 6, 0, 20, 2, 11]
    assert row["fates"] == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3]
    assert whole["entered"][0]["acc"] == {"10": 0.5, "20": 1}


def test_boards_merge_without_doubles_in_any_order(place, tmp_path):
    first = exported(tmp_path / "1.db", tmp_path / "1.json", "abc")
    second = exported(tmp_path / "2.db", tmp_path / "2.json", "bcd")
    with Board(place) as board, Board(tmp_path / "other.db") as other:
        assert import_board(board, first) == ImportReport(Count(3, 0), Count(1, 0), Count(3, 0), Count(3, 0))
        assert import_board(board, second) == ImportReport(Count(1, 2), Count(0, 1), Count(1, 2), Count(1, 2))
        import_board(other, second)
        import_board(other, first)
        assert export_board(board) == export_board(other)
        assert [row.name for row in board.rows()] == list("abcd")
        before = export_board(board)
        for path in (first, second):
            report = import_board(board, path)
            assert (report.rows.new, report.questions.new, report.timings.new, report.entered.new) == (0, 0, 0, 0)
        assert export_board(board) == before


def test_of_a_row_that_both_have_the_board_keeps_its_own(place, tmp_path):
    later = exported(tmp_path / "1.db", tmp_path / "1.json", "a")
    with Board(place) as board:
        mine = sample("a", losses=some_row("a").losses, questions_id=QUERIES.id, settings={"WBF_5": "IoU 0.6"})
        board.add(mine)
        assert import_board(board, later).rows == Count(0, 1)
        assert [row.created for row in board.rows()] == [mine.created]


def changed(path: Path, change) -> Path:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["rows"][1].update(name="better"), "row .* does not match its id"),
        (lambda v: v["rows"][1]["hit_ranks"].__setitem__(1, 1), "row .* does not match its id"),
        (lambda v: v["rows"][1]["fates"].__setitem__(1, 0), "row .* does not match its id"),
        (lambda v: v["rows"][1].update(contamination=None, hedged=True), "row .* does not match its id"),
        (lambda v: v["rows"][1].update(hit_ranks=[0.5] * 10), "row .* is damaged"),
        (lambda v: v["rows"][1].update(hit_ranks=["1"] * 10), "row .* is damaged"),
        (lambda v: v["rows"][1].update(fates=[300] * 10), "row .* is damaged .fates"),
        (lambda v: v["rows"][1].update(command=5), "row .* is damaged .command: got int"),
        (lambda v: v["rows"][1].update(created="2026-01-01"), "row .* is damaged .created"),
        (lambda v: v["rows"][1].update(stages=[{"stage": "a"}]), "row .* is damaged .missing or unknown"),
        (lambda v: v["rows"][1].update(extra=1), "row .* is damaged .missing or unknown: extra"),
        (lambda v: v["rows"].append(7), "row 3: is damaged"),
        (lambda v: v["questions"][0].update(image_ids=[1] * 10), "questions .* does not match its id"),
        (lambda v: v["questions"][0].pop("category_ids"), "questions .* is damaged"),
        (lambda v: v["timings"][1].update(result={"stages": [1]}), "timing .* does not match its id"),
        (lambda v: v["timings"][1].update(result=[]), "timing .* is damaged"),
        (lambda v: v["entered"][1]["acc"].update({"10": 0.9}), "entered score .* does not match its id"),
        (lambda v: v["entered"][1].update(acc={"7": 0.9}), "entered score .* is damaged"),
        (lambda v: v["rows"].pop(1), "timing of row .*, which neither the file nor the board has"),
        (lambda v: v.update(version=2), "export of version 2, and this code reads version 1"),
        (lambda v: v.update(format="other"), "is no exported board"),
        (lambda v: v.pop("entered"), "'entered' is no list"),
        (lambda v: v.update(more=[]), "'more' is unknown"),
    ],
)
def test_of_a_file_with_anything_wrong_nothing_is_imported(tmp_path, change, message):
    path = changed(exported(tmp_path / "1.db", tmp_path / "1.json", "ab"), change)
    with Board(tmp_path / "board.db") as board:
        with pytest.raises(InputError, match=message) as caught:
            import_board(board, path)
        assert str(path) in str(caught.value)
        assert all(not entries for name, entries in export_board(board).items() if name not in ("format", "version"))


def test_files_that_are_no_export(tmp_path):
    whole = exported(tmp_path / "1.db", tmp_path / "1.json", "a").read_text()
    part = tmp_path / "part.json"
    part.write_text(whole[: len(whole) // 2])
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 200_000)
    for path, message in (
        (part, "or only a part of one"),
        (deep, "is no exported board"),
        (tmp_path / "1.db", "is no text"),
        (tmp_path / "none.json", "No such file"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(InputError, match=message):
            read_export(path)


def test_a_file_that_cannot_be_written(tmp_path):
    with Board(tmp_path / "board.db") as board, pytest.raises(InputError, match="cannot be exported: No such file"):
        write_export(board, tmp_path / "none" / "board.json")


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
values = (
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | texts
)


@st.composite
def any_row(draw) -> Row:
    ranks = draw(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=30))
    fates = draw(st.none() | st.lists(st.integers(0, 6), min_size=len(ranks), max_size=len(ranks)))
    seconds = st.floats(0, 1e9)
    stages = st.builds(
        StageRecord,
        texts,
        seconds,
        st.none() | seconds,
        st.none() | st.booleans(),
        st.none() | st.integers(0, 9),
        texts,
    )
    return sample(
        draw(texts),
        ranks,
        hardware=draw(st.dictionaries(texts, values | st.lists(values, max_size=3), max_size=4)),
        artifacts=tuple(draw(st.lists(texts, max_size=3))),
        contamination=draw(st.none() | texts),
        hedged=draw(st.booleans()),
        stages=tuple(draw(st.lists(stages, max_size=3))),
        losses=None if fates is None else Losses(np.array(fates, np.uint8)),
        settings=draw(st.dictionaries(texts, texts, max_size=3)),
        command=draw(st.none() | texts),
        created=draw(st.datetimes(timezones=st.just(UTC))),
    )


@settings(max_examples=25, deadline=None)
@given(st.lists(any_row(), max_size=5))
def test_whatever_is_exported_is_imported_as_it_was(rows):
    with TemporaryDirectory() as folder, Board("sqlite://") as board, Board("sqlite://") as other:
        for row in rows:
            board.add(row)
        path = Path(folder) / "board.json"
        write_export(board, path)
        import_board(other, path)
        assert export_board(other) == export_board(board)
        assert len(other.rows()) == len({row.id for row in rows})


def _stage(**changes):
    named = {"stage": "detect", "seconds": 1.0, "run_seconds": None, "from_store": None}
    return {**named, "count": None, "unit": "", "made_on": None, **changes}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"settings": {"ATSS": {"a": 1}}}, "settings: expected texts"),
        ({"settings": {"ATSS": 1}}, "settings: expected texts"),
        ({"artifacts": [1]}, "artifacts: expected texts"),
        ({"stages": [_stage(seconds=1e308), _stage(seconds=1e308)]}, "add up to infinity"),
        ({"stages": [_stage(seconds=10**400)]}, "too large"),
        ({"stages": [_stage(count=2**63)]}, "count: expected 0 to"),
        ({"stages": [_stage(count=10**400)]}, "count: expected 0 to"),
        ({"stages": [_stage(count=-1)]}, "count: expected 0 to"),
        ({"created": "0001-01-01T00:00:00+23:59"}, "expected a time that there is in UTC"),
        ({"created": "9999-12-31T23:59:59-23:59"}, "expected a time that there is in UTC"),
        ({"name": "\ud800"}, "surrogates not allowed"),
    ],
)
def test_a_row_that_no_page_could_show_is_refused_before_it_is_there_for_good(tmp_path, changes, said):
    # A board is only ever added to: one such row made every command that reads it end in a traceback.
    file = exported(tmp_path / "one.db", tmp_path / "one.json", "a")
    values = json.loads(file.read_text())
    values["rows"][0] |= changes
    file.write_text(json.dumps(values))
    with Board(tmp_path / "other.db") as board:
        with pytest.raises(InputError, match=f"is damaged .*{said}.*nothing was imported"):
            import_board(board, file)
        assert board.state() == (0, "", 0, 0)


def test_questions_of_more_than_a_column_are_refused(tmp_path):
    file = exported(tmp_path / "one.db", tmp_path / "one.json", "a")
    values = json.loads(file.read_text())
    values["questions"][0]["image_ids"] = [[number] for number in range(10)]
    file.write_text(json.dumps(values))
    with pytest.raises(InputError, match="image_ids: expected one dimension"):
        read_export(file)


@pytest.mark.parametrize("created", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
@pytest.mark.parametrize("kind", ["timings", "entered"])
def test_times_that_cannot_be_told_in_utc_are_refused(tmp_path, kind, created):
    file = exported(tmp_path / "one.db", tmp_path / "one.json", "a")
    values = json.loads(file.read_text())
    values[kind][0]["created"] = created
    file.write_text(json.dumps(values))
    with pytest.raises(InputError, match="expected a time that there is in UTC"):
        read_export(file)
