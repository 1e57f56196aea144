"""A board over HTTP: what is answered, what is refused, and what happens when the board changes or goes away."""

import gzip
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from werkzeug.test import Client

from harness.types import InputError
from leaderboard.pages.gallery_page import write_gallery
from leaderboard.pages.links import gallery_path, pair_path, row_path
from leaderboard.pages.server import POLICY, BoardPages, serve
from leaderboard.rows import Row
from leaderboard.store import Board
from tests.leaderboard.boards import EVIL, board_of, many_rows
from tests.leaderboard.browser import LOOKS, Visitor, chromium, visit
from tests.leaderboard.galleries import shown

__all__ = ["chromium", "visit"]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def rows() -> list[Row]:
    return many_rows(6, 60)


@pytest.fixture
def file(tmp_path: Path, rows: list[Row]) -> Path:
    path = tmp_path / "board.sqlite"
    board_of(path, rows).close()
    return path


@pytest.fixture
def pages(file: Path, tmp_path: Path) -> Iterator[BoardPages]:
    pages = BoardPages(file, tmp_path / "site")
    yield pages
    pages.close()


@pytest.fixture
def client(pages: BoardPages) -> Client:
    return Client(pages)


def add(file: Path, row: Row) -> None:
    board = Board(file)
    board.add(row)
    board.close()


def test_every_page_of_the_board(client: Client, rows: list[Row]) -> None:
    for path in ("/", "/index.html"):
        answer = client.get(path)
        assert (answer.status_code, answer.mimetype) == (200, "text/html")
        assert rows[0].name in answer.text
    for row in rows:
        assert row.name in client.get(f"/{row_path(row)}").text
    # Any pair, whichever way round.
    for first, second in ((rows[0], rows[5]), (rows[5], rows[0]), (rows[2], rows[4])):
        answer = client.get(f"/{pair_path(first, second)}")
        assert answer.status_code == 200
        assert f"<title>{first.name} against {second.name}" in answer.text.replace("&#39;", "'")
    assert client.get("/healthz").text == "ok\n"
    assert client.get("/favicon.ico").status_code == 204


def test_the_export_is_the_board(client: Client, rows: list[Row], tmp_path: Path) -> None:
    answer = client.get("/export.json")
    assert answer.mimetype == "application/json"
    assert {one["id"] for one in json.loads(answer.data)["rows"]} == {row.id for row in rows}


@pytest.mark.parametrize("path", ["/", "/export.json", "/healthz", "/nothing", "/favicon.ico", "/gallery/x.html"])
def test_every_answer_carries_the_strict_headers(client: Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["Content-Security-Policy"] == POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/export.json", "/nothing"])
def test_nothing_can_be_changed(client: Client, method: str, path: str) -> None:
    answer = client.open(path, method=method)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_head_says_what_get_would(client: Client) -> None:
    head, get = client.head("/"), client.get("/")
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == get.headers["Content-Length"]
    assert head.headers["ETag"] == get.headers["ETag"]


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/rows/",
        "/gallery/",
        "/rows/0000000000000000.html",
        "/rows/XYZ.html",
        "/compare/0000000000000000-0000000000000000.html",
        "/gallery/0000000000000000.html",
        "/gallery/../board.sqlite",
        "/gallery/..%2f..%2fboard.sqlite",
        "/gallery/%2e%2e/board.sqlite",
        "//etc/passwd",
        "/index.html/",
        f"/{EVIL}",
    ],
)
def test_unknown_paths_are_a_page_that_says_so(client: Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.mimetype) == (404, "text/html")
    assert "No such page" in answer.text
    assert "<img" not in answer.text
    assert 'href="/index.html"' in answer.text


def test_galleries_are_served_from_their_folder_and_no_further(
    client: Client, rows: list[Row], tmp_path: Path, file: Path
) -> None:
    row, folder = rows[0], tmp_path / "site"
    assert "gallery/" not in client.get(f"/{row_path(row)}").text
    page = write_gallery(folder / gallery_path(row), shown(5, row=row), in_site=True)
    (folder / "gallery" / "notes.txt").write_text("mine")
    (folder / "gallery" / ("a" * 16 + ".html")).symlink_to(file)
    answer = client.get(f"/{gallery_path(row)}")
    assert answer.data == page.read_bytes()
    assert answer.headers["Content-Security-Policy"] == POLICY
    again = client.get(f"/{gallery_path(row)}", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert client.get("/gallery/notes.txt").status_code == 404
    assert client.get(f"/gallery/{'a' * 16}.html").status_code == 404
    # Written while serving, it is linked from then on.
    assert gallery_path(row) in client.get(f"/{row_path(row)}").text
    assert gallery_path(row) in client.get(f"/{pair_path(row, rows[1])}").text
    write_gallery(page, shown(6, row=row), in_site=True)
    changed = client.get(f"/{gallery_path(row)}", headers={"If-None-Match": answer.headers["ETag"]})
    assert changed.status_code == 200


def test_a_page_is_sent_again_only_when_the_board_has_changed(client: Client, file: Path) -> None:
    first = client.get("/")
    known = {"If-None-Match": first.headers["ETag"]}
    assert client.get("/", headers=known).status_code == 304
    add(file, replace(many_rows(7, 60)[6], name="the newest"))
    changed = client.get("/", headers=known)
    assert changed.status_code == 200
    assert "the newest" in changed.text
    assert "the newest" not in first.text


def test_pages_are_packed_for_those_who_can_unpack(client: Client) -> None:
    plain, packed = client.get("/"), client.get("/", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert gzip.decompress(packed.data) == plain.data
    assert packed.headers["ETag"] != plain.headers["ETag"]
    assert plain.headers["Vary"] == packed.headers["Vary"] == "Accept-Encoding"


def test_rows_of_other_data_cannot_be_compared_and_the_page_says_why(
    client: Client, file: Path, rows: list[Row]
) -> None:
    other = replace(rows[0], fingerprint="e" * 64)
    add(file, other)
    answer = client.get(f"/{pair_path(rows[1], other)}")
    assert answer.status_code == 409
    assert "their data differs" in answer.text


def test_a_lost_board_is_said_and_found_again(client: Client, file: Path) -> None:
    before = client.get("/").text
    away = file.with_name("away.sqlite")
    file.rename(away)
    for path in ("/", "/export.json", "/healthz"):
        lost = client.get(path)
        assert lost.status_code == 503
        assert lost.headers["Retry-After"] == "5"
        assert str(file) in lost.text
    away.rename(file)
    assert client.get("/").text == before
    file.write_bytes(b"no board at all" * 100)
    damaged = client.get("/")
    assert damaged.status_code == 503
    assert str(file) in damaged.text


def test_another_board_put_in_its_place_is_the_one_that_is_shown(client: Client, file: Path, tmp_path: Path) -> None:
    client.get("/")
    board_of(tmp_path / "other.sqlite", [replace(many_rows(1, 60)[0], name="quite another")]).close()
    (tmp_path / "other.sqlite").replace(file)
    assert "quite another" in client.get("/").text


def test_what_cannot_be_served_is_refused_at_once(tmp_path: Path, file: Path) -> None:
    with pytest.raises(InputError, match="there is no leaderboard"):
        serve(tmp_path / "none.sqlite")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"127\.0\.0\.1:{port}: cannot be listened at .*--port"):
            serve(file, port=port)
    with pytest.raises(InputError, match="cannot be listened at"):
        serve(file, host="203.0.113.7", port=0)
    with pytest.raises(InputError, match="port: expected 0 to 65535, got 70000"):
        serve(file, port=70_000)


PROGRAM = """
import signal
import sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore interrupts
from leaderboard.pages.server import serve
serve(sys.argv[1], Path(sys.argv[2]), port=0, ready=lambda address: print(address, flush=True))
print("ended", flush=True)
"""


@pytest.fixture
def running(file: Path, tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server of its own process, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(file), str(tmp_path / "site")],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.communicate()


def test_an_interrupt_ends_it_quietly(running: tuple[str, subprocess.Popen[str]]) -> None:
    address, process = running
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "ended\n", "")


def test_fifty_requests_at_once_while_rows_are_added(
    running: tuple[str, subprocess.Popen[str]], file: Path, rows: list[Row]
) -> None:
    from urllib.request import urlopen

    address, process = running
    paths = ["", row_path(rows[0]), pair_path(rows[0], rows[1]), "export.json", "healthz"]
    start = threading.Barrier(51)

    def ask(number: int) -> tuple[int, int]:
        start.wait(30)
        with urlopen(address + paths[number % len(paths)], timeout=60) as answer:
            return answer.status, len(answer.read())

    def write() -> None:
        start.wait(30)
        for row in many_rows(10, 60)[6:]:
            add(file, row)

    with ThreadPoolExecutor(51) as pool:
        writing = pool.submit(write)
        answers = list(pool.map(ask, range(50)))
        writing.result()
    assert all(status == 200 and size > 0 for status, size in answers)
    with urlopen(address + "export.json", timeout=60) as answer:
        assert len(json.load(answer)["rows"]) == 10
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[1] == ""


@pytest.mark.browser
@pytest.mark.parametrize("scheme, screen", LOOKS)
def test_served_pages_are_quiet_and_lead_to_one_another(
    visit: Visitor, running, rows: list[Row], tmp_path: Path, scheme, screen
) -> None:
    address, _ = running
    write_gallery(tmp_path / "site" / gallery_path(rows[0]), shown(30, row=rows[0], text=rows[0].name), in_site=True)
    visited = visit(address + pair_path(rows[0], rows[1]), scheme, screen)
    assert visited.page.locator("#verdict").is_visible()
    visited.page.get_by_role("link", name="Queries of A").click()
    visited.page.wait_for_selector(".query")
    visited.keeps_to_the_screen()
    visited.page.get_by_role("link", name=rows[0].name, exact=True).click()
    assert visited.page.url == address + row_path(rows[0])
    visited.page.get_by_role("link", name=re.compile("leaderboard", re.I)).first.click()
    visited.page.wait_for_load_state()
    assert visited.page.url == f"{address}index.html"
    visited.was_quiet()
    lost = visit(address + "nothing.html", scheme, screen)
    lost.is_accessible()
    lost.keeps_to_the_screen()
    lost.page.get_by_role("link", name="To the leaderboard").click()
    assert lost.page.url == f"{address}index.html"


def test_a_database_server_that_goes_away_is_said_and_found_again(postgres_server, rows: list[Row]) -> None:
    url = postgres_server.new_database()
    board = Board(url)
    for row in rows:
        board.add(row)
    board.close()
    pages = BoardPages(url)
    client = Client(pages)
    try:
        before = client.get("/").text
        assert rows[0].name in before
        postgres_server.stop()
        try:
            lost = client.get("/")
            assert lost.status_code == 503
            assert "The board cannot be read" in lost.text
            assert "s3cret" not in lost.text
        finally:
            postgres_server.start()
        assert client.get("/").text == before
    finally:
        pages.close()


def test_a_pipe_among_the_galleries_keeps_no_one_waiting(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "site" / "gallery"
    folder.mkdir(parents=True)
    os.mkfifo(folder / f"{'a' * 16}.html")
    answers: list[int] = []
    # A server that opens it waits for a writer, and the test would, too.
    asking = threading.Thread(
        target=lambda: answers.append(client.get(f"/gallery/{'a' * 16}.html").status_code), daemon=True
    )
    asking.start()
    asking.join(30)
    assert answers == [404]
