"""`leaderboard` on the command line: formats, pages, handing over, entering, a team's board."""

import csv
import io
import json
from pathlib import Path

import pytest

from harness.commands.options import board_name
from leaderboard.store import Board
from tests.commands import call, ok, refused
from tests.leaderboard.samples import sample, with_hits


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A working folder with a board of three rows, one of them of the strict protocol."""
    with Board(tmp_path / "leaderboard.sqlite") as board:
        board.add(with_hits("m4", 60))
        board.add(with_hits("m9", 40, rendered=False, fingerprint="0" * 64))
        board.add(with_hits("m4", 50, protocol="strict"))
    return tmp_path


def rows(work: Path) -> set[str]:
    with Board(work / "leaderboard.sqlite", create=False) as board:
        return {row.id for row in board.rows()}


def test_the_rows_in_every_format(work: Path) -> None:
    assert "m9 with WBF_5" in ok("leaderboard", "show", "--work", work)
    told = json.loads(ok("leaderboard", "show", "--work", work, "--json"))
    assert len(told["sections"]) == 3
    table = list(csv.reader(io.StringIO(ok("leaderboard", "show", "--work", work, "--format", "csv"))))
    assert len(table) == 4
    assert all(len(line) == len(table[0]) for line in table)
    assert ok("leaderboard", "show", "--work", work, "--format", "markdown").count("m4 with WBF") == 2
    latex = ok("leaderboard", "show", "--work", work, "--format", "latex")
    assert latex.count("\\begin{tabular}") == latex.count("\\bottomrule") == 3


def test_two_boards_become_one_without_doubles(work: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with Board(other / "leaderboard.sqlite") as board:
        board.add(with_hits("m4", 60))
        board.add(sample("m12"))
    file = tmp_path / "board.json"
    assert json.loads(ok("leaderboard", "export", file, "--work", other, "--json"))["rows"] == 2
    first = json.loads(ok("leaderboard", "import", file, "--work", work, "--json"))
    assert first["rows"] == {"new": 1, "known": 1}
    assert "rows: 0 new, 2 here already" in ok("leaderboard", "import", file, "--work", work)
    assert len(rows(work)) == 4
    assert rows(other) < rows(work)
    file.write_text(file.read_text().replace('"m12"', '"m13"'))
    assert "does not match its id" in refused("leaderboard", "import", file, "--work", work)
    assert len(rows(work)) == 4


def test_a_score_that_was_told_elsewhere_is_entered_and_marked(work: Path, tmp_path: Path) -> None:
    handed_in = tmp_path / "submission.json"
    handed_in.write_text("[]")
    words = ("leaderboard", "enter", "m1-16-wbf5", "--acc10", 0.854168, "--source", "the server", "--work", work)
    told = json.loads(ok(*words, "--acc1", 0.6, "--submission", handed_in, "--json"))
    assert told["acc"] == {"1": 0.6, "10": 0.854168}
    assert told["spec"] == "m1-16 + WBF_5"
    assert "0.854168" in ok("leaderboard", "show", "--work", work)
    with Board(work / "leaderboard.sqlite") as board:
        (kept,) = board.entered()
        assert len(board.rows()) == 3
    assert kept.name == "m1-16-wbf5"
    assert len(kept.submission_sha256) == 64
    assert "Acc@10 in [0, 1]" in refused("leaderboard", "enter", "m4", "--acc10", 85, "--source", "s", "--work", work)
    assert "unknown" in refused("leaderboard", "enter", "m99", "--acc10", 0.5, "--source", "s", "--work", work)


def test_a_working_folder_is_made_where_there_is_none(work: Path, tmp_path: Path) -> None:
    ok("leaderboard", "export", tmp_path / "board.json", "--work", work)
    ok("leaderboard", "import", tmp_path / "board.json", "--work", tmp_path / "new" / "one")
    assert rows(tmp_path / "new" / "one") == rows(work)
    words = ("leaderboard", "enter", "m4", "--acc10", 0.8, "--source", "the server", "--work")
    assert "told by the server" in ok(*words, tmp_path / "new" / "two")


def test_the_page_of_a_pair_stands_alone(work: Path, tmp_path: Path) -> None:
    with Board(work / "leaderboard.sqlite") as board:
        first, second = board.add(with_hits("m4", 60)), board.add(with_hits("m5", 70))
    page = tmp_path / "pair.html"
    ok("leaderboard", "compare", first[:8], second[:8], "--work", work, "--html", page)
    text = page.read_text()
    assert "m4" in text
    assert "../" not in text
    done = call("leaderboard", "compare", page, page, "--query", page, "--gallery", page, "--html", page)
    assert done.exit_code == 2


def test_rows_are_compared_by_their_ensembles_with_what_to_beware_of(work: Path) -> None:
    with Board(work / "leaderboard.sqlite") as board:
        board.add(with_hits("m5", 70, spec="m5 + WBF_5"))
        board.add(with_hits("m5 on truth", 90, spec="m5 + GT", contamination="trained on validation: m5"))
    told = ok("leaderboard", "compare", "m5", "m5 + GT", "--work", work)
    assert "RENDERED data, not DeepFashion2" in told
    assert "warning: m5 on truth does not count: trained on validation: m5." in told
    assert "warning: m5 has detected boxes, m5 on truth ground-truth ones" in told
    found = json.loads(ok("leaderboard", "compare", "m5 with WBF_5", "m5 on truth", "--work", work, "--json"))
    assert (found["first_acc"], found["second_acc"], len(found["warnings"])) == (0.7, 0.9, 2)
    assert "none is of this name or ensemble" in refused("leaderboard", "compare", "m5", "m6", "--work", work)
    assert "0 rows have an id that begins with 'ff'" in refused("leaderboard", "compare", "m5", "ff", "--work", work)


def test_pages_of_a_board_that_is_not_the_working_folders(work: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "team.db"
    (work / "leaderboard.sqlite").rename(elsewhere)
    assert "there is no leaderboard" in refused("leaderboard", "show", "--work", work)
    page = Path(json.loads(ok("leaderboard", "html", "--work", work, "--board", elsewhere, "--json"))["page"])
    assert page == work / "leaderboard" / "index.html"
    assert len(list((work / "leaderboard" / "rows").iterdir())) == 3


def test_a_board_of_this_version_is_left_alone(work: Path) -> None:
    before = (work / "leaderboard.sqlite").read_bytes()
    assert "already" in ok("leaderboard", "migrate", "--work", work)
    assert (work / "leaderboard.sqlite").read_bytes() == before


def test_a_team_scores_into_one_board(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    ok("data", "render", data, "--train", 4, "--validation", 30, "--test", 4, "--workers", 1)
    monkeypatch.setenv("LEADERBOARD", postgres_url)
    told = ok("score", "histogram + GT", "--data", data, "--work", tmp_path / "one")
    assert "***" in told
    assert postgres_url.split("@")[0].rsplit(":", 1)[1] not in told
    ok("score", "histogram*2 + GT", "--data", data, "--work", tmp_path / "two")
    assert not (tmp_path / "one" / "leaderboard.sqlite").exists()
    shown = ok("leaderboard", "show", "--work", tmp_path / "one")
    assert "histogram*2 + GT" in shown
    assert "histogram + GT" in shown


@pytest.mark.parametrize(
    ("board", "said"),
    [
        ("postgresql://me:hush@host/board", "postgresql://me:***@host/board"),
        ("postgresql://host/board?user=me&password=hush", "postgresql://host/board?user=me&password=***"),
        ("postgresql://host/board?PassWord=hush&user=me", "postgresql://host/board?PassWord=***&user=me"),
        ("postgresql://host/board?sslpassword=hush", "postgresql://host/board?sslpassword=***"),
        ("boards/what?password=is.sqlite", "boards/what?password=is.sqlite"),
    ],
)
def test_a_board_is_named_without_its_password(board: str, said: str) -> None:
    assert board_name(board) == said
