"""The board's and the rows' pages in Chromium."""

import re
import statistics
from pathlib import Path

import pytest

from leaderboard.pages.board_page import board_page
from leaderboard.pages.links import gallery_path, row_path
from leaderboard.pages.site import write_site
from leaderboard.published import published
from leaderboard.standings import sections
from leaderboard.store import Board
from tests.leaderboard.boards import EVIL, evil_board, many_rows, small_board
from tests.leaderboard.browser import LOOKS, PHONE, Visitor, chromium, visit  # noqa: F401

pytestmark = pytest.mark.browser

RENDERED = "table[data-section='1'][data-list='ranked']"
"""The section of 30 rendered rows, of which one does not count."""

MAX_BYTES = 5_000_000
MAX_SORT_MS = 200


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    board = small_board(folder / "board.db")
    (folder / "gallery").mkdir()
    (folder / gallery_path(board.rows()[0])).write_text("")
    return write_site(board, folder)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    page = tmp_path_factory.mktemp("large") / "index.html"
    found = sections(many_rows(5000), tell_apart=False)
    page.write_text(board_page(found, title="5,000 rows", literature=published()))
    return page


def benchmarked(small: Path) -> Path:
    """The row's page that has everything on it."""
    return next(path for path in sorted((small.parent / "rows").iterdir()) if "Benchmark" in path.read_text())


def shows(locator, text: str | re.Pattern[str]) -> None:
    """Wait until an element shows a text; not by a script of the page's, which its policy forbids now and then."""
    from playwright.sync_api import expect

    expect(locator).to_have_text(text)


def names(page, table: str = RENDERED) -> list[str]:
    return page.locator(f"{table} tbody tr:not(.grouping) .name").all_inner_texts()


def figures(page, column: int, table: str = RENDERED) -> list[float]:
    texts = page.locator(f"{table} tbody tr:not(.grouping) > :nth-child({column})").all_inner_texts()
    return [float(text.split()[-1]) for text in texts]


def read(page, table: str) -> list[str]:
    """The text of every cell, without spaces."""
    cells = page.locator(f"{table} tbody td:not(.choose), {table} tbody th").all_text_contents()
    return ["".join(text.split()) for text in cells]


def drawn(page, table: str) -> list[float]:
    """Every place and width that is drawn in the cells, in percent."""
    return page.locator(f"{table} tbody [style]").evaluate_all(
        "all => all.flatMap((one) => [...one.style].map((name) => parseFloat(one.style[name])))"
    )


@pytest.mark.parametrize(("scheme", "screen"), LOOKS)
@pytest.mark.parametrize("which", ["board", "row"])
def test_pages_are_quiet_and_accessible(small, visit: Visitor, which, scheme, screen):  # noqa: F811
    seen = visit(small if which == "board" else benchmarked(small), scheme, screen)
    seen.page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    if which == "board":
        for box in seen.page.locator(f"{RENDERED} .choose input").all()[:2]:
            box.check()
    seen.keeps_to_the_screen()
    seen.is_accessible()
    seen.was_quiet()
    assert len(seen.requests) == 1


def test_the_browser_shows_the_same_rows_as_the_page_without_its_script(small, visit: Visitor):  # noqa: F811
    with_script, without = visit(small), visit(small, java_script_enabled=False)
    for table in (RENDERED, "table[data-list='apart']", "table[data-section='0']"):
        first, second = (read(seen.page, table) for seen in (with_script, without))
        assert first == second
        assert len(first) > 6
        first, second = (drawn(seen.page, table) for seen in (with_script, without))
        assert len(first) > 6
        assert first == pytest.approx(second, abs=0.02), "percent, rounded in two languages"
    assert without.page.locator(".controls").is_hidden()
    assert without.page.locator(".choose").first.is_hidden()


@pytest.mark.parametrize(
    ("sort", "column", "best_first"),
    [("rank", 1, False), ("acc10", 3, True), ("acc1", 5, True), ("acc20", 6, True)],
)
def test_columns_sort_by_click(small, visit: Visitor, sort, column, best_first):  # noqa: F811
    page = visit(small).page
    header = page.locator(f"{RENDERED} th[data-sort={sort}]")
    header.locator("button").click()
    if sort == "rank":  # it was sorted by rank already, so the click turned it round
        assert header.get_attribute("aria-sort") == "descending"
        header.locator("button").click()
    found = figures(page, column)
    assert found == sorted(found, reverse=best_first)
    assert header.get_attribute("aria-sort") == ("descending" if best_first else "ascending")
    header.locator("button").click()
    found = figures(page, column)
    assert found == sorted(found, reverse=not best_first)
    assert page.locator(f"{RENDERED} [aria-sort]").count() == 1


def test_names_intervals_and_times_sort_too(small, visit: Visitor):  # noqa: F811
    page = visit(small).page
    page.locator(f"{RENDERED} th[data-sort=name] button").click()
    found = names(page)
    trials = [int(name.split()[1]) for name in found if name.startswith("trial")]
    assert trials == sorted(trials), "numbers in names count as numbers"
    assert found.index("m0 + ATSS") < found.index("m9 + ATSS") < found.index("trial 0")
    page.locator(f"{RENDERED} th[data-sort=low] button").click()
    lows = [float(text.split()[0]) for text in page.locator(f"{RENDERED} .bounds").all_text_contents()]
    assert lows == sorted(lows, reverse=True)
    page.locator(f"{RENDERED} th[data-sort=seconds] button").click()
    times = page.locator(f"{RENDERED} .total").all_inner_texts()
    assert times[-1] == "–", "what was not timed comes last"
    page.locator(f"{RENDERED} th[data-sort=seconds] button").click()
    assert page.locator(f"{RENDERED} .total").all_inner_texts()[-1] == "–"
    page.get_by_label("Sort by").select_option("newest")
    assert page.locator(f"{RENDERED} [aria-sort]").count() == 0, "there is no such column"
    assert names(page)[0].endswith("qe(29)")


def test_the_filters(small, visit: Visitor):  # noqa: F811
    page = visit(small).page
    status = page.locator(".controls output")
    assert status.inner_text() == "40 rows"
    page.get_by_label("Find").fill("QE  m1-16")
    assert all("qe" in text and "m1-16" in text for text in page.locator(f"{RENDERED} .who").all_inner_texts())
    assert page.locator("table[data-section='0'] tbody").inner_text() == "No row here matches."
    page.get_by_label("Find").fill("")
    page.get_by_label("Show").select_option("rows that do not count")
    assert status.inner_text() == "1 of 40 rows"
    assert names(page, "table[data-list='apart']") == ["trial 24"]
    page.get_by_label("Show").select_option("the front of accuracy against time")
    front = set(names(page))
    plotted = page.locator(f"section:has({RENDERED}) .as-table th[scope=row]").all_text_contents()
    assert front == set(plotted)
    page.get_by_label("Show").select_option("rows that count")
    assert names(page, "table[data-list='apart']") == []
    page.get_by_role("combobox", name="Boxes").select_option("ATSS")
    specs = page.locator(f"{RENDERED} tbody tr").evaluate_all(
        "rows => rows.map((row) => (row.querySelector('.spec') ?? row.querySelector('.name')).textContent)"
    )
    assert specs
    assert all("+ ATSS" in spec for spec in specs)
    page.get_by_role("combobox", name="Boxes").select_option("any")
    page.get_by_label("Machine").select_option("NVIDIA H100 80GB HBM3, 16 cores")
    assert 0 < len(names(page)) < 15
    page.get_by_role("button", name="Show everything").click()
    shows(status, "40 rows")
    assert page.get_by_role("button", name="Show everything").is_hidden()


def test_rows_are_grouped_and_sorted_within(small, visit: Visitor):  # noqa: F811
    page = visit(small).page
    page.get_by_label("Group by").select_option("box source")
    lines = page.locator(f"{RENDERED} tbody tr").evaluate_all(
        "rows => rows.map(r => r.className === 'grouping' ? r.textContent : Number(r.cells[2].textContent))"
    )
    groups: dict[str, list[float]] = {}
    for line in lines:
        if isinstance(line, str):
            groups[line] = []
        else:
            groups[list(groups)[-1]].append(line)
    assert {group.split()[0].rstrip("0123456789") for group in groups} == {"WBF_", "ATSS", "CenterNet"}
    for title, found in groups.items():
        assert found == sorted(found, reverse=True)
        assert f"{len(found)} row" in title
        assert f"best Acc@10 {max(found):.4f} (RENDERED)" in title
    page.get_by_label("Group by").select_option("first model")
    assert page.locator(f"{RENDERED} .grouping").first.inner_text().startswith("m")
    page.get_by_label("Group by").select_option("nothing")
    assert page.locator(".grouping").count() == 0


def test_what_is_asked_for_stands_in_the_address(small, visit: Visitor):  # noqa: F811
    page = visit(small).page
    page.get_by_label("Find").fill("m9 &")
    page.get_by_label("Group by").select_option("box source")
    page.locator(f"{RENDERED} th[data-sort=acc1] button").click()
    again = visit(page.url)
    assert again.page.get_by_label("Find").input_value() == "m9 &"
    assert again.page.get_by_label("Group by").input_value() == "boxes"
    assert again.page.locator(f"{RENDERED} th[data-sort=acc1]").get_attribute("aria-sort") == "descending"
    strange = visit(f"{small.as_uri()}#sort=nonsense&group=x&find=&__proto__=1")
    assert strange.page.get_by_label("Sort by").input_value() == "rank-ascending"
    assert len(names(strange.page)) == 30
    strange.was_quiet()


def test_two_rows_are_chosen_and_compared(small, visit: Visitor):  # noqa: F811
    seen = visit(small)
    page, bar = seen.page, seen.page.get_by_role("region", name="Comparison")
    assert bar.is_hidden()
    boxes = page.locator(f"{RENDERED} .choose input")
    first, second, third = names(page)[:3]
    boxes.nth(1).check()
    assert "choose a second row" in bar.inner_text()
    boxes.nth(0).check()
    assert f"{second} against {first}" in bar.inner_text(), "the better one comes first, whichever was chosen first"
    boxes.nth(2).check()
    assert f"{third} against {first}" in bar.inner_text(), "a third choice takes the place of the oldest"
    assert boxes.nth(1).is_checked() is False
    bar.get_by_role("link", name="Compare").click()
    page.wait_for_url("**/compare/*.html")
    assert first in page.title()
    seen.was_quiet()


def test_pairs_without_a_page_and_pairs_that_cannot_be_compared(small, visit: Visitor):  # noqa: F811
    page = visit(small).page
    bar = page.get_by_role("region", name="Comparison")
    boxes = page.locator(f"{RENDERED} .choose input")
    boxes.nth(20).check()
    boxes.nth(25).check()
    assert bar.get_by_role("link", name="Compare").is_hidden()
    command = bar.locator("code").inner_text()
    links = [row.get_attribute("href")[5:21] for row in page.locator(f"{RENDERED} .name").all()]
    assert command == f"run.py leaderboard compare {links[20]} {links[25]} --html comparison.html"
    bar.get_by_role("button", name="Copy").click()
    shows(page.locator(".copy"), re.compile("Copied|Selected"))
    bar.get_by_role("button", name="Clear").click()
    assert bar.is_hidden()
    assert page.locator(".choose input:checked").count() == 0
    boxes.nth(0).check()
    page.locator("table[data-section='0'] .choose input").nth(0).check()
    assert "answer different questions" in bar.inner_text()
    assert bar.get_by_role("link", name="Compare").is_hidden()


def test_a_keyboard_is_enough(small, visit: Visitor):  # noqa: F811
    page = visit(small).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    focused = "document.activeElement.closest('th')?.dataset.sort"
    assert page.evaluate(focused) == "rank", "the skip link leads to the first table"
    for _ in range(2):
        page.keyboard.press("Tab")
    assert page.evaluate(focused) == "acc10"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") == "descending"
    page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") == "ascending"
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.type") == "checkbox":
            break
    page.keyboard.press("Space")
    assert page.locator(".choose input:checked").count() == 1
    assert page.evaluate("document.activeElement.type") == "checkbox", "the keyboard stays where it was"
    point = page.locator(f"section:has({RENDERED}) .points a").first
    point.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/rows/*.html")


def test_dark_and_light_differ_and_can_be_read(small, visit: Visitor):  # noqa: F811
    colours = {
        scheme: visit(small, scheme).page.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
        for scheme in ("light", "dark")
    }
    assert colours["light"] != colours["dark"]
    for paper, ink in colours.values():
        assert contrast(paper, ink) > 10
    assert luminance(colours["light"][0]) > 0.8
    assert luminance(colours["dark"][0]) < 0.05


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 has it, of ``rgb(r, g, b)``."""
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_a_phone_shows_every_figure(small, visit: Visitor):  # noqa: F811
    page = visit(small, screen=PHONE).page
    line = page.locator(f"{RENDERED} tbody tr").first
    for text in ("RENDERED Acc@10", "RENDERED Acc@1", "RENDERED Acc@20", "95 % interval", "Time"):
        assert line.locator(f"[data-label='{text}']").is_visible()
    for cell in line.locator("td").all():
        box = cell.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE[0]
    line.get_by_text("Compare").click()
    assert page.locator(".choose input:checked").count() == 1


def test_the_command_of_a_row_is_copied_or_selected(small, visit: Visitor):  # noqa: F811
    seen = visit(benchmarked(small))
    page = seen.page
    page.get_by_role("button", name="Copy").click()
    shows(page.locator("#copy"), re.compile("Copied|Selected"))
    if "Selected" in page.locator("#copy").inner_text():
        assert page.evaluate("String(getSelection())") == page.locator("#command").inner_text()
    seen.was_quiet()


def test_a_board_of_5000_rows_is_small_and_sorts_at_once(large, visit: Visitor):  # noqa: F811
    assert large.stat().st_size < MAX_BYTES
    seen = visit(large)
    page = seen.page
    took = page.evaluate(
        """() => ["acc1", "seconds", "name", "acc20", "low", "acc10", "rank"].flatMap((name) => [0, 1].map(() => {
          const start = performance.now();
          document.querySelector(`th[data-sort=${name}] button`).click();
          document.body.getBoundingClientRect();
          return performance.now() - start;
        }))"""
    )
    assert statistics.median(took) < MAX_SORT_MS, took
    assert page.locator("table[data-list=ranked] tbody tr").count() == 100
    page.get_by_role("button", name="Show 100 more").first.click()
    assert page.locator("table[data-list=ranked] tbody tr").count() == 200
    assert page.evaluate("document.activeElement.closest('tr').rowIndex") == 101, "the keyboard goes on from there"
    page.get_by_label("Find").fill("qe(4321)")
    assert "qe(4321)" in page.locator("table[data-list=ranked] .who").inner_text()
    seen.keeps_to_the_screen()
    seen.was_quiet()


def test_html_in_every_text_is_shown_and_does_nothing(tmp_path, visit: Visitor):  # noqa: F811
    board = evil_board(tmp_path / "board.db")
    index = write_site(board, tmp_path / "site")
    seen = visit(index)
    assert EVIL in names(seen.page, "table[data-list=ranked]")[0]
    assert EVIL in seen.page.locator(".reason").first.inner_text()
    assert EVIL in seen.page.locator(".told").inner_text()
    seen.page.get_by_label("Find").fill("<img")
    seen.page.get_by_label("Group by").select_option("box source")
    for box in seen.page.locator(".choose input").all()[20:22]:
        box.check()
    assert EVIL in seen.page.locator(".choice").inner_text()
    seen.was_quiet()
    pages = [index, *sorted((index.parent / "rows").iterdir())[:2], next((index.parent / "compare").iterdir())]
    benched = next(row for row in Board(tmp_path / "board.db").rows() if board.timings(row.id))
    for path in (*pages, index.parent / row_path(benched)):
        seen = visit(path)
        assert EVIL in seen.page.locator("body").inner_text()
        assert seen.page.locator("img").count() == 0
        assert seen.page.evaluate("[...document.querySelectorAll('*')].every(one => !one.onerror)")
        seen.keeps_to_the_screen()
        seen.was_quiet()


def test_an_empty_board_is_quiet(tmp_path, visit: Visitor):  # noqa: F811
    seen = visit(write_site(Board(tmp_path / "board.db"), tmp_path / "site"))
    assert seen.page.locator(".controls").is_hidden()
    assert "Nothing scored yet" in seen.page.locator("main").inner_text()
    seen.is_accessible()
    seen.was_quiet()
