import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from leaderboard.entered import EnteredScore
from leaderboard.store import Board
from leaderboard.terminal import show
from tests.leaderboard.samples import sample, with_hits

LONG = "m0-13,m16,m17 + WBF_5@126000 | rerank(k1=20,k2=6,lambda=0.3)"


@pytest.fixture
def board(tmp_path):
    board = Board(tmp_path / "board.db")
    board.add(with_hits("[bold]top[/nothing]", 80, spec=LONG))
    board.add(with_hits("the same", 80, spec=LONG, code_version="2"))
    board.add(with_hits("near", 78))
    board.add(with_hits("far", 50))
    board.add(with_hits("saw", 99, contamination="m7 was trained on validation"))
    board.enter(EnteredScore(LONG, "final", "test", {10: 0.854168, 1: 0.61}, "challenge server, mail of 2020-06-01"))
    return board


def printed(board: Board, width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(*show(board))
    return stream.getvalue()


@pytest.mark.parametrize("width", [60, 61, 72, 80, 100, 120, 140, 160, 200, 300])
def test_nothing_is_cut_at_any_width(board, width):
    text = printed(board, width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert "…" not in text
    joined = "".join(text.split())
    for needed in ("RENDERED", "0.8000", ".711–.867", "#2", "[bold]top[/nothing]", "notmeasuredhere", "0.854168"):
        assert needed in joined
    # What wraps stays whole lines of its column: at 60 columns the spec takes several.
    assert "rerank(" in text
    assert "Contaminated:" in text
    assert "m7 was" in text


def test_columns_come_in_by_need(board):
    heads = {
        width: next(line for line in printed(board, width).splitlines() if "Acc@10" in line) for width in (60, 200)
    }
    assert heads[60].split() == ["#", "row", "ensemble", "Acc@10", "interval", "tied"]
    wide = "# row ensemble Acc@10 interval tied Acc@1 Acc@5 Acc@15 Acc@20 time machine remarks"
    assert heads[200].split() == wide.split()


def test_rows_that_do_not_count_come_last_without_a_rank(board):
    lines = [line for line in printed(board, 120).splitlines() if re.match(r"[–\d]+ +[0-9a-f]{8} ", line)]
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "–"]
    assert [line.split()[2] for line in lines[1:]] == ["near", "far", "saw"]


def test_an_empty_board_says_so(tmp_path):
    assert show(Board(tmp_path / "board.db")) == ["Leaderboard: no rows yet"]


def test_names_cannot_steer_the_terminal(tmp_path):
    board = Board(tmp_path / "board.db")
    board.add(sample("a\x1b[31mred\x07", rendered=False, hardware={"cpu": "b\x1b[2J"}))
    text = printed(board, 200)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "a�[31mred�" in text
    assert "RENDERED" not in text


def test_entered_scores_of_rendered_data_say_so(tmp_path):
    board = Board(tmp_path / "board.db")
    board.enter(EnteredScore("m4 + WBF_5", "m4 + WBF_5", "test", {10: 0.5}, "our own server", rendered=True))
    text = printed(board, 60)
    assert "RENDERED" in text
    assert "told elsewhere, not measured here" in text
