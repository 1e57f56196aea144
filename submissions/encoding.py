"""Result files in UTF-16, or with a byte order mark: JSON is UTF-8 without one."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path

from harness.types import InputError

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like the mark of UTF-16, so it comes first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"[\x00", "utf-16-le"),
    (b"\x00[", "utf-16-be"),
)
_CHARACTERS = 1 << 20


def as_utf8(path: Path, draft: Callable[[], Path]) -> Path | None:
    """Write a file of another encoding as plain UTF-8.

    Args:
        path: the file.
        draft: names the file to write, if one is needed.

    Returns:
        the file that was written; None if there was no need.

    Raises:
        InputError: the file cannot be read, or is not in the encoding that its beginning tells.
    """
    try:
        with open(path, "rb") as stream:
            head = stream.read(4)
        encoding = next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)
        if encoding is None:
            return None
        target = draft()
        with (
            open(path, encoding=encoding, newline="") as source,
            open(target, "w", encoding="utf-8", newline="") as out,
        ):
            while part := source.read(_CHARACTERS):
                out.write(part)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected a challenge result file (JSON)") from error
    except UnicodeError as error:
        raise InputError(f"{path}: begins as {encoding}, but is not: {error}; write it as UTF-8") from error
    return target
