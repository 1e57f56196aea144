"""DARN: users' and shops' photos, no boxes, as the neutral list ``image.txt``.

The layout of the original archive is not known, and redistributions differ. What is read is ``image.txt`` at the
folder's root (or the list file itself): one photo a line, ``path product domain category``, separated by blanks;
the path is relative to the list's folder, domain 0 is a user's photo and anything else a shop's. An item is a product.
Photos that lie elsewhere below the folder are found by their file name where it is the only one.

A product whose lines disagree on the category is used and counted: what it is called does not change what it is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.data.sources.files import base_name, by_key, files_below, may_be_photo
from harness.data.sources.gathering import Entries, Tally, whole_photos
from harness.types import InputError

LIST = "image.txt"


def entries(root: Path, tally: Tally) -> Entries:
    """What the list of a DARN folder names.

    Args:
        root: the folder, or the list itself.
        tally: is told of unreadable lines and inconsistent categories.

    Raises:
        InputError: the list is missing.
    """
    path = root if root.is_file() else root / LIST
    root = path.parent
    if not path.is_file():
        raise InputError(
            f"{path}: no such list; write one line a photo, 'path product domain category', domain 0 for a user's "
            "photo and 1 for a shop's"
        )
    names = [name for name in files_below(root) if may_be_photo(name)]
    there = set(names)
    by_name, twice = by_key(names, base_name)
    for name in twice:  # a name that two folders have says nothing
        by_name.pop(base_name(name), None)
    files: list[str | None] = []
    items: list[str] = []
    domains: list[bool] = []
    lines: list[int] = []
    categories: dict[str, str] = {}
    differing: set[str] = set()
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="surrogateescape").splitlines(), 1):
        fields = line.rsplit(maxsplit=3)
        if len(fields) != 4:
            if fields:
                tally.leave_out("line cannot be read", f"{path.name}: line {number}: {line[:80]}")
            continue
        photo, product, domain, category = fields
        photo = photo.strip().replace("\\", "/").removeprefix("./")
        if categories.setdefault(product, category) != category and product not in differing:
            differing.add(product)
            what = f"{path.name}: line {number}: product {product} is {categories[product]} and {category}"
            tally.note("product of several categories", what)
        files.append(photo if photo in there else by_name.get(base_name(photo)))
        items.append(product)
        domains.append(domain == "0")
        lines.append(number)
    return Entries(
        root=root,
        files=files,
        boxes_xyxy=whole_photos(len(files)),
        items=items,
        is_consumer=np.array(domains, dtype=bool),
        where=lambda row: f"{path.name}: line {lines[row]}: product {items[row]}",
        lists=[path],
    )
