"""The page that compares two rows, in a real browser."""

from dataclasses import replace
from pathlib import Path

import pytest

from leaderboard.pages.comparison_page import comparison_page
from leaderboard.pages.rendering import write_text
from leaderboard.rows import StageRecord
from tests.leaderboard.boards import EVIL, many_rows, questions
from tests.leaderboard.browser import LOOKS, PHONE, Visitor, chromium, visit

__all__ = ["chromium", "visit"]

pytestmark = pytest.mark.browser


@pytest.fixture
def page(tmp_path: Path) -> Path:
    first, second = many_rows(3, 400)[::2]
    return write_text(tmp_path / "pair.html", comparison_page(first, second, questions(400), galleries={first.id}))


@pytest.mark.parametrize("scheme, screen", LOOKS)
def test_it_is_quiet_fits_and_can_be_read_by_all(visit: Visitor, page: Path, scheme, screen):
    visited = visit(page, scheme, screen)
    visited.was_quiet()
    visited.keeps_to_the_screen()
    visited.page.get_by_text("things are the same").click()
    visited.is_accessible()
    visited.keeps_to_the_screen()


@pytest.mark.parametrize("screen", [(1280, 900), PHONE])
def test_differences_are_drawn_where_they_are(visit: Visitor, page: Path, screen):
    first, second = many_rows(3, 400)[::2]
    difference = second.score.acc[10] - first.score.acc[10]
    shown = visit(page, screen=screen).page
    line = shown.locator(".lines tr.main .difference")
    place = line.evaluate(
        """line => {
          const all = line.getBoundingClientRect(), dot = line.querySelector("b").getBoundingClientRect();
          return (dot.left + dot.width / 2 - all.left) / all.width - 0.5;
        }"""
    )
    end = float(shown.locator(".lines:not(.slices) .ends > span").last.text_content().split("B better")[0])
    assert place == pytest.approx(0.5 * difference / end, abs=0.01)
    assert line.is_visible()


COLOURS = """['body', '.card', '.side-a .letter', '.fourfold .a']
  .map(one => getComputedStyle(document.querySelector(one)).backgroundColor)"""


def test_colours_follow_the_scheme(visit: Visitor, page: Path):
    colours = [visit(page, scheme).page.evaluate(COLOURS) for scheme in ("light", "dark")]
    assert all(one != other for one, other in zip(*colours, strict=True))


def test_texts_are_text(visit: Visitor, tmp_path: Path):
    first, second = many_rows(2, 40)
    evil = {"spec": EVIL + first.spec, "name": EVIL, "settings": {EVIL: EVIL}, "command": EVIL, "code_version": EVIL,
            "hardware": {"cpu": EVIL, EVIL: {EVIL: EVIL}}, "artifacts": (EVIL, f"{EVIL} is {EVIL}"),
            "contamination": EVIL, "stages": (StageRecord(EVIL, 1.0),)}  # fmt: skip
    html = comparison_page(replace(first, **evil), replace(second, name=EVIL), questions(40))
    visited = visit(write_text(tmp_path / "pair.html", html), screen=PHONE)
    assert EVIL in visited.page.locator(".side-a h2").inner_text()
    assert EVIL in visited.page.inner_text(".side-a .remark")
    assert visited.page.locator("img").count() == 0
    visited.was_quiet()
    visited.keeps_to_the_screen()
