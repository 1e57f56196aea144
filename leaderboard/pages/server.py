"""A board's pages over HTTP, for a team: made from the board as it is when they are asked for, and never changed by it.

Whoever reaches the port can read all of the board. Nothing that is asked can write: only GET and HEAD are answered.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.types import InputError
from leaderboard.pages.edition import HTML, Edition, Page
from leaderboard.pages.links import INDEX
from leaderboard.pages.rendering import render
from leaderboard.pages.site import TITLE
from leaderboard.store import Board

if TYPE_CHECKING:
    from werkzeug.routing import Map
    from werkzeug.wrappers import Request, Response

HOST, PORT = "127.0.0.1", 8311

THREADS = 8

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a page may load: itself alone."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""Of every answer; ``no-cache`` lets browsers keep pages, but ask each time whether they are still right."""

_RETRY_SECONDS = 5

_SHORT = re.compile(r"[0-9a-f]{16}")

_TEXT = "text/plain; charset=utf-8"


class BoardPages:
    """A WSGI application that answers with a board's pages.

    Args:
        board: a file's path, or a URL.
        folder: of the pages that were written, whose ``gallery`` is served; None for no galleries.
        title: the heading of the board's page.

    Raises:
        InputError: there is no such board, or it cannot be read.
    """

    def __init__(self, board: str | Path, folder: Path | None = None, title: str = TITLE) -> None:
        self._where = board
        self._file = None if isinstance(board, str) and "://" in board else Path(board)
        self._galleries = None if folder is None else folder / "gallery"
        self._title = title
        self._opening = threading.Lock()
        self._board: Board | None = None
        self._edition: tuple[Any, Edition] | None = None
        self._opened_file: tuple[int, int] | None = None
        self._now()

    def close(self) -> None:
        """Let go of the database."""
        with self._opening:
            self._drop()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request, as WSGI has it."""
        from werkzeug.wrappers import Request

        request = Request(environ)
        response = self._answer(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        from werkzeug.exceptions import HTTPException
        from werkzeug.wrappers import Response

        if request.method not in ("GET", "HEAD"):
            response = self._notice(request, 405, "Only to be read", "This server answers GET and HEAD alone.")
            response.headers["Allow"] = "GET, HEAD"
            return response
        try:
            endpoint, values = _routes().bind_to_environ(request.environ).match()
        except HTTPException:
            return self._unknown(request)
        if endpoint == "favicon":
            return Response(status=204)
        if endpoint == "gallery":
            return self._gallery(request, values["short"])
        try:
            with self._opening:
                edition = self._now()
        except InputError as error:
            return self._lost(request, error)
        if endpoint == "healthz":
            return Response("ok\n", content_type=_TEXT)
        try:
            page = edition.page(_path(endpoint, values))
        except InputError as error:
            # Two rows of other data; or the database, which then fails the next question too.
            if endpoint == "pair" and self._is_there():
                return self._notice(request, 409, "These rows cannot be compared", str(error))
            return self._lost(request, error)
        return self._unknown(request) if page is None else _sent(request, page)

    def _now(self) -> Edition:
        """The pages of the board as it is now.

        Raises:
            InputError: the board cannot be read.
        """
        try:
            if self._board is not None and self._file is not None and _identity(self._file) != self._opened_file:
                self._drop()  # the file was taken away or replaced; the open one would go on being read
            if self._board is None:
                self._board = Board(self._where, create=False)
                self._opened_file = None if self._file is None else _identity(self._file)
            galleries = self._written_galleries()
            state = self._board.state(), galleries
            if self._edition is None or self._edition[0] != state:
                self._edition = state, Edition(self._board, self._title, galleries)
            return self._edition[1]
        except InputError:
            self._drop()
            raise

    def _is_there(self) -> bool:
        try:
            with self._opening:
                self._now()
        except InputError:
            return False
        return True

    def _drop(self) -> None:
        if self._board is not None:
            self._board.close()
        self._board = self._edition = None

    def _written_galleries(self) -> frozenset[str]:
        if self._galleries is None or not self._galleries.is_dir():
            return frozenset()
        return frozenset(file.stem for file in self._galleries.glob("*.html") if _SHORT.fullmatch(file.stem))

    def _gallery(self, request: Request, short: str) -> Response:
        """A gallery's page from its file, which must lie in the folder itself."""
        from werkzeug.wrappers import Response
        from werkzeug.wsgi import wrap_file

        if self._galleries is None:
            return self._unknown(request)
        path = self._galleries / f"{short}.html"
        try:
            found = path.resolve(strict=True)
            # A pipe would keep its reader waiting.
            if not (found.is_file() and found.is_relative_to(self._galleries.resolve())):
                return self._unknown(request)
            file = path.open("rb")
        except OSError:
            return self._unknown(request)
        facts = os.fstat(file.fileno())
        response = Response(wrap_file(request.environ, file), content_type=HTML, direct_passthrough=True)
        response.content_length = facts.st_size
        response.set_etag(f"{facts.st_mtime_ns:x}-{facts.st_size:x}-{facts.st_ino:x}")
        response.call_on_close(file.close)
        return response.make_conditional(request)

    def _unknown(self, request: Request) -> Response:
        return self._notice(request, 404, "No such page", f"There is nothing at {request.path} on this board.")

    def _lost(self, request: Request, error: InputError) -> Response:
        response = self._notice(request, 503, "The board cannot be read", str(error))
        response.headers["Retry-After"] = str(_RETRY_SECONDS)
        return response

    def _notice(self, request: Request, code: int, title: str, message: str) -> Response:
        from werkzeug.wrappers import Response

        if request.path == "/healthz":
            return Response(f"{message}\n", status=code, content_type=_TEXT)
        text = render(
            "notice.html", styles=("notice.css",), title=title, code=code, message=message, board_link=f"/{INDEX}"
        )
        return Response(text, status=code, content_type=HTML)


def serve(
    board: str | Path,
    folder: Path | None = None,
    host: str = HOST,
    port: int = PORT,
    *,
    title: str = TITLE,
    threads: int = THREADS,
    ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve a board's pages until the process is interrupted.

    Args:
        board: a file's path, or a URL.
        folder: of the pages that were written, whose galleries are served too.
        host: the address to listen at; ``0.0.0.0`` for all of the machine.
        port: 1–65535; 0 for any that is free.
        title: the heading of the board's page.
        threads: requests that are answered at once.
        ready: is told the address once it can be asked.

    Raises:
        InputError: there is no such board, or the address is taken or none of this machine.
    """
    import logging

    from waitress.server import create_server  # type: ignore[import-untyped]

    if not 0 <= port <= 65_535:  # the system would take the rest of a division by 65,536
        raise InputError(f"port: expected 0 to 65535, got {port}")
    pages = BoardPages(board, folder, title)
    try:
        try:
            server = create_server(pages, host=host, port=port, threads=threads, ident=None)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{host}:{port}: cannot be listened at ({getattr(error, 'strerror', None) or error}); give another "
                "--port, or the --host of this machine"
            ) from error
        # A line for every request that has to wait tells nobody anything.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        shown = f"[{host}]" if ":" in host else host
        try:
            # The server itself ends quietly only once it runs.
            with suppress(KeyboardInterrupt):
                ready(f"http://{shown}:{getattr(server, 'effective_port', port)}/")
                server.run()
        finally:
            server.close()
    finally:
        pages.close()


@cache
def _routes() -> Map:
    from werkzeug.routing import BaseConverter, Map, Rule

    class Short(BaseConverter):
        """The beginning of a row's id."""

        regex = _SHORT.pattern

    return Map(
        [
            Rule("/", endpoint="index"),
            Rule(f"/{INDEX}", endpoint="index"),
            Rule("/rows/<short:short>.html", endpoint="row"),
            Rule("/compare/<short:first>-<short:second>.html", endpoint="pair"),
            Rule("/gallery/<short:short>.html", endpoint="gallery"),
            Rule("/export.json", endpoint="export"),
            Rule("/healthz", endpoint="healthz"),
            Rule("/favicon.ico", endpoint="favicon"),
        ],
        converters={"short": Short},
        merge_slashes=False,
    )


def _path(endpoint: str, values: Mapping[str, str]) -> str:
    """A page's path seen from the board's folder."""
    if endpoint == "row":
        return f"rows/{values['short']}.html"
    if endpoint == "pair":
        return f"compare/{values['first']}-{values['second']}.html"
    return "export.json" if endpoint == "export" else INDEX


def _sent(request: Request, page: Page) -> Response:
    from werkzeug.wrappers import Response

    packs = request.accept_encodings["gzip"] > 0
    response = Response(page.packed if packs else page.body, content_type=page.mime)
    if packs:
        response.headers["Content-Encoding"] = "gzip"
    response.headers["Vary"] = "Accept-Encoding"
    # What is sent differs by how it is packed, so its tag does.
    response.set_etag(page.tag + ("-gz" if packs else ""))
    return response.make_conditional(request)


def _identity(file: Path) -> tuple[int, int] | None:
    """Which file lies at a path; None where there is none."""
    try:
        facts = file.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino
