"""Zalando, as the VITON data set has it: a woman in a top, and the top alone; no street photos, no boxes.

Withdrawn over copyright: only a team that holds a licence may use it.

Original layout: ``women_top/NNNNNN_0.jpg`` (worn) and ``NNNNNN_1.jpg`` (alone), with ``viton_train_pairs.txt`` and
``viton_test_pairs.txt``. Repackaged: ``{train,test}/image`` (worn) and ``{train,test}/cloth`` (alone), with
``train_pairs.txt`` and ``test_pairs.txt``. Masks and poses beside them are not read.

An item is a six-digit number, and every photo goes under its own: a row of the test list puts one woman's photo beside
another's top, to be tried on, and is no positive. So the lists are only checked against the photos. Both splits
are taken. The worn photos stand for the consumer's side and the others for the shop's: there is no
street photo, and a batch of half worn, half alone makes the model look past the person.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from harness.data.sources.files import base_name, by_key, files_below
from harness.data.sources.gathering import Entries, Tally, whole_photos
from harness.types import InputError

LICENCE = (
    "the Zalando photos were withdrawn over copyright; use them only if your team holds a licence from their owner"
)
"""What a team must know before it uses the source."""

_FOLDERS = frozenset({"women_top", "image", "cloth"})
_NAME = re.compile(r"([0-9]{6})_([01])\.\w+")
_LIST = re.compile(r"(?:viton_)?(train|test)_pairs\.txt")


def entries(root: Path, tally: Tally) -> Entries:
    """The photos of a VITON folder.

    Args:
        root: the folder.
        tally: is told of try-on swaps, of photos that the lists name and that are missing, and of foreign names.

    Raises:
        InputError: there is neither ``women_top`` nor a repackaged split with photos named as they should be.
    """
    names = files_below(root)
    photos = [name for name in names if f"{root.name}/{name}".split("/")[-2] in _FOLDERS]
    found, again = by_key(photos, lambda name: base_name(name) if _NAME.fullmatch(base_name(name)) else None)
    foreign = [name for name in photos if not _NAME.fullmatch(base_name(name))]
    if not found:
        raise InputError(
            f"{root}: no VITON photos there; expected women_top/000000_0.jpg and 000000_1.jpg, or train/image and "
            "train/cloth with such names"
        )
    tally.leave_out("name is no six-digit number with _0 or _1", foreign[0] if foreign else "", len(foreign))
    tally.leave_out("photo of this name is in another folder", again[0] if again else "", len(again))
    files: list[str | None] = list(found.values())
    stems = list(found)
    lists = [name for name in names if _LIST.fullmatch(base_name(name))]
    absent: dict[str, str] = {}
    for name in lists:
        _check_list(root, name, found, absent, tally)
    files += [None] * len(absent)
    stems += absent
    places = [*(str(name) for name in found.values()), *absent.values()]
    return Entries(
        root=root,
        files=files,
        boxes_xyxy=whole_photos(len(files)),
        items=[stem[:6] for stem in stems],
        is_consumer=np.array([stem[7] == "0" for stem in stems], dtype=bool),
        where=lambda row: places[row],
        lists=[root / name for name in lists],
    )


def _check_list(root: Path, name: str, found: dict[str, str], absent: dict[str, str], tally: Tally) -> None:
    split = "test" if "test" in base_name(name) else "train"
    for number, line in enumerate((root / name).read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        place = f"{name}: line {number}: {line.strip()[:80]}"
        if len(fields) != 2 or not all(_NAME.fullmatch(base_name(one)) for one in fields):
            tally.note("line cannot be read", place)
            continue
        worn, alone = map(base_name, fields)
        if worn[:6] != alone[:6]:
            tally.note(f"line of the {split} list pairs two items: no positive, each photo is its own item's", place)
        for one in (worn, alone):
            if one not in found:
                absent.setdefault(one, place)
