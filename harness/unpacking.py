"""The bytes of a file, or of the one file in a zip archive."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from harness.types import InputError

DAMAGED = (OSError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError)
"""What reading from `unpacked` may raise: `zipfile` has one for every way in which an archive can be wrong."""

_ZIP = b"PK"
_GZIP = b"\x1f\x8b"


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, through the archive if it is one.

    Args:
        path: any file; an archive holds one file, whatever its name, beside folders and what macOS adds.

    Yields:
        Its bytes as a stream, unpacked as they are read.

    Raises:
        InputError: there is no such file, it is a pipe, or the archive is damaged, encrypted, or holds another number
            of files.
    """
    with ExitStack() as stack:
        try:
            stream = _open(path, stack)
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file; give the path of a JSON file") from error
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read ({error.strerror or error}); give the path of a JSON file"
            ) from error
        except DAMAGED as error:
            raise InputError(f"{path}: the archive is cut off or damaged: {error}") from error
        yield stream


def _open(path: Path, stack: ExitStack) -> IO[bytes]:
    file = stack.enter_context(path.open("rb"))
    if not file.seekable():
        raise InputError(f"{path}: is a pipe, which cannot be read twice; save what comes out of it and give that file")
    head = file.read(len(_ZIP))
    file.seek(0)
    if head == _GZIP:
        raise InputError(f"{path}: is packed with gzip; unpack it, or make a zip of it")
    if head != _ZIP:
        return file
    archive = stack.enter_context(zipfile.ZipFile(file))
    members = [one for one in archive.infolist() if not one.is_dir() and not one.filename.startswith("__MACOSX/")]
    if len(members) != 1:
        names = ", ".join(one.filename for one in members[:3])
        raise InputError(
            f"{path}: expected an archive of one file, got {len(members)} files" + (f" ({names})" if names else "")
        )
    return stack.enter_context(archive.open(members[0]))
