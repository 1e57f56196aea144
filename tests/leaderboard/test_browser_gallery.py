"""The gallery in a real browser."""

from pathlib import Path

import pytest

from leaderboard.pages.gallery_page import write_gallery
from tests.leaderboard.boards import EVIL
from tests.leaderboard.browser import LOOKS, PHONE, Visitor, chromium, visit
from tests.leaderboard.galleries import shown

__all__ = ["chromium", "visit"]

pytestmark = pytest.mark.browser

STATUS = "#status"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return write_gallery(tmp_path / "gallery.html", shown(70))  # 60 without the displaced


def numbers(visited) -> list[int]:
    return visited.page.eval_on_selector_all(".query", "cards => cards.map(card => Number(card.dataset.number))")


@pytest.mark.parametrize("scheme, screen", LOOKS)
def test_it_is_quiet_fits_and_can_be_read_by_all(visit: Visitor, page: Path, scheme, screen):
    visited = visit(page, scheme, screen)
    visited.was_quiet()
    visited.keeps_to_the_screen()
    visited.is_accessible()
    assert visited.page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")


def test_twenty_queries_at_a_time(visit: Visitor, page: Path):
    visited = visit(page)
    wanted = [query.number for query in shown(70).queries]
    assert visited.page.inner_text(STATUS) == "1–20 of 60 queries"
    assert numbers(visited) == wanted[:20]
    turn = visited.page.get_by_role("button", name="Next").first
    turn.click()
    turn.click()
    assert visited.page.inner_text(STATUS) == "41–60 of 60 queries"
    assert numbers(visited) == wanted[40:]
    assert turn.is_disabled()
    visited.page.get_by_role("button", name="Previous").first.click()
    assert numbers(visited) == wanted[20:40]


def test_filters_by_outcome_category_and_text(visit: Visitor, page: Path):
    visited = visit(page)
    screen = visited.page
    screen.get_by_role("button", name="Only the failures").click()
    assert screen.inner_text(STATUS) == "1–20 of 50 queries"
    assert not screen.locator(".badge", has_text="hit").count()
    for fate in ("no detection", "wrong class", "not in gallery", "ranked below 20"):
        screen.locator(f'input[value="{fate}"]').uncheck()
    assert screen.inner_text(STATUS) == "1–10 of 10 queries"
    assert set(screen.locator(".badge").all_inner_texts()) == {"✕ right photo, wrong box"}
    screen.locator('input[value="right photo, wrong box"]').uncheck()
    assert screen.inner_text(STATUS) == "0 queries"
    assert screen.get_by_text("No query is of this kind.").is_visible()
    screen.get_by_role("button", name="All", exact=True).click()
    screen.locator("select[name=category]").select_option("sling dress")
    assert all(number % 3 == 0 for number in numbers(visited))
    screen.locator("select[name=category]").select_option("")
    screen.get_by_label("Find").fill("7011")
    assert numbers(visited) == [11]
    screen.get_by_label("Find").fill("000112")
    assert numbers(visited) == [12]
    assert screen.locator('input[value="displaced"]').is_disabled()
    visited.was_quiet()


def test_orders_by_rank_and_by_similarity(visit: Visitor, page: Path):
    visited = visit(page)
    queries = {query.number: query for query in shown(70).queries}
    order = visited.page.get_by_label("Order")
    order.select_option("rank")
    ranks = [queries[number].rank or 99 for number in numbers(visited)]
    assert ranks == sorted(ranks)
    assert ranks[0] < 99
    for name, reverse in (("similarity", True), ("unlike", False)):
        order.select_option(name)
        found = [queries[number].answers[0].similarity for number in numbers(visited)]
        assert found == sorted(found, reverse=reverse)
    order.select_option("score")
    found = [queries[number].score for number in numbers(visited)]
    assert found == sorted(found, reverse=True)


def test_the_arrow_keys_go_from_query_to_query_and_over_the_page(visit: Visitor, page: Path):
    screen = visit(page).page
    wanted = [query.number for query in shown(70).queries]

    def at() -> int:
        return int(screen.evaluate("document.activeElement.dataset.number"))

    screen.keyboard.press("ArrowRight")
    assert at() == wanted[0]
    screen.keyboard.press("ArrowRight")
    assert at() == wanted[1]
    for _ in range(19):
        screen.keyboard.press("ArrowRight")
    assert at() == wanted[20]
    assert screen.inner_text(STATUS) == "21–40 of 60 queries"
    screen.keyboard.press("ArrowLeft")
    assert at() == wanted[19]
    assert screen.inner_text(STATUS) == "1–20 of 60 queries"
    # In a field the arrows are the field's own.
    screen.get_by_label("Find").focus()
    screen.keyboard.press("ArrowRight")
    assert screen.evaluate("document.activeElement.name") == "text"


def test_by_tab_the_filters_come_first_and_then_one_query(visit: Visitor, page: Path):
    screen = visit(page).page
    names = []
    for _ in range(15):
        screen.keyboard.press("Tab")
        names.append(
            screen.evaluate(
                "(document.activeElement.name || document.activeElement.className || document.activeElement.id)"
            )
        )
    assert names[0] == "skip"
    assert names.count("fate") == 6
    assert names.count("query") == 1


def test_right_and_wrong_differ_by_frame_mark_and_word(visit: Visitor, page: Path):
    screen = visit(page).page
    screen.get_by_label("Find").fill("7012")  # its third answer shows the right photo with the wrong box
    card = screen.locator(".query")
    frames = card.locator("ol .pic")
    assert frames.count() == 10
    styles = frames.evaluate_all("all => all.map(one => getComputedStyle(one).borderTopStyle)")
    assert styles == ["dashed", "dashed", "double", *["dashed"] * 7]
    captions = card.locator("ol figcaption").all_inner_texts()
    assert captions[0].startswith("✕ 1")
    assert captions[2].startswith("◐ 3 right photo, wrong box")
    screen.get_by_label("Find").fill("7007")
    assert screen.locator(".badge").inner_text() == "✓ hit at rank 8"
    frames = screen.locator(".query ol .pic")
    assert frames.nth(7).evaluate("one => getComputedStyle(one).borderTopStyle") == "solid"
    assert screen.locator(".query ol figcaption").nth(7).inner_text().startswith("✓ 8 right")
    assert "found at rank 8" in screen.locator(".query").inner_text()
    # The alternative texts tell it to those who do not see.
    assert (
        screen.locator('.query ol [aria-label*="Answer 8, right"], .query ol img[alt*="Answer 8, right"]').count() == 1
    )


def test_the_boxes_lie_where_they_are_in_the_photo(visit: Visitor, page: Path):
    screen = visit(page).page
    screen.get_by_label("Find").fill("7007")
    place = screen.evaluate(
        """() => {
          const photo = document.querySelector(".photo img").getBoundingClientRect();
          const box = document.querySelector(".box.item").getBoundingClientRect();
          return [(box.left - photo.left) / photo.width, (box.top - photo.top) / photo.height,
                  (box.right - photo.left) / photo.width, (box.bottom - photo.top) / photo.height];
        }"""
    )
    assert place == pytest.approx([20 / 200, 30 / 300, 120 / 200, 250 / 300], abs=0.02)
    assert screen.locator(".box.said").count() == 1


COLOURS = """[getComputedStyle(document.body).backgroundColor,
  getComputedStyle(document.querySelector('.query')).color]"""


def test_colours_follow_the_scheme(visit: Visitor, page: Path):
    colours = {scheme: visit(page, scheme).page.evaluate(COLOURS) for scheme in ("light", "dark")}
    assert colours["light"][0] != colours["dark"][0]
    assert colours["light"][1] != colours["dark"][1]


@pytest.mark.parametrize("screen", [None, PHONE])
def test_texts_are_text(visit: Visitor, tmp_path: Path, screen):
    page = write_gallery(tmp_path / "evil.html", shown(20, text=EVIL, photo=EVIL))
    visited = visit(page, screen=screen) if screen else visit(page)
    assert EVIL in visited.page.inner_text("h1")
    assert EVIL in visited.page.locator(".query h2").first.inner_text()
    assert visited.page.locator("img[src=x]").count() == 0
    assert visited.page.locator(".hole", has_text=EVIL).count() > 0
    visited.was_quiet()
    visited.keeps_to_the_screen()
