import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.types import InputError
from leaderboard.pages import write_page
from leaderboard.published import published, read_published
from leaderboard.standings import sections
from leaderboard.store import Board
from leaderboard.tables import paper_tables
from leaderboard.terminal import show
from tests.leaderboard.samples import sample, with_hits


class Outline(HTMLParser):
    """Balanced tags, the texts of table cells, and every address the page names."""

    VOID = ("meta", "br", "link", "img", "input")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.scripts = 0
        self.text: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.scripts += tag == "script"
        for name, value in attrs:
            if name in ("src", "href", "action", "data"):
                self.addresses.append(value)
            assert not name.startswith("on")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)


def written(tmp_path: Path, *rows) -> tuple[str, Outline]:
    board = Board(tmp_path / "board.db")
    for row in rows:
        board.add(row)
    html = write_page(board, tmp_path / "out" / "page.html").read_text()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["page.html"]
    return html, Outline(html)


def test_the_page_shows_rows_and_keeps_to_itself(tmp_path):
    html, outline = written(tmp_path, with_hits("top", 80), with_hits("low", 50))
    text = " ".join("".join(outline.text).split())
    assert html.index(">top<") < html.index(">low<")
    assert "0.8000" in text
    assert "1 min 00 s" in text
    assert all(address.startswith("#") for address in outline.addresses)
    assert not re.search(r"https?://|@import|url\(", html)
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport"' in html


def test_rendered_data_is_shouted_and_photographs_are_not(tmp_path):
    html, _ = written(tmp_path, with_hits("top", 80))
    measured = html[: html.index("<aside")]
    table = measured[measured.index("<table") :]
    for accuracy in ("Acc@10", "Acc@1", "Acc@20"):
        assert f'<b class="mark">RENDERED</b> {accuracy}</th>' in table
        assert f'data-label="RENDERED {accuracy}"' in table
    assert 'class="shout"' in measured
    (tmp_path / "real").mkdir()
    photographs, _ = written(tmp_path / "real", with_hits("top", 80, rendered=False))
    assert "RENDERED" not in photographs


def test_html_in_names_is_text(tmp_path):
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    html, outline = written(
        tmp_path,
        sample(evil, spec=evil, code_version=evil, hardware={evil: evil}, stage_seconds={evil: 1.0}, artifacts=(evil,)),
        sample("b", contamination=evil),
    )
    assert "<script>alert" not in html
    assert "<img" not in html
    assert outline.scripts == 1
    assert evil in "".join(outline.text)


def test_rows_that_do_not_count_stand_apart(tmp_path):
    html, _ = written(
        tmp_path, with_hits("fair", 50), with_hits("saw", 99, contamination="m7 was trained on validation")
    )
    ranked, apart = html[html.index("Ranked by") :].split("Not ranked")
    assert "fair" in ranked
    assert "saw" not in ranked
    assert "m7 was trained on validation" in apart
    assert 'class="first"' not in apart


def test_published_figures_stand_in_tables_of_their_own(tmp_path):
    html, _ = written(tmp_path, with_hits("top", 80))
    measured, literature = html.split("<aside")
    assert "not measured here" in literature
    for figure in ("0.854168", "0.872082", "0.888341", "83.6", "0.668740", "0.840060", ">0.870<", "873,234"):
        assert figure in literature
        assert figure not in measured


def test_an_empty_board_has_a_page(tmp_path):
    assert "Nothing scored yet" in written(tmp_path)[0]


def test_the_terminal_shows_the_same(tmp_path):
    from rich.console import Console

    board = Board(tmp_path / "board.db")
    assert [table.caption for table in show(board)] == ["no rows yet"]
    board.add(with_hits("[bold]top[/nothing]", 80))
    board.add(with_hits("saw", 99, contamination="m7 was trained on validation"))
    stream = io.StringIO()
    Console(file=stream, width=200).print(*show(board))
    text = stream.getvalue()
    assert "[bold]top[/nothing]" in text
    assert "RENDERED" in text
    assert "0.8000" in text
    assert "Contaminated: m7 was trained on validation" in text


def test_published_numbers():
    """Spot checks against the paper: one cell of each table, and the counts of rows."""
    tables = published()
    assert [table.number for table in tables.tables] == [1, 2, 3, 5, 6, 7, 8]
    assert [len(table.rows) for table in tables.tables] == [6, 5, 18, 5, 8, 3, 6]
    cells = [(1, 2, "images", 416840), (2, 2, "APS", 30.1), (3, 15, "Acc@10", 0.882), (5, 4, "AP50", 85.8)]
    cells += [(6, 4, "test Acc@10", 0.851945), (7, 1, "Acc@1", 0.650885), (8, 0, "Acc@10", 0.872082)]
    for number, row, column, value in cells:
        assert tables.table(number).value(row, column) == value
    assert tables.table(3).value(7, "Acc@10") is None
    with pytest.raises(InputError, match="table 4: unknown, expected one of 1, 2, 3, 5, 6, 7, 8"):
        tables.table(4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("pairs = 873234", "paris = 873234"), "tables.0: .*row 0: paris"),
        (("AP = 72.8", "AP = 728"), "tables.1: .*row 0: AP: 728"),
        (('unit = "count"', 'unit = "apples"'), "tables.0.unit"),
        (('title = "Detection"', 'titel = "Detection"'), "tables.1"),
        (('model = "m0", ', ""), "row 0: without model"),
        (("[[tables]]", "[[tables"), "cannot be read"),
    ],
)
def test_wrong_published_files_are_refused(tmp_path, change, message):
    import leaderboard.published

    text = Path(leaderboard.published.__file__).with_name("published.toml").read_text()
    path = tmp_path / "published.toml"
    path.write_text(text.replace(*change, 1))
    with pytest.raises(InputError, match=message):
        read_published(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_published(tmp_path / "nowhere.toml")


def test_paper_tables_keep_published_and_measured_apart():
    measured = {
        2: {"ATSS": {"AP": 0.412, "AP50": 0.7004, "APS": None}},
        5: {"WBF_5": {"AP50": 0.72}},
        6: {"m0,m4": {"validation Acc@10": 0.5}},
        7: {"WBF_5 (126k) | NN": {"Acc@10": 0.4}, "WBF_5 (2k) | NN": {"Acc@1": 0.1}},
    }
    tables = {table.number: table for table in paper_tables(measured, rendered=True, data="validation 3fa9")}
    assert list(tables) == [2, 3, 5, 6, 7]
    for table in tables.values():
        kinds = [column.kind for column in table.columns]
        assert {"label", "published", "measured"} == set(kinds)
        assert all("RENDERED" in column.heading for column in table.columns if column.kind == "measured")
        assert not any("RENDERED" in column.heading for column in table.columns if column.kind != "measured")
        assert all(len(row) == len(kinds) for row in table.rows)
    assert tables[2].rows[0][:5] == ("ATSS", 72.8, pytest.approx(41.2), 83.6, pytest.approx(70.04))
    assert tables[2].rows[1][2] is None
    assert tables[3].rows[7] == ("m7", "used DeepFashion2 train and valid set to train", None, None)
    assert tables[6].rows[-1] == ("m0,m4", None, 0.5, None, None)
    assert tables[7].rows[1] == ("WBF_5 (126k)", "NN", 0.650885, None, 0.853761, 0.4)
    assert tables[7].rows[-1] == ("WBF_5 (2k)", "NN", None, 0.1, None, None)


def test_paper_tables_in_markdown():
    tables = paper_tables({5: {"WBF_1": {"AP50": 0.7}, "a|b": {"AP50": 1.0}}}, rendered=False, data="validation")
    lines = tables[2].markdown().splitlines()
    assert lines[0] == "### Table 5: Weighted boxes fusion"
    assert "measured on photographs (validation)" in lines[2]
    assert lines[4] == "| WBF_1 | ATSS | 83.6 | 70.0 |"
    assert lines[5] == "| WBF_2 | + Cascade Mask R-CNN | 84.0 |  |"
    assert lines[-1] == "| a\\|b |  |  | 100.0 |"
    assert "m7 was trained on the validation set" in tables[3].markdown()
    assert "| m4 | 0.869435 |  | 0.840060 |  |" in tables[3].markdown()


def test_paper_tables_refuse_what_is_not_in_the_paper():
    with pytest.raises(InputError, match="table 8: cannot be measured, expected one of 2, 3, 5, 6, 7"):
        paper_tables({8: {}}, rendered=True, data="x")
    with pytest.raises(InputError, match="unknown column 'AP60', expected one of AP, AP50"):
        paper_tables({2: {"ATSS": {"AP60": 0.5}}}, rendered=True, data="x")
    with pytest.raises(ValueError, match=r"expected a value in \[0, 1\], got 72.8"):
        paper_tables({2: {"ATSS": {"AP": 72.8}}}, rendered=True, data="x")


def test_rows_on_ground_truth_boxes_are_ranked_among_themselves(tmp_path):
    board = Board(tmp_path / "board.db")
    for spec, hits in (("m4 + GT", 90), ("m4 + WBF_5", 60), ("m4 + GT | qe(5)", 95), ("m4 + WBF_4", 50)):
        board.add(replace(with_hits(spec, hits), spec=spec))
    found = [[entry.row.spec for entry in section.ranked] for section in sections(board.rows())]
    assert sorted(found) == [["m4 + GT | qe(5)", "m4 + GT"], ["m4 + WBF_5", "m4 + WBF_4"]]
    assert [entry.rank for section in sections(board.rows()) for entry in section.ranked].count(1) == 2
