"""Debian's Chromium, driven by Playwright: the fixtures and checks of every test of a page.

A test module imports `chromium` and `visit` and carries ``pytestmark = pytest.mark.browser``; without Chromium or
Playwright its tests are skipped.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE = (390, 844)
DESK = (1280, 900)
LOOKS = [("light", DESK), ("dark", DESK), ("light", PHONE), ("dark", PHONE)]
"""Colour scheme and screen: what a page is looked at in."""


@dataclass
class Visit:
    """An open page, and what it did that a page may not.

    Attributes:
        page: Playwright's page.
        requests: addresses it asked for, the document itself first.
        complaints: console errors and warnings, uncaught errors, dialogues.
    """

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def was_quiet(self) -> None:
        """No error on the console, no uncaught error, no dialogue, and no request but the documents themselves."""
        assert not self.complaints, f"complaints: {self.complaints}"
        foreign = [address for address in self.requests if not address.split("#")[0].endswith((".html", "/"))]
        assert not foreign, f"requests off the page: {foreign}"

    def keeps_to_the_screen(self) -> None:
        """The page itself does not scroll sideways."""
        wide, screen = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= screen, f"{wide} pixels wide on a screen of {screen}"

    def is_accessible(self) -> None:
        """axe-core finds no serious or critical problem."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        bad = [
            f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes'][:3]]} ({len(one['nodes'])})"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert not bad, "\n".join(bad)


Visitor = Callable[..., Visit]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for the tests of a module."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, headless=True, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visitor]:
    """Opens a page: ``visit(path_or_url, scheme="light", screen=DESK)``; other arguments go to Playwright's context.

    Each visit has a profile of its own, and is closed at the end of the test.
    """
    contexts: list[Any] = []

    def open_page(where: Path | str, scheme: str = "light", screen: tuple[int, int] = DESK, **settings: Any) -> Visit:
        size = {"width": screen[0], "height": screen[1]}
        context = chromium.new_context(color_scheme=scheme, viewport=size, **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        visit = Visit(page)
        page.on("request", lambda request: visit.requests.append(request.url))
        page.on("pageerror", lambda error: visit.complaints.append(f"uncaught: {error}"))
        page.on("dialog", lambda dialog: (visit.complaints.append(f"dialogue: {dialog.message}"), dialog.dismiss()))
        page.on(
            "console",
            lambda line: visit.complaints.append(line.text) if line.type in ("error", "warning") else None,
        )
        page.goto(where.absolute().as_uri() if isinstance(where, Path) else where)
        return visit

    yield open_page
    for context in contexts:
        context.close()
