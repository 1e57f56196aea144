"""Templates to text, text to files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.types import InputError

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"

_START = 1024
_OURS = (
    b'<meta name="generator" content="deepfashion2-harness leaderboard">',
    # Pages of earlier versions bore no name.
    b"content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">",
)
"""One of these stands in the first bytes of every page of a board."""


def render(template: str, *, styles: Sequence[str] = (), scripts: Sequence[str] = (), **values: Any) -> str:
    """A page that needs nothing else: styles and scripts stand in it.

    Args:
        template: a file of ``templates/`` that extends ``base.html``.
        styles: files of ``templates/``, after ``base.css``, which every page has.
        scripts: files of ``templates/``.
        values: what the template shows; everything in it is shown as text, whatever it holds.
    """
    return (
        _environment()
        .get_template(template)
        .render(style=_files(("base.css", *styles)), script=_files(tuple(scripts)), **values)
    )


def fragment(template: str, **values: Any) -> Markup:
    """A piece of a page, to be shown by another template."""
    from markupsafe import Markup

    # The environment escaped every value of it.
    return Markup(_environment().get_template(template).render(**values))


def refuse_foreign(path: Path) -> None:
    """Raise `InputError` if a file lies there that is no page of a board, and so is not ours to replace."""
    if not path.exists():
        return
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(_START)
        if not start or any(mark in start for mark in _OURS):
            return
    raise InputError(f"{path}: is there and is no page of a leaderboard; move it away, or give another folder")


def write_text(out: Path, text: str) -> Path:
    """Write a page, whole or not at all; its folder is made, an old one is replaced."""
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f"{out.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
    return out


@cache
def _files(names: tuple[str, ...]) -> Markup:
    from markupsafe import Markup

    # Only files of this package are taken as they are.
    return Markup("".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short_time"] = _short_time
    return environment


def _short_time(created: datetime) -> str:
    return created.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
