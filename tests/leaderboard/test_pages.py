import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from leaderboard.entered import EnteredScore
from leaderboard.pages.site import write_site
from leaderboard.rows import StageRecord
from leaderboard.standings import sections
from leaderboard.store import Board
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
    """The board's page, and what is in it."""
    board = Board(tmp_path / "board.db")
    for row in rows:
        board.add(row)
    html = (write_site(board, tmp_path / "out")).read_text()
    return html, Outline(html)


def test_the_page_shows_rows_and_keeps_to_itself(tmp_path):
    html, outline = written(tmp_path, with_hits("top", 80), with_hits("low", 50))
    text = " ".join("".join(outline.text).split())
    assert html.index(">top<") < html.index(">low<")
    assert "0.8000" in text
    assert "1 min 00 s" in text
    assert all(re.match(r"#|(rows|gallery|compare)/[0-9a-f]{16}", address) for address in outline.addresses)
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
    assert "RENDERED Acc@10 0.8000" in table, "a point of the plot says it too"
    (tmp_path / "real").mkdir()
    photographs, _ = written(tmp_path / "real", with_hits("top", 80, rendered=False))
    assert "RENDERED" not in photographs[: photographs.index('<script type="application/json"')]


def test_html_in_names_is_text(tmp_path):
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    html, outline = written(
        tmp_path,
        sample(evil, spec=evil, code_version=evil, hardware={"cpu": evil}, stages=(StageRecord(evil, 1.0),)),
        sample("b", contamination=evil),
    )
    assert "<script>alert" not in html
    assert "<img" not in html
    assert outline.scripts == 2, "the rows, and what sorts them"
    assert evil in "".join(outline.text)


def test_rows_that_do_not_count_stand_apart(tmp_path):
    html, _ = written(
        tmp_path, with_hits("fair", 50), with_hits("saw", 99, contamination="m7 was trained on validation")
    )
    html = html[: html.index("<aside")]
    ranked, apart = html[html.index("Ranked by") :].split("Not ranked")
    assert "fair" in ranked
    assert "saw" not in ranked
    assert "m7 was trained on validation" in apart
    assert 'class="first"' not in apart
    assert "fair" in apart.split("Accuracy against cost")[1], "only rows that count are in the plot"
    assert "saw" not in apart.split("Accuracy against cost")[1]


def test_published_figures_stand_in_tables_of_their_own(tmp_path):
    html, _ = written(tmp_path, with_hits("top", 80))
    measured, literature = html.split("<aside")
    assert "not measured here" in literature
    for figure in ("0.854168", "0.872082", "0.888341", "83.6", "0.668740", "0.840060", ">0.870<", "873,234"):
        assert figure in literature
        assert figure not in measured
    assert "Match R-CNN, the data set&#39;s own baseline" in literature
    assert literature.count('class="source"') == 2, "the paper's, and the data set's"


def test_entered_scores_stand_apart_with_their_source(tmp_path):
    board = Board(tmp_path / "board.db")
    board.add(with_hits("top", 80))
    assert "entered by hand" not in write_site(board, tmp_path / "out").read_text()
    board.enter(EnteredScore("m4 + WBF_5", "our entry", "test", {1: 0.6, 10: 0.8123}, "the server's mail", "c" * 64))
    html = write_site(board, tmp_path / "out").read_text()
    measured, told = html.split('<section class="told"')
    told = told.split("<aside")[0]
    for text in ("our entry", "m4 + WBF_5", "0.8123", "0.6000", "the server&#39;s mail", "c" * 12, "test"):
        assert text in told
        assert text not in measured[measured.index("<main") :] or text == "test"


def test_an_empty_board_has_a_page(tmp_path):
    assert "Nothing scored yet" in written(tmp_path)[0]


def test_rows_on_ground_truth_boxes_are_ranked_among_themselves(tmp_path):
    board = Board(tmp_path / "board.db")
    for spec, hits in (("m4 + GT", 90), ("m4 + WBF_5", 60), ("m4 + GT | qe(5)", 95), ("m4 + WBF_4", 50)):
        board.add(replace(with_hits(spec, hits), spec=spec))
    found = [[entry.row.spec for entry in section.ranked] for section in sections(board.rows())]
    assert sorted(found) == [["m4 + GT | qe(5)", "m4 + GT"], ["m4 + WBF_5", "m4 + WBF_4"]]
    assert [entry.rank for section in sections(board.rows()) for entry in section.ranked].count(1) == 2
