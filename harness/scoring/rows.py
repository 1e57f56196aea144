"""Result files and ground truth, read block by block: typed, in bounded memory, whatever the file holds.

A challenge result of 56,000 rows is six million numbers. As Python objects all at once they take 1 GB, and most of the
time goes into fetching new memory; block by block the same objects are made in memory that is already there (53 MB:
0.2 s instead of 0.5 s). Blocks are cut where one row ends and the next begins. Lists that are each valid JSON make one
that is valid, so a cut can never let a damaged file pass; where it falls into a nested object or a text, the block does
not parse, and its rows are found by an exact scan instead.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import msgspec

from harness.types import InputError
from harness.unpacking import DAMAGED, unpacked

BLOCK_BYTES = 1 << 16
MAX_ROW_BYTES = 1 << 22
"""A row of the challenge has about a thousand bytes; a longer one than this is none."""
MAX_BYTES = 1 << 32
"""The largest file, unpacked: the server refused files of a fourteenth of it."""
MAX_ROWS = 3_000_000
"""Five times the largest box set of the paper; the columns of so many rows take 3 GB."""
MAX_DEPTH = 100
"""Brackets within brackets; a row of the challenge has three."""

_SPACE = b" \t\r\n"
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{},"]', re.DOTALL)
_MARKS = {b"\xef\xbb\xbf": "UTF-8 with a byte order mark", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}

Box = tuple[float, float, float, float]


class ResultRow(msgspec.Struct, gc=False):
    """One entry of a challenge result file."""

    query_image_id: int
    query_bbox: Box
    query_cls: int
    query_score: float
    gallery_image_id: list[int]
    gallery_bbox: list[Box]


class QueryRow(msgspec.Struct, gc=False):
    """One annotated consumer item of ``val_query.json``; official files have no attributes."""

    query_image_id: int
    bbox: Box
    cls: int
    style: int
    pair_id: int
    scale: int | msgspec.UnsetType = msgspec.UNSET
    occlusion: int | msgspec.UnsetType = msgspec.UNSET
    zoom_in: int | msgspec.UnsetType = msgspec.UNSET
    viewpoint: int | msgspec.UnsetType = msgspec.UNSET
    rendered: int | msgspec.UnsetType = msgspec.UNSET


class GalleryRow(msgspec.Struct, gc=False):
    """One annotated shop item of ``val_gallery.json``."""

    gallery_image_id: int
    bbox: Box
    style: int
    pair_id: int


RowT = TypeVar("RowT", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Block(Generic[RowT]):
    """Some rows that follow one another.

    Attributes:
        first_row: the number of the first of them in the file, from 0.
        num_rows: how many; at least 1.
        text: they as a JSON list, which Python's ``json`` reads.
        rows: they decoded; None where a row is of another type or has a field twice.
    """

    first_row: int
    num_rows: int
    text: bytes
    rows: list[RowT] | None


def blocks(path: Path, row_type: type[RowT]) -> Iterator[Block[RowT]]:
    """Read a file that holds one JSON list, or a zip archive with one such file, in bounded memory.

    Args:
        path: the file.
        row_type: what a row is; fields that it has not are passed over.

    Yields:
        All rows in their order.

    Raises:
        InputError: the file cannot be read or is no JSON list in UTF-8; a row is longer than `MAX_ROW_BYTES` or nested
            more than `MAX_DEPTH` deep; there is more than `MAX_BYTES`. What was yielded before is sound.
    """
    with unpacked(path) as stream:
        yield from stream_blocks(stream, str(path), row_type)


def stream_blocks(stream: IO[bytes], source: str, row_type: type[RowT]) -> Iterator[Block[RowT]]:
    """As `blocks`, from a stream that is open; ``source`` names it in messages."""
    return _Reader(stream, source, row_type).blocks()


def objects(block: Block[Any]) -> list[Any]:
    """The rows of a block as Python's ``json`` makes them, NaN and infinities included: for rows that have no type."""
    rows: list[Any] = json.loads(block.text)
    return rows


def repeated_field(text: bytes, row_type: type[msgspec.Struct]) -> tuple[int, str] | None:
    """The first row, from 0, that has a field of the type twice, and the field; JSON leaves open which of them counts.

    Args:
        text: a JSON list of objects.
        row_type: which fields matter.
    """
    wanted = set(row_type.__struct_fields__)
    for number, row in enumerate(json.loads(text, object_pairs_hook=list)):
        names = [pair[0] for pair in row if isinstance(pair, tuple)] if isinstance(row, list) else []
        if len(names) != len(set(names)):
            repeated = next((name for name in names if names.count(name) > 1 and name in wanted), None)
            if repeated is not None:
                return number, repeated
    return None


class _Reader(Generic[RowT]):
    """Cuts a stream into blocks; ``pending`` begins where a row must begin."""

    def __init__(self, stream: IO[bytes], source: str, row_type: type[RowT]) -> None:
        self.stream, self.source, self.row_type = stream, source, row_type
        self.decoder = msgspec.json.Decoder(list[row_type])  # type: ignore[valid-type]
        self.pending = b""
        self.row = self.num_bytes = 0
        self.at_end = self.is_closed = False

    def blocks(self) -> Iterator[Block[RowT]]:
        self._open_list()
        while not self.is_closed:
            self._fill(BLOCK_BYTES)
            yield self._quick_block() or self._exact_block()
        while not self.at_end:
            self._refuse_more()
            self.pending = b""
            self._fill(BLOCK_BYTES)
        self._refuse_more()

    def _open_list(self) -> None:
        self._fill(BLOCK_BYTES)
        for mark, encoding in _MARKS.items():
            if self.pending.startswith(mark):
                raise InputError(f"{self.source}: is {encoding}; write it as plain UTF-8")
        head = self.pending.lstrip(_SPACE)
        if not head:
            raise InputError(
                f"{self.source}: is not JSON: it {'is empty' if self.at_end else 'begins with blanks only'}"
            )
        if not head.startswith(b"["):
            raise InputError(
                f"{self.source}: expected a JSON list with one object a row, got {_beginning(head)}{_hint(head)}"
            )
        self.pending = head[1:].lstrip(_SPACE)
        if self.pending.startswith(b"]"):
            self._close(self.pending[1:])

    def _fill(self, num_bytes: int) -> None:
        """Read until so many bytes are pending."""
        parts, missing = [self.pending], num_bytes - len(self.pending)
        while missing > 0 and not self.at_end:
            try:
                part = self.stream.read(missing)
            except DAMAGED as error:
                raise InputError(f"{self.source}: cannot be read on after row {self.row}: {error}") from error
            parts.append(part)
            missing -= len(part)
            self.num_bytes += len(part)
            self.at_end = not part
            if self.num_bytes > MAX_BYTES:
                raise InputError(f"{self.source}: has more than {MAX_BYTES / 1e9:.1f} GB; no result file needs that")
        self.pending = b"".join(parts)

    def _quick_block(self) -> Block[RowT] | None:
        """What is pending up to the last place that looks like the end of a row; None where it is none after all."""
        if self.at_end:
            body = self.pending.rstrip(_SPACE)
            block = self._block(body[:-1]) if body.endswith(b"]") else None
            if block:
                self._close(b"")
            return block
        cut = _row_boundary(self.pending)
        block = self._block(self.pending[: cut[0]]) if cut else None
        if block and cut:
            self.pending = self.pending[cut[1] :]
        return block

    def _exact_block(self) -> Block[RowT]:
        """The rows that are pending as a whole, found by going through every bracket and text."""
        while True:
            ends, closes = self._row_ends()
            if ends or self.at_end:
                break
            if len(self.pending) > MAX_ROW_BYTES:
                raise InputError(f"{self.source}: row {self.row}: has more than {MAX_ROW_BYTES / 1e6:.0f} MB")
            self._fill(2 * len(self.pending))
        if not ends:
            raise InputError(f"{self.source}: ends in the middle of row {self.row}: the file is cut off")
        num_sound, start = 0, 0
        for end in ends:
            fault = _why_not_json(self.pending[start:end])
            if fault and not num_sound:
                raise InputError(f"{self.source}: row {self.row}: is not JSON: {fault}")
            if fault:  # the rows before it first; it comes with the next block
                break
            num_sound, start = num_sound + 1, end + 1
        block = self._block(self.pending[: ends[num_sound - 1]])
        if block is None:
            raise AssertionError("rows that are valid JSON make a list that is none")
        rest = self.pending[start:].lstrip(_SPACE)
        if closes and num_sound == len(ends):
            self._close(rest)
        else:
            self.pending = rest
        return block

    def _block(self, body: bytes) -> Block[RowT] | None:
        """The rows of a text; None if it is not a list of at least one."""
        text = b"[" + body + b"]"
        rows: list[RowT] | None
        try:
            with no_garbage_collection():
                rows = self.decoder.decode(text)
            text.isascii() or text.decode()
            num_rows = len(rows)
            if self._has_repeated_field(text, rows):
                rows = None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            rows = None
            try:
                num_rows = len(json.loads(text))
            except (ValueError, RecursionError):
                return None
        if num_rows == 0:
            return None
        self.row += num_rows
        if self.row > MAX_ROWS:
            raise InputError(f"{self.source}: has more than {MAX_ROWS:,} rows; no result file needs that")
        return Block(self.row - num_rows, num_rows, text, rows)

    def _has_repeated_field(self, text: bytes, rows: list[RowT]) -> bool:
        fields, optional = self.row_type.__struct_fields__, len(self.row_type.__struct_defaults__)
        if not optional and text.count(b'"') == 2 * len(fields) * len(rows):
            return False  # all rows have all fields, so there is no room for another
        expected = dict.fromkeys(fields, len(rows))
        for name in fields[len(fields) - optional :]:
            expected[name] = sum(getattr(row, name) is not msgspec.UNSET for row in rows)
        if b"\\" not in text and all(text.count(b'"%b"' % name.encode()) == n for name, n in expected.items()):
            return False
        return repeated_field(text, self.row_type) is not None

    def _row_ends(self) -> tuple[list[int], bool]:
        """Where the pending rows end, and whether the last of them ends the list."""
        ends: list[int] = []
        depth = 0
        for token in _TOKEN.finditer(self.pending):
            mark = token[0]
            if mark == b'"':
                break  # a text that goes on in what is not read yet
            if mark in (b"[", b"{"):
                depth += 1
                if depth > MAX_DEPTH:
                    row = self.row + len(ends)
                    raise InputError(f"{self.source}: row {row}: is nested more than {MAX_DEPTH} brackets deep")
            elif depth == 0 and mark in (b",", b"]"):
                ends.append(token.start())
                if mark == b"]":
                    return ends, True
            elif mark in (b"]", b"}"):
                depth -= 1
        return ends, False

    def _close(self, rest: bytes) -> None:
        self.is_closed, self.pending = True, rest

    def _refuse_more(self) -> None:
        more = self.pending.lstrip(_SPACE)
        if more:
            raise InputError(f"{self.source}: the list ends after {self.row} rows, and then comes {_beginning(more)}")


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Thousands of new lists make the collector walk them again and again; none of them is garbage yet."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _row_boundary(pending: bytes) -> tuple[int, int] | None:
    """Where the last but one row ends and the last begins, as far as the bytes around a bracket can tell."""
    start = len(pending)
    for _ in range(8):
        start = pending.rfind(b"{", 0, start)
        if start < 0:
            return None
        before = pending[max(0, start - 32) : start].rstrip(_SPACE)
        if before.endswith(b",") and before[:-1].rstrip(_SPACE).endswith(b"}"):
            return pending.rindex(b",", 0, start), start
    return None


def _why_not_json(row: bytes) -> str | None:
    try:
        json.loads(row)
    except RecursionError:
        return "it is nested too deep"
    except UnicodeDecodeError as error:
        return f"the bytes {error.object[error.start : error.start + 4]!r} are not UTF-8"
    except json.JSONDecodeError as error:
        if not row.strip(_SPACE):
            return "it is missing, after a comma too many"
        there = row.decode(errors="replace")[error.pos : error.pos + 24]
        return f"{error.msg} at its character {error.pos}, where {there!r} stands"
    except ValueError:
        return "a number has more than 4,300 digits"
    return None


def _hint(head: bytes) -> str:
    """What a file that begins with an object may be."""
    if not head.startswith(b"{"):
        return ""
    lines = head.split(b"\n", 2)
    if len(lines) > 1 and lines[0].rstrip().endswith(b"}") and lines[1].lstrip().startswith(b"{"):
        return ": one object a line? put commas between them and brackets around them"
    return ": if the list stands under a name, give the list alone"


def _beginning(text: bytes) -> str:
    shown = text[:24].decode(errors="replace")
    return f"{shown!r}" if len(text) <= 24 else f"{shown!r} …"
