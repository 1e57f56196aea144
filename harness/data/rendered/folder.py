"""A folder that holds one rendered data set, whole or on the way, and never another by mistake."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from harness.types import InputError

MARKER = "RENDERED.json"
UNFINISHED_MARKER = "RENDERING.json"


def write(path: Path, content: bytes) -> None:
    """Write a file so that it is either whole or absent."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


@contextmanager
def claimed(root: Path, marker: dict[str, Any], readme: str) -> Iterator[bool]:
    """Make the folder; once the block has rendered the data set, mark it as complete.

    Args:
        root: a new or empty folder, or one that holds the same data set, complete or not.
        marker: what it is and which settings made it.
        readme: what ``README.txt`` is to say.

    Yields:
        False if the data set is complete already.

    Raises:
        InputError: the folder holds something else, or a data set of other settings.
    """
    if _is_complete(root, marker):
        yield False
        return
    yield True
    write(root / "README.txt", readme.encode())
    for left_over in root.rglob(".*.tmp"):
        left_over.unlink()
    write(root / MARKER, orjson.dumps(marker, option=orjson.OPT_INDENT_2))
    (root / UNFINISHED_MARKER).unlink()


def _is_complete(root: Path, wanted: dict[str, Any]) -> bool:
    for name in (MARKER, UNFINISHED_MARKER):
        path = root / name
        if path.exists():
            found = _read_marker(path)
            if found != wanted:
                raise InputError(
                    f"{path}: the folder holds a data set of other settings: expected {wanted}, got {found}; "
                    "render into another folder or delete this one"
                )
            return name == MARKER
    if root.exists() and (not root.is_dir() or any(not p.name.startswith(".") for p in root.iterdir())):
        raise InputError(f"{root}: not empty and not a rendered data set; render into a new or empty folder")
    root.mkdir(parents=True, exist_ok=True)
    write(root / UNFINISHED_MARKER, orjson.dumps(wanted))
    return False


def _read_marker(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON ({error}); render into another folder or delete this one") from error
