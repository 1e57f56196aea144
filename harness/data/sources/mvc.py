"""MVC: shops' photos in several views, colourways apart; no consumers' photos, no boxes, no splits.

The folder holds row-aligned lists of objects: ``attribute_labels.json`` (``filename``, ``itemN``, attributes),
``image_links.json`` (``image_url_4x``) and ``mvc_info.json``; the first is needed, the second says where a photo came
from. An item is ``itemN``, one colourway of a product. Early copies are not UTF-8.

Local files are named ``<filename>.jpg``, after the photo's address, or by the row's number from 0; the way that finds
most of them is taken and told. A row whose address names another style than ``itemN`` shows another item: it is left
out, whatever its file is called. All photos are the shop's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import orjson

from harness.data.sources.files import base_name, by_key, files_below, may_be_photo, stem_of
from harness.data.sources.gathering import Entries, Tally, whole_photos
from harness.types import InputError

LABELS, LINKS, INFO = "attribute_labels.json", "image_links.json", "mvc_info.json"

_STYLE_IN_ADDRESS = re.compile(r"([0-9]{5,})\b")
_STYLE_IN_NAME = re.compile(r"_s([0-9]+)(?:_|$)")


MOST_OF_OTHER_STYLE = 0.05
"""If more addresses than this share bear another number than ``itemN``, their numbers are no styles."""


class _Row(NamedTuple):
    number: int
    name: str
    item: str
    address: str


def entries(root: Path, tally: Tally) -> Entries:
    """What the lists of an MVC folder name.

    Args:
        root: the folder.
        tally: is told of unreadable rows, lists of other lengths and addresses of other styles.

    Raises:
        InputError: ``attribute_labels.json`` is missing, or a list is no JSON list.
    """
    names = files_below(root)
    places, _ = by_key((name for name in names if name.endswith(".json")), base_name)
    if LABELS not in places:
        raise InputError(f"{root}: no {LABELS} there; restore MVC's lists from the published archive")
    labels = _read(root / places[LABELS], tally)
    links = _read(root / places[LINKS], tally) if LINKS in places else None
    if links is not None and len(links) != len(labels):
        what = f"{LINKS} has {len(links):,} rows, {LABELS} {len(labels):,}"
        tally.note("lists of different lengths: addresses cannot be told", what)
        links = None
    if INFO in places:
        num_rows = len(_read(root / places[INFO], tally))
        if num_rows != len(labels):
            what = f"{INFO} has {num_rows:,} rows, {LABELS} {len(labels):,}"
            tally.note("information of another length; it is not needed", what)
    if links is None:
        tally.note("no addresses: photos of other styles are not noticed", LINKS)
    read = [_row(number, label, links[number] if links else None) for number, label in enumerate(labels)]
    rows = _sound(read, labels, tally)
    files = _files(names, rows, len(labels), tally)
    return Entries(
        root=root,
        files=files,
        boxes_xyxy=whole_photos(len(files)),
        items=[row.item for row in rows],
        is_consumer=np.zeros(len(rows), dtype=bool),
        where=lambda row: f"{LABELS}: row {rows[row].number}: {rows[row].name}",
        lists=[root / places[name] for name in (LABELS, LINKS, INFO) if name in places],
    )


def _sound(read: list[_Row | None], labels: list[Any], tally: Tally) -> list[_Row]:
    """The rows whose photo is the item's, each photo once."""
    other = [row for row in read if row is not None and _names_another(row)]
    if len(other) > MOST_OF_OTHER_STYLE * len(read):
        what = f"{LINKS}: row {other[0].number}: itemN {other[0].item}, {other[0].address}"
        tally.note("addresses bear numbers other than itemN: not compared", what, len(other))
        other = []
    left_out = {row.number for row in other}
    of_address: dict[str, int] = {}
    rows = []
    for number, row in enumerate(read):
        if row is None:
            tally.leave_out("row cannot be read", f"{LABELS}: row {number}: {str(labels[number])[:80]}")
            continue
        place = f"{LABELS}: row {number}: {row.name}"
        if number in left_out:
            tally.leave_out("address names another style", f"{place}: {row.address}")
        elif row.address and of_address.setdefault(row.address, number) != number:
            tally.leave_out("address again", f"{place}: as in row {of_address[row.address]}")
        else:
            in_name = _STYLE_IN_NAME.search(row.name)
            if in_name and in_name[1] != row.item:
                tally.note("filename names another style than itemN; itemN counts", f"{place}: itemN {row.item}")
            rows.append(row)
    return rows


def _names_another(row: _Row) -> bool:
    style = _STYLE_IN_ADDRESS.search(_last(row.address))
    return style is not None and style[1] != row.item


def _read(path: Path, tally: Tally) -> list[Any]:
    data = path.read_bytes()
    try:
        data.decode()
    except UnicodeDecodeError as error:
        tally.note("list is not UTF-8; read as Windows-1252", f"{path.name}: byte {error.start:,}")
        data = data.decode("cp1252", errors="replace").encode()
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path}: is not JSON ({error}); restore it from the published archive") from error
    if not isinstance(document, list):
        raise InputError(f"{path}: expected a list of objects, one a photo")
    return document


def _row(number: int, label: Any, link: Any) -> _Row | None:
    if not isinstance(label, dict):
        return None
    name, item = label.get("filename"), label.get("itemN")
    address = link.get("image_url_4x") if isinstance(link, dict) else None
    if isinstance(item, float) and item.is_integer():
        item = int(item)
    if not isinstance(name, str) or not isinstance(item, (int, str)) or isinstance(item, bool) or item == "":
        return None
    return _Row(number, name.strip('"'), str(item).strip('"'), address.strip('"') if isinstance(address, str) else "")


def _last(address: str) -> str:
    """The file's name in an address."""
    return urlsplit(address).path.rpartition("/")[2]


def _files(names: list[str], rows: list[_Row], num_rows: int, tally: Tally) -> list[str | None]:
    photos = [name for name in names if may_be_photo(name)]
    by_stem, _ = by_key(photos, stem_of)
    by_number, _ = by_key(photos, lambda name: str(int(stem_of(name))) if stem_of(name).isdecimal() else None)
    first = 1 if "0" not in by_number and str(num_rows) in by_number else 0
    ways: dict[str, Callable[[_Row], str | None]] = {
        "files are named as in the lists": lambda row: by_stem.get(row.name) or by_stem.get(stem_of(row.name)),
        "files are named after their addresses": lambda row: (
            by_stem.get(stem_of(_last(row.address))) if row.address else None
        ),
        f"files are named by the row's number from {first}": lambda row: by_number.get(str(row.number + first)),
    }
    found = {how: [way(row) for row in rows] for how, way in ways.items()}
    best = max(found, key=lambda how: sum(name is not None for name in found[how]))
    if best != next(iter(ways)) and any(found[best]):
        example = next(name for name in found[best] if name is not None)
        tally.note(best, example, sum(name is not None for name in found[best]))
    return found[best]
