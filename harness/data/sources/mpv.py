"""MPV: a person in several poses and the piece of clothing alone; no street photos, no boxes.

The folder holds ``all_poseA_poseB_clothes.txt`` (in some copies ``…_0607.txt``), tab-separated: a photo of the person,
another pose, the cloth, ``train`` or ``test``. Photos are below ``MPV_192_256/<SKU>/`` or ``all/<SKU>/`` and are named
like ``SC321E00D-O11@13=person_whole_front.jpg`` and ``SC321E00D-O11@12.1=cloth_front.jpg``.

An item is what stands before the ``@``: a folder may hold several colours. Rows repeat photos with the poses swapped;
each photo is taken once, and both splits are taken. ``person_*`` photos stand for the consumer's side and ``cloth_*``
photos for the shop's: there is no street photo, and a batch of half worn, half alone makes the model look past the
person.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from harness.data.sources.files import base_name, by_key, files_below, may_be_photo
from harness.data.sources.gathering import Entries, Tally, whole_photos
from harness.types import InputError

_LIST = re.compile(r"all_poseA_poseB_clothes\w*\.txt")
_NAME = re.compile(r"(.+?)@[^=]*=(person|cloth)_?.*")


def entries(root: Path, tally: Tally) -> Entries:
    """What the list of an MPV folder names.

    Args:
        root: the folder.
        tally: is told of unreadable rows, rows of two items, and photos that no row names.

    Raises:
        InputError: the list is missing.
    """
    names = files_below(root)
    lists = [name for name in names if _LIST.fullmatch(base_name(name))]
    if not lists:
        raise InputError(f"{root}: no all_poseA_poseB_clothes.txt there; restore it from the published archive")
    tally.note("list is there twice; all are read", lists[1] if len(lists) > 1 else "", len(lists) - 1)
    photos = [name for name in names if may_be_photo(name) and _NAME.fullmatch(base_name(name))]
    there = set(photos)
    by_name, _ = by_key(photos, base_name)
    places: dict[str, str] = {}
    for name in lists:
        lines = (root / name).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        for number, line in enumerate(lines, 1):
            _read_line(line, f"{name}: line {number}", places, tally)
    wanted = list(places)
    matches = [_NAME.fullmatch(base_name(name)) for name in wanted]
    files = [_file(name, there, by_name) for name in wanted]
    unlisted = sorted(there.difference(name for name in files if name is not None))
    tally.note("photo that no row names", unlisted[0] if unlisted else "", len(unlisted))
    return Entries(
        root=root,
        files=files,
        boxes_xyxy=whole_photos(len(files)),
        items=[match[1] for match in matches if match],
        is_consumer=np.array([match[2] == "person" for match in matches if match], dtype=bool),
        where=lambda row: f"{places[wanted[row]]}: {wanted[row]}",
        lists=[root / name for name in lists],
    )


def _read_line(line: str, place: str, places: dict[str, str], tally: Tally) -> None:
    """Add the photos of a row that are new."""
    if not line.strip():
        return
    fields = [one.strip().replace("\\", "/").removeprefix("./") for one in line.split("\t")]
    matches = [_NAME.fullmatch(base_name(one)) for one in fields[:3]]
    if len(fields) < 3 or not all(matches):
        tally.leave_out("row cannot be read", f"{place}: {line[:120]}")
        return
    if len({match[1] for match in matches if match}) > 1:
        tally.note("row of two items: no positive, each photo is its own item's", f"{place}: {line[:120]}")
    if [match[2] for match in matches if match] != ["person", "person", "cloth"]:
        tally.note("row is not person, person, cloth", f"{place}: {line[:120]}")
    for one in fields[:3]:
        places.setdefault(one, place)


def _file(name: str, there: set[str], by_name: dict[str, str]) -> str | None:
    """The photo below the root: as it is written, under one of the known folders, or by its file name."""
    for prefix in ("", "MPV_192_256/", "all/"):
        if prefix + name in there:
            return prefix + name
    return by_name.get(base_name(name))
