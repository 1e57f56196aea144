"""Street2Shop: street photos with boxes, shop photos without, eleven categories.

The folder holds ``meta/json/{train_pairs,test_pairs,retrieval}_<category>.json`` (in some copies
``meta/meta/json``), the photos anywhere below it, named by their number (``000002847.jpg``, any extension or none),
and, where it is there, ``photos/photos.txt`` with ``id,url``.

Training and test pairs are both taken: both are matches, and the test of the challenge is DeepFashion2's. An item is
(category, product): product numbers recur between categories for other items. A pair's photo is a consumer's and has
a box; a photo of ``retrieval_<category>.json`` is a shop's, as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from harness.data.sources.files import base_name, by_key, files_below, may_be_photo, stem_of
from harness.data.sources.gathering import Entries, Tally
from harness.types import InputError

CATEGORIES = (
    "bags", "belts", "dresses", "eyewear", "footwear", "hats", "leggings", "outerwear", "pants", "skirts", "tops",
)  # fmt: skip
"""As published; lists of other categories are read as well."""

KINDS = ("train_pairs", "test_pairs", "retrieval")

_Row = tuple[int, int, tuple[float, float, float, float]]
_WHOLE = (float("nan"),) * 4


def entries(root: Path, tally: Tally) -> Entries:
    """What the lists of a Street2Shop folder name.

    Args:
        root: the folder.
        tally: is told of unreadable rows, missing lists and what is in both splits.

    Raises:
        InputError: there is no list, or one is no JSON list.
    """
    names = files_below(root)
    lists = [name for name in names if name.endswith(".json") and base_name(name).startswith(KINDS)]
    lists, again = (sorted(part.values() if isinstance(part, dict) else part) for part in by_key(lists, base_name))
    if not lists:
        raise InputError(
            f"{root}: no Street2Shop lists there; expected meta/json/train_pairs_dresses.json, test_pairs_… and "
            "retrieval_… below it: unpack the published meta archive there"
        )
    tally.note("list is there twice; the first is read", again[0] if again else "", len(again))
    for category in CATEGORIES:
        for kind in KINDS:
            wanted = f"{kind}_{category}.json"
            if not any(base_name(name) == wanted for name in lists):
                tally.note("list is not there", wanted)
    lists.sort(key=lambda name: (_category(name), KINDS.index(_kind(name))))
    rows: list[_Row] = []
    starts: list[int] = []
    numbers: list[int] = []  # of each row in its list, where unreadable ones count
    for name in lists:
        starts.append(len(rows))
        _read_list(root / name, _kind(name) != "retrieval", rows, numbers, tally)
    ends = [*starts[1:], len(rows)]
    kinds = np.repeat([KINDS.index(_kind(name)) for name in lists], np.subtract(ends, starts)).astype(np.int64)

    def where(row: int) -> str:
        place = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{lists[place]}: row {numbers[row]}: photo {rows[row][0]} of product {rows[row][1]}"

    ids = np.array([row[0] for row in rows], dtype=np.int64)
    items: list[tuple[str, int]] = []
    for name, start, end in zip(lists, starts, ends, strict=True):
        category = _category(name)
        items += [(category, row[1]) for row in rows[start:end]]
    _note_both_splits(kinds, ids, items, where, tally)
    found, later = by_key((name for name in names if may_be_photo(name)), _photo_number)
    tally.note("two files for one photo number; the first is read", later[0] if later else "", len(later))
    _note_unlisted(root, names, found, tally)
    return Entries(
        root=root,
        files=[found.get(str(photo)) for photo in ids.tolist()],
        boxes_xyxy=np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 4),
        items=items,
        is_consumer=kinds != KINDS.index("retrieval"),
        where=where,
        lists=[root / name for name in lists],
    )


def _kind(name: str) -> str:
    return next(kind for kind in KINDS if base_name(name).startswith(kind))


def _category(name: str) -> str:
    return stem_of(name).removeprefix(_kind(name)).strip("_")


def _photo_number(name: str) -> str | None:
    stem = stem_of(name)
    return str(int(stem)) if stem.isascii() and stem.isdigit() else None


def _read_list(path: Path, boxed: bool, rows: list[_Row], numbers: list[int], tally: Tally) -> None:
    try:
        document = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path}: is not JSON ({error}); restore it from the published archive") from error
    if not isinstance(document, list):
        raise InputError(f"{path}: expected a list of objects; restore it from the published archive")
    for number, one in enumerate(document):
        row = _row(one, boxed)
        if row is not None:
            rows.append(row)
            numbers.append(number)
        else:
            tally.leave_out("row cannot be read", f"{path.name}: row {number}: {str(one)[:80]}")


def _row(one: Any, boxed: bool) -> _Row | None:
    try:
        photo, product = one["photo"], one["product"]
        if type(photo) is not int or type(product) is not int:
            return None
        if not boxed:
            return photo, product, _WHOLE
        box = one["bbox"]
        left, top = float(box["left"]), float(box["top"])
        return photo, product, (left, top, left + float(box["width"]), top + float(box["height"]))
    except (KeyError, TypeError, ValueError):
        return None


def _note_both_splits(kinds: Any, ids: Any, items: list[Any], where: Callable[[int], str], tally: Tally) -> None:
    for what, values in (("photo", ids.tolist()), ("item", items)):
        trained, tested = ({values[row] for row in np.flatnonzero(kinds == kind).tolist()} for kind in (0, 1))
        both = trained & tested
        if both:
            first = next(row for row, value in enumerate(values) if value in both)
            tally.note(f"{what} is in the training and in the test pairs", where(first), len(both))


def _note_unlisted(root: Path, names: list[str], found: dict[str, str], tally: Tally) -> None:
    """Photos of ``photos.txt`` that were not fetched: half of its addresses are dead by now."""
    for name in names:
        if base_name(name) != "photos.txt":
            continue
        lines = (root / name).read_text(encoding="utf-8", errors="replace").splitlines()
        numbers = [line.partition(",") for line in lines if line.strip()]
        wrong = [line for line, (number, _, _) in zip(lines, numbers, strict=False) if not number.strip().isdecimal()]
        tally.note("line of photos.txt cannot be read", wrong[0] if wrong else "", len(wrong))
        gone = [
            f"{number}, {url.strip()}"
            for number, _, url in numbers
            if number.strip().isdecimal() and str(int(number)) not in found
        ]
        tally.note("photo of photos.txt has no file", gone[0] if gone else "", len(gone))
        return
