"""The folders of a DeepFashion2 data set: which files a split has, and which photos are consumer photos."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.annotations import Problem
from harness.types import SPLITS, Bools, InputError, Ints, SplitName

RENDERED_MARK = "RENDERED.json"
"""A data set with this file at its root was rendered, not photographed."""

RENDERED_COMMENT = b"RENDERED, not DeepFashion2"
"""Stands as a JPEG comment in every rendered photo, so that no part of the set can lose the mark."""


def is_rendered(root: Path, name: SplitName) -> bool:
    """Whether a split says of itself that it was rendered: by the file at the root, or by any one of its photos."""
    if (root / RENDERED_MARK).is_file():
        return True
    folder = root / name / "image"
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        photo = next((entry.path for entry in entries if entry.name.endswith(".jpg") and entry.is_file()), None)
    if photo is None:
        return False
    with open(photo, "rb") as file:
        return RENDERED_COMMENT in file.read(512)


RELEASED_PHOTOS: dict[SplitName, int] = {"train": 191_961, "validation": 32_153, "test": 62_629}
"""Photos of the released splits."""

RELEASED_VALIDATION_CONSUMER = 10_844
"""Consumer photos of the released validation split."""

RELEASED_TEST_CONSUMER = 20_681
"""The released test photos 1 to this one are consumer photos, the others shop photos."""

LAYOUT = "expected DIR/train, DIR/validation or DIR/test with image/000001.jpg … and annos/000001.json …"
"""What a data set looks like, for messages."""

OBTAIN = (
    "unpack the archives of https://github.com/switchablenorms/DeepFashion2 there, "
    "or make a data set with `run.py data render DIR`"
)
"""How to come by a data set, for messages."""

_HARMLESS = frozenset({".txt", ".md", ".db", ".ini", ".html"})


@dataclass(frozen=True)
class SplitFiles:
    """The files of a split, and what is wrong with their names.

    Attributes:
        photo_ids: (P,) int64 ascending.
        photo_bytes: (P,) int64 file sizes.
        annotation_ids: (A,) int64 ascending; None where the split has no annotation folder.
        problems: photos without annotation, annotations without photo, foreign names.
    """

    photo_ids: Ints
    photo_bytes: Ints
    annotation_ids: Ints | None
    problems: list[Problem]


def list_split(root: Path, name: SplitName) -> SplitFiles:
    """The photo and annotation files of a split, from the folders alone.

    Args:
        root: the folder that holds the splits.
        name: which split.

    Returns:
        ids and sizes in ascending order of id, with the problems of the names.

    Raises:
        InputError: the root, the split or a folder of it that must exist does not, or there is no photo.
    """
    if name not in SPLITS:
        raise InputError(f"split {name!r} is unknown; expected one of {', '.join(SPLITS)}")
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; {LAYOUT}; {OBTAIN}")
    photo_dir, annotation_dir = root / name / "image", root / name / "annos"
    if not photo_dir.is_dir():
        found = [split for split in SPLITS if (root / split / "image").is_dir()]
        there = f"; splits found there: {', '.join(found)}" if found else ""
        raise InputError(f"{photo_dir}: no such folder; {LAYOUT}{there}; {OBTAIN}")
    photo_ids, photo_bytes, problems = numbered_files(photo_dir, ".jpg")
    if len(photo_ids) == 0 and not problems:
        raise InputError(f"{photo_dir}: holds no photo; {LAYOUT}; {OBTAIN}")
    annotation_ids = None
    if annotation_dir.is_dir():
        annotation_ids, _, more = numbered_files(annotation_dir, ".json")
        problems += more + unpaired(photo_dir, photo_ids, annotation_dir, annotation_ids)
    elif name != "test":
        raise InputError(f"{annotation_dir}: no such folder; every {name} photo needs an annotation; {OBTAIN}")
    return SplitFiles(photo_ids, photo_bytes, annotation_ids, problems)


def consumer_mask_of_test(root: Path, image_ids: Ints) -> Bools:
    """Which photos of a test split without annotations are consumer photos.

    Told by ``retrieval_test_consumer_information.json`` and ``…_shop_information.json`` (at the root or
    in the split's folder); without them, by the published numbering if the split has exactly the
    published number of photos.

    Args:
        root: the folder that holds ``test``.
        image_ids: (P,) ids of the photos, ascending.

    Returns:
        (P,) bool, True for a consumer photo.

    Raises:
        InputError: the files are missing, unreadable, contradict one another or leave a photo out.
    """
    places = {kind: _information_file(root, kind) for kind in ("consumer", "shop")}
    if places["consumer"] is None and places["shop"] is None:
        released = RELEASED_PHOTOS["test"]
        if len(image_ids) == released and image_ids[0] == 1 and image_ids[-1] == released:
            return image_ids <= RELEASED_TEST_CONSUMER
    ids: dict[str, Ints] = {}
    for kind, place in places.items():
        if place is None:
            raise InputError(
                f"{root / 'test'}: cannot tell consumer from shop photos: no {_information_name(kind)} there or at "
                f"{root}, and not the {RELEASED_PHOTOS['test']:,} photos of the release ({len(image_ids):,} here); "
                "copy both information files of the release there (or write them: "
                '{"images": [{"id": 1, "file_name": "000001.jpg"}, …]})'
            )
        ids[kind] = _information_ids(place)
    both = np.intersect1d(ids["consumer"], ids["shop"])
    if len(both):
        raise InputError(
            f"{places['consumer']}: photo {both[0]:06d} is in {places['shop']} as well; remove it from one"
        )
    neither = np.setdiff1d(image_ids, np.concatenate(list(ids.values())))
    if len(neither):
        raise InputError(
            f"{places['consumer']}: photo {neither[0]:06d} is neither there nor in {places['shop']}; add it"
        )
    return np.isin(image_ids, ids["consumer"])


def _information_name(kind: str) -> str:
    return f"retrieval_test_{kind}_information.json"


def _information_file(root: Path, kind: str) -> Path | None:
    places = [folder / _information_name(kind) for folder in (root, root / "test")]
    return next((place for place in places if place.is_file()), None)


def _information_ids(place: Path) -> Ints:
    """Ids of the listed photos: the number in ``file_name`` where there is one, else ``id``."""
    try:
        document = json.loads(place.read_bytes())
    except ValueError as error:
        raise InputError(f"{place}: is not JSON ({error}); restore it from the release") from error
    images = document.get("images") if isinstance(document, dict) else document
    if not isinstance(images, list):
        raise InputError(f'{place}: expected an object with a list "images"')
    return np.array([_information_id(place, row, image) for row, image in enumerate(images)], dtype=np.int64)


def _information_id(place: Path, row: int, image: Any) -> int:
    if isinstance(image, dict):
        name, number = image.get("file_name"), image.get("id")
        if isinstance(name, str) and re.fullmatch(r"0*[0-9]{1,15}\.[a-zA-Z]+", Path(name).name):
            return int(Path(name).stem)
        if isinstance(number, int) and not isinstance(number, bool):
            return number
    raise InputError(f'{place}: images[{row}]: expected an integer "id" or a "file_name" such as 000001.jpg')


def numbered_files(folder: Path, suffix: str) -> tuple[Ints, Ints, list[Problem]]:
    """The files called 000001<suffix>.

    Args:
        folder: where.
        suffix: ``.jpg`` or ``.json``.

    Returns:
        (N,) ids ascending, (N,) sizes in bytes, and a problem for every other name.
    """
    found: list[tuple[int, int]] = []
    problems = []
    with os.scandir(folder) as entries:
        for entry in entries:
            stem, end = os.path.splitext(entry.name)
            if end == suffix and stem.isascii() and stem.isdigit() and entry.name == f"{int(stem):06d}{suffix}":
                found.append((int(stem), entry.stat().st_size))
            elif not entry.name.startswith(".") and end.lower() not in _HARMLESS:
                what = f"expected names such as 000001{suffix} (six digits); rename or remove it"
                problems.append(Problem(str(folder / entry.name), what))
    pairs = np.array(sorted(found), dtype=np.int64).reshape(-1, 2)
    problems.sort(key=lambda problem: problem.where)
    return pairs[:, 0].copy(), pairs[:, 1].copy(), problems


def unpaired(photo_dir: Path, photo_ids: Ints, annotation_dir: Path, annotation_ids: Ints) -> list[Problem]:
    """A problem for every annotation without photo, then for every photo without annotation.

    Args:
        photo_dir, photo_ids: the photos, (P,) ids ascending.
        annotation_dir, annotation_ids: the annotations, (A,) ids ascending.
    """
    no_photo = np.setdiff1d(annotation_ids, photo_ids)
    no_annotation = np.setdiff1d(photo_ids, annotation_ids)
    problems = [
        Problem(str(annotation_dir / f"{one:06d}.json"), f"has no photo {one:06d}.jpg; restore that or remove this")
        for one in no_photo.tolist()
    ]
    return problems + [
        Problem(
            str(photo_dir / f"{one:06d}.jpg"),
            f"has no annotation {annotation_dir / f'{one:06d}.json'}; restore that or remove this",
        )
        for one in no_annotation.tolist()
    ]
