"""A large result file read by two processes at once, each one half.

Reading is the whole time of scoring, and Python reads on one core. A file is cut near its middle where one row seems to
end and the next to begin. If both halves are lists then so is the whole; if either is not, the caller reads the file
from its beginning, which says what is wrong and where.
"""

from __future__ import annotations

import io
import os
import re
import signal
import struct
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from harness.scoring.rows import MAX_BYTES
from harness.types import InputError

MIN_BYTES = 8_000_000
"""Below, one process is done before two have begun."""

_SEAM = re.compile(rb"\}[ \t\r\n]*(,)[ \t\r\n]*(?=\{)")
_WINDOW_BYTES = 1 << 20
_HEAD = struct.Struct("<?q")

Columns = tuple[NDArray[Any], ...]


def read_halves(path: Path, read: Callable[[Any], list[Columns]]) -> Columns | None:
    """Read both halves of a JSON list at once.

    Args:
        path: the file.
        read: from a stream that holds one JSON list to the columns of its blocks, at least one, which have the same
            types and shapes but for the number of rows; raises InputError where it cannot.

    Returns:
        The columns of the whole file; None where the file is small, packed, larger than any, or cannot be halved, a
        half cannot be read, or this process should not be copied (other threads, torch, one core, no fork).
    """
    if not _may_fork():
        return None
    try:
        if not MIN_BYTES <= path.stat().st_size <= MAX_BYTES:
            return None
        with path.open("rb") as first, path.open("rb") as second:
            seam = _seam(first)
            if seam is None:
                return None
            with _forked(lambda: read(_Joined(b"[", second, seam + 1, None))) as pipe:
                first.seek(0)
                mine = read(_Joined(b"", first, 0, seam, b"]"))
                return _completed(mine, pipe)
    except (OSError, InputError, EOFError):
        return None


def _may_fork() -> bool:
    return (
        hasattr(os, "fork")
        and len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)) > 1
        and threading.active_count() == 1
        and "torch" not in sys.modules
    )


def _seam(file: IO[bytes]) -> int | None:
    """Where a comma near the middle stands between two rows; None for an archive and for rows that are not found."""
    size = file.seek(0, os.SEEK_END)
    file.seek(size // 2)
    found = _SEAM.search(file.read(_WINDOW_BYTES))
    return size // 2 + found.start(1) if found else None


class _Joined(io.RawIOBase):
    """Some bytes, then a part of a file, then some bytes."""

    def __init__(self, before: bytes, file: IO[bytes], start: int, end: int | None, after: bytes = b"") -> None:
        self.before, self.file, self.after = before, file, after
        self.left = (end if end is not None else os.fstat(file.fileno()).st_size) - start
        file.seek(start)

    def read(self, size: int = -1) -> bytes:
        if self.before:
            part, self.before = self.before, b""
            return part
        part = self.file.read(min(size, self.left))
        self.left -= len(part)
        if not part:
            part, self.after = self.after, b""
        return part


@contextmanager
def _forked(work: Callable[[], list[Columns]]) -> Iterator[IO[bytes]]:
    """A copy of this process that does the work and sends its columns; it is gone when the block is left."""
    receiving, sending = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of threads; those of numpy's linear algebra wait, and the copy calls none of it.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            child = os.fork()
        except OSError:  # too many processes, or no memory
            os.close(receiving)
            os.close(sending)
            raise
    if child == 0:
        os.close(receiving)
        status = 1
        try:
            with os.fdopen(sending, "wb") as pipe:
                _send(pipe, work)
            status = 0
        finally:
            os._exit(status)
    os.close(sending)
    try:
        with os.fdopen(receiving, "rb") as pipe:
            yield pipe
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _send(pipe: IO[bytes], work: Callable[[], list[Columns]]) -> None:
    try:
        parts = work()
    except InputError:
        pipe.write(_HEAD.pack(False, 0))
        return
    pipe.write(_HEAD.pack(True, sum(len(part[0]) for part in parts)))
    for blocks in zip(*parts, strict=True):
        for block in blocks:
            pipe.write(np.ascontiguousarray(block).data)


def _completed(mine: list[Columns], pipe: IO[bytes]) -> Columns:
    """The first half's blocks and what comes of the second, each copied once."""
    is_sound, num_theirs = _HEAD.unpack(pipe.read(_HEAD.size).ljust(_HEAD.size, b"\0"))
    if not is_sound:
        raise EOFError("the second half cannot be read")
    num_mine = sum(len(part[0]) for part in mine)
    columns = []
    for blocks in zip(*mine, strict=True):
        column = np.empty((num_mine + num_theirs, *blocks[0].shape[1:]), blocks[0].dtype)
        np.concatenate(blocks, out=column[:num_mine])
        theirs = column[num_mine:]
        if pipe.readinto(theirs.data.cast("B")) != theirs.nbytes:  # type: ignore[attr-defined]
            raise EOFError("the second half has ended early")
        columns.append(column)
    return tuple(columns)
