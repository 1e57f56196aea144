"""A team's own photos, as a CSV file with the header ``image,box,item,domain``.

* ``image``: the photo, relative to the CSV file's folder, or an absolute path.
* ``box``: ``x1 y1 x2 y2`` in pixels of the stored photo, separated by blanks; empty for the whole photo.
* ``item``: any text, equal for photos of the same item; empty for a garment that matches nothing.
* ``domain``: ``consumer`` or ``shop``.

Comma-separated, UTF-8 (a byte order mark is taken), values with a comma in double quotes; columns in any order, further
columns are left alone.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np

from harness.data.sources.gathering import Entries, Tally
from harness.types import InputError

COLUMNS = ("image", "box", "item", "domain")
_DOMAINS = {"consumer": True, "shop": False}
_WHOLE = [float("nan")] * 4


def entries(path: Path, tally: Tally) -> Entries:
    """What a manifest names.

    Args:
        path: the CSV file.
        tally: is told of rows that cannot be read, by what is wrong with them.

    Raises:
        InputError: the file is missing, is not UTF-8 or no CSV, or its header lacks a column or has one twice.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a CSV file with the header {','.join(COLUMNS)}")
    listed = _Listing(path.parent)
    files: list[str | None] = []
    boxes: list[list[float]] = []
    items: list[str | None] = []
    domains: list[bool] = []
    lines: list[int] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)  # or a quote that is not closed takes all that follows into one row
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header, tally)
            places = [header.index(name) for name in COLUMNS]
            for row in reader:
                if not row:
                    continue
                where = f"{path.name}: line {reader.line_num}"
                if len(row) != len(header):
                    tally.leave_out("row has not as many values as the header", f"{where}: {','.join(row)[:80]}")
                    continue
                image, box_text, item, domain = (row[place].strip() for place in places)
                box = _box(box_text)
                if box is None:
                    tally.leave_out("box is not x1 y1 x2 y2", f"{where}: {box_text!r}")
                elif domain.lower() not in _DOMAINS:
                    tally.leave_out("domain is neither consumer nor shop", f"{where}: {domain!r}")
                else:
                    if not item:
                        tally.note("no item: matches nothing", where)
                    files.append(listed.find(image))
                    boxes.append(box)
                    items.append(item or None)
                    domains.append(_DOMAINS[domain.lower()])
                    lines.append(reader.line_num)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not a CSV file in UTF-8 ({error}); save it as one") from error
    except csv.Error as error:
        raise InputError(
            f"{path}: line {reader.line_num}: is not a CSV file in UTF-8 ({error}; is a quote not closed?); save it as "
            "one"
        ) from error
    return Entries(
        root=path.parent,
        files=files,
        boxes_xyxy=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        items=items,
        is_consumer=np.array(domains, dtype=bool),
        where=lambda row: f"{path.name}: line {lines[row]}: item {items[row] or '-'}",
        lists=[path],
    )


def _check_header(path: Path, header: list[str], tally: Tally) -> None:
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise InputError(
            f"{path}: the header lacks {', '.join(missing)}; expected {','.join(COLUMNS)}, got {','.join(header)[:80]}"
        )
    twice = [name for name in COLUMNS if header.count(name) > 1]
    if twice:
        raise InputError(f"{path}: the header has {', '.join(twice)} more than once; which one is meant?")
    more = [name for name in header if name not in COLUMNS]
    tally.note("further column is left alone", more[0] if more else "", len(more))


def _box(text: str) -> list[float] | None:
    if not text:
        return _WHOLE
    try:
        box = [float(side) for side in text.split()]
    except ValueError:
        return None
    return box if len(box) == 4 and np.isfinite(box).all() else None


class _Listing:
    """Which files are there, from one listing a directory."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.folders: dict[str, frozenset[str]] = {}

    def find(self, image: str) -> str | None:
        """The same path in one form if the file is there."""
        if not image:
            return None
        image = os.path.normpath(image)
        folder, name = os.path.split(image)
        if folder not in self.folders:
            try:
                with os.scandir(os.path.join(self.root, folder)) as entries:
                    self.folders[folder] = frozenset(entry.name for entry in entries if not entry.is_dir())
            except (OSError, ValueError):  # a name of a folder may hold what no name can
                self.folders[folder] = frozenset()
        return image if name in self.folders[folder] else None
