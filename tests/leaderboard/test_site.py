import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness.types import InputError
from leaderboard.pages import site as site_module
from leaderboard.pages.links import INDEX, gallery_path, pair_path, row_path
from leaderboard.pages.site import Site, write_site
from leaderboard.standings import sections
from leaderboard.store import Board
from tests.leaderboard.boards import EVIL, board_of, evil_board, many_rows, questions, small_board
from tests.leaderboard.samples import with_hits
from tests.leaderboard.test_pages import Outline


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """The pages of a small board."""
    folder = tmp_path_factory.mktemp("small")
    write_site(small_board(folder / "board.db"), folder / "site")
    return folder


def test_every_link_leads_to_a_page_and_every_page_is_whole(small):
    pages = sorted((small / "site").rglob("*.html"))
    assert len(pages) > 60
    assert not list((small / "site").rglob("*.unfinished"))
    for page in pages:
        outline = Outline(page.read_text())
        for address in outline.addresses:
            if not address.startswith("#"):
                assert (page.parent / address).resolve().is_file(), f"{page}: {address}"


def test_pairs_are_all_against_the_best_and_the_best_among_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr(site_module, "AMONG_BEST", 3)
    monkeypatch.setattr(site_module, "AGAINST_BEST", 5)
    rows = [with_hits(f"r{hits}", hits) for hits in (90, 80, 70, 60, 50, 40)]
    saw = with_hits("saw", 95, contamination="it saw the answers")
    other = with_hits("other", 10, fingerprint="e" * 64)
    board = board_of(tmp_path / "board.db", [*rows, saw, other])
    paths = list(Site(board).paths())
    a, b, c, d, e, _ = rows
    assert {path for path in paths if path.startswith("compare")} == {
        pair_path(a, b), pair_path(a, c), pair_path(a, d), pair_path(a, e), pair_path(b, c)
    }  # fmt: skip
    assert {row_path(row) for row in (*rows, saw, other)} < set(paths)
    assert paths[-1] == INDEX, "it links to all others, so it comes last"


def test_a_site_makes_the_pages_that_are_written(small):
    board = Board(small / "board.db")
    site = Site(board)
    for path in (INDEX, *list(site.paths())[:3]):
        assert site.page(path) == (small / "site" / path).read_text()


@pytest.mark.parametrize(
    "path",
    ["", "nothing.html", "rows/", f"rows/{'0' * 16}.html", f"compare/{'0' * 16}-{'1' * 16}.html", "../board.db",
     "rows/../index.html", f"gallery/{'0' * 16}.html", "rows/ABCDEF0123456789.html", "/index.html"],
)  # fmt: skip
def test_there_are_no_other_pages(small, path):
    assert Site(Board(small / "board.db"), any_pair=True).page(path) is None


def test_a_server_has_every_pair(tmp_path, monkeypatch):
    monkeypatch.setattr(site_module, "AMONG_BEST", 2)
    rows = [with_hits(f"r{hits}", hits) for hits in (90, 80, 70)]
    board = board_of(tmp_path / "board.db", rows)
    path = pair_path(rows[2], rows[1])
    assert Site(board).page(path) is None
    page = Site(board, any_pair=True).page(path)
    assert page is not None
    assert "r70" in page
    assert "r80" in page
    assert '"compared":{"any":1}' in (Site(board, any_pair=True).page(INDEX) or "")


def test_pages_of_rows_that_are_gone_are_removed_and_nothing_else(tmp_path):
    rows = [with_hits(f"r{hits}", hits) for hits in (90, 80, 70)]
    folder = tmp_path / "site"
    write_site(board_of(tmp_path / "three.db", rows), folder)
    kept = [folder / "rows" / "notes.html", folder / gallery_path(rows[0]), folder / "rows" / f"{'a' * 16}.txt"]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    write_site(board_of(tmp_path / "two.db", rows[:2]), folder)
    assert (folder / row_path(rows[1])).is_file()
    assert not (folder / row_path(rows[2])).exists()
    assert not (folder / pair_path(rows[0], rows[2])).exists()
    assert [path.read_text() for path in kept] == ["mine"] * 3


def test_galleries_that_lie_there_are_linked(tmp_path):
    rows = [with_hits("r90", 90), with_hits("r80", 80)]
    folder = tmp_path / "site"
    (folder / "gallery").mkdir(parents=True)
    (folder / gallery_path(rows[1])).write_text("")
    index = write_site(board_of(tmp_path / "board.db", rows), folder).read_text()
    assert f'href="{gallery_path(rows[1])}"' in index
    assert f'href="{gallery_path(rows[0])}"' not in index
    assert f'href="../{gallery_path(rows[1])}"' in (folder / row_path(rows[1])).read_text()
    assert "gallery/" not in (folder / row_path(rows[0])).read_text()


def test_runs_of_one_result_share_a_page(tmp_path):
    row = many_rows(2)[0]
    again = replace(row, name="the same again", artifacts=(*row.artifacts, "search:" + "c" * 64))
    board = board_of(tmp_path / "board.db", [row, again])
    (section,) = sections(board.rows())
    site = Site(board)
    assert [len(entry.runs) for entry in section.ranked] == [2]
    assert site.page(row_path(row)) == site.page(row_path(again))
    assert sum(path.startswith("rows/") for path in site.paths()) == 1


def test_html_is_text_on_every_page(tmp_path):
    folder = write_site(evil_board(tmp_path / "board.db"), tmp_path / "site").parent
    pages = list(folder.rglob("*.html"))
    assert len(pages) > 26
    for page in pages:
        html = page.read_text()
        outline = Outline(html)
        assert EVIL in "".join(outline.text), page
        assert not re.search(r"<script>alert|<img", html), page


def test_the_rows_as_json_end_no_element():
    from leaderboard.pages.payload import as_script

    text = str(as_script({"</script><!--": "&amp;\u2028\u2029é"}))
    assert not re.search(r"[<>&\u2028\u2029]", text)
    assert text.isascii()


def test_rows_that_name_the_queries_of_other_data_have_pages_without_slices(tmp_path):
    # The page of the pair ended the whole site.
    asked = questions(5)
    rows = [with_hits(f"r{hits}", hits, n=40, questions_id=asked.id) for hits in (30, 20)]
    with Board(tmp_path / "board.db") as board:
        for row in rows:
            board.add(row, asked)
        write_site(board, tmp_path / "site")
    assert (tmp_path / "site" / pair_path(*rows)).is_file()


def test_rows_that_name_different_queries_have_no_page_of_their_pair(tmp_path):
    rows = [with_hits("one", 30, questions_id="1" * 64), with_hits("other", 20, questions_id="2" * 64)]
    write_site(board_of(tmp_path / "board.db", rows), tmp_path / "site")
    assert not (tmp_path / "site" / "compare").exists()
    assert all((tmp_path / "site" / row_path(row)).is_file() for row in rows)


@pytest.mark.parametrize("content", ["<!doctype html><title>My holiday</title>", "notes", "\0"])
@pytest.mark.parametrize("name", [INDEX, "row"])
def test_a_file_of_someone_else_is_not_replaced(tmp_path, name, content):
    row = with_hits("one", 30)
    board = board_of(tmp_path / "board.db", [row])
    foreign = tmp_path / "site" / (INDEX if name == INDEX else row_path(row))
    foreign.parent.mkdir(parents=True)
    foreign.write_text(content)
    with pytest.raises(InputError, match="is no page of a leaderboard"):
        write_site(board, tmp_path / "site")
    assert [path for path in (tmp_path / "site").rglob("*") if path.is_file()] == [foreign]
    assert foreign.read_text() == content


def test_pages_of_ours_are_replaced_and_so_is_an_empty_file(tmp_path):
    board = board_of(tmp_path / "board.db", [with_hits("one", 30)])
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / INDEX).touch()
    write_site(board, tmp_path / "site", title="first")
    assert "second" in write_site(board, tmp_path / "site", title="second").read_text()


def test_a_folder_by_the_name_of_a_page_is_said(tmp_path):
    board = board_of(tmp_path / "board.db", [with_hits("one", 30)])
    (tmp_path / "site" / INDEX).mkdir(parents=True)
    with pytest.raises(InputError, match="is no page of a leaderboard"):
        write_site(board, tmp_path / "site")


def test_the_gallery_of_an_earlier_run_still_leads_to_a_page_of_its_result(tmp_path):
    first = with_hits("one", 30)
    board = board_of(tmp_path / "board.db", [first])
    write_site(board, tmp_path / "site")
    page = tmp_path / "site" / gallery_path(first)
    page.parent.mkdir()
    page.write_text(f'<a href="../{row_path(first)}">the row</a>')
    again = replace(first, code_version="0.2.0", created=first.created.replace(year=2027))
    board.add(again)
    write_site(board, tmp_path / "site")
    for row in (first, again):
        assert (tmp_path / "site" / row_path(row)).is_file()
