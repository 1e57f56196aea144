"""One entry for every training source: garments, and a report of what was read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import numpy as np

from harness.data.garments import Garments
from harness.data.sources import darn, manifest, mpv, mvc, street2shop, zalando
from harness.data.sources.bytes_alike import alike
from harness.data.sources.gathering import Entries, Oddity, Tally, gather
from harness.types import Floats, InputError, Progress

Reader = Callable[[Path, Tally], Entries]

SOURCES: Mapping[str, Reader] = MappingProxyType(
    {
        "Street2Shop": street2shop.entries,
        "DARN": darn.entries,
        "MVC": mvc.entries,
        "MPV": mpv.entries,
        "Zalando": zalando.entries,
    }
)
"""The data sets of the paper's Table 1 beside DeepFashion2, as recipes name them, with their readers."""

LICENCES: Mapping[str, str] = MappingProxyType({"Zalando": zalando.LICENCE})
"""What a team must know before it uses a source."""

SAMPLE_PHOTOS = 200
"""Photos that `examine` decodes, evenly spread."""


@dataclass(frozen=True)
class SourceReport:
    """What a source holds and what was odd about it.

    Attributes:
        source: its name.
        place: the folder or file that was read.
        rendered: True if it says of itself that it was rendered.
        licence: what a team must know before it uses the source; None where there is nothing to say.
        num_entries: crops that the lists name, unreadable ones and repeats among them.
        num_garments: those that are used.
        num_photos: photos of the garments.
        num_consumer, num_shop: garments of each domain.
        num_identities: different items.
        num_matched: items with a garment in both domains.
        num_with_two_views: items with two or more garments, whatever the domain: those that can be trained on.
        oddities: everything odd; ``num_entries`` is ``num_garments`` and the counts of those that are left out.
    """

    source: str
    place: str
    rendered: bool
    licence: str | None
    num_entries: int
    num_garments: int
    num_photos: int
    num_consumer: int
    num_shop: int
    num_identities: int
    num_matched: int
    num_with_two_views: int
    oddities: tuple[Oddity, ...]

    @property
    def ok(self) -> bool:
        """Whether there is anything to train on."""
        return self.num_with_two_views >= 2


def read_source(name: str, path: Path) -> Garments:
    """The garments of a training source.

    Photos are not opened; those that are not there are left out, as is all else that `examine` counts as left out.

    Args:
        name: one of `SOURCES`; or any name, for a team's own photos.
        path: the source's folder; or a CSV file with the header ``image,box,item,domain``, for a source of any name
            (`harness.data.sources.manifest` says what is in it).

    Raises:
        InputError: the name is not known and the path is no CSV file, a list is missing or cannot be read, or no
            garment is left.
    """
    garments, tally = _read(name, path)
    if len(garments) == 0:
        first = f"; first: {tally.oddities[0].kind}: {tally.oddities[0].first}" if tally.oddities else ""
        raise InputError(
            f"{path}: none of the {tally.num_left_out:,} entries of {name} can be used{first}; "
            f"see them all with: run.py data check {path} --source {name}"
        )
    return garments


def examine(
    name: str, path: Path, *, decode: int | None = SAMPLE_PHOTOS, progress: Progress | None = None
) -> SourceReport:
    """What a source holds and everything that is odd about it.

    Beside what `read_source` leaves out, photos of the same bytes are found, and a sample is decoded.

    Args:
        name, path: as for `read_source`.
        decode: so many photos, evenly spread over the source, are decoded; all if None, or if there are fewer.
        progress: called with photos compared and decoded, and in total.

    Raises:
        InputError: as for `read_source`, but not where no garment is left.
    """
    garments, tally = _read(name, path)
    num_decoded = len(garments.photos) if decode is None else min(decode, len(garments.photos))
    chosen = np.unique(np.linspace(0, len(garments.photos) - 1, num_decoded).astype(np.int64))
    total = len(garments.photos) + len(chosen)

    def report(done: int, _total: int) -> None:
        if progress is not None:
            progress(done, total)

    _note_alike(garments, tally, report)
    _note_undecodable(garments, chosen.tolist(), tally)
    report(total, total)
    return _report(name, path, garments, tally)


def _read(name: str, path: Path) -> tuple[Garments, Tally]:
    tally = Tally()
    if name.lower().startswith("deepfashion2"):
        raise InputError(f"{name!r}: DeepFashion2's splits are known by --data and --split; name the source otherwise")
    if path.suffix.lower() == ".csv":
        reader: Reader = manifest.entries
    elif name in SOURCES:
        reader = SOURCES[name]
    else:
        raise InputError(
            f"there is no training source named {name!r}; there are {', '.join(SOURCES)}, and any other name for a "
            f"CSV file with the header {','.join(manifest.COLUMNS)} (got {path})"
        )
    return gather(name, reader(path, tally), tally), tally


def _report(name: str, path: Path, garments: Garments, tally: Tally) -> SourceReport:
    identities, counts = np.unique(garments.identities[garments.identities >= 0], return_counts=True)
    consumer, shop = (np.unique(garments.identities[garments.is_consumer == side]) for side in (True, False))
    return SourceReport(
        source=name,
        place=str(path),
        rendered=garments.record.rendered,
        licence=LICENCES.get(name),
        num_entries=len(garments) + tally.num_left_out,
        num_garments=len(garments),
        num_photos=len(garments.photos),
        num_consumer=int(garments.is_consumer.sum()),
        num_shop=int((~garments.is_consumer).sum()),
        num_identities=len(identities),
        num_matched=int((np.intersect1d(consumer, shop) >= 0).sum()),
        num_with_two_views=int((counts >= 2).sum()),
        oddities=tally.oddities,
    )


def _note_alike(garments: Garments, tally: Tally, progress: Progress) -> None:
    """Count photos that are byte for byte another one: of the same item, and of another."""
    items = [frozenset[int]()] * len(garments.photos)
    order = np.argsort(garments.photo_rows, kind="stable")
    starts = np.searchsorted(garments.photo_rows[order], np.arange(len(garments.photos) + 1)).tolist()
    for photo, (start, end) in enumerate(pairwise(starts)):
        items[photo] = frozenset(garments.identities[order[start:end]].tolist())
    for group in alike(garments.photos, progress=progress):
        first = group[0]
        for photo in group[1:]:
            same = items[photo] == items[first]
            what = "photo is byte for byte another one of " + ("the same item" if same else "another item")
            tally.note(what, f"{garments.photos[photo]} is {garments.photos[first]}")


def _note_undecodable(garments: Garments, chosen: list[int], tally: Tally) -> None:
    """Count photos of the sample that cannot be decoded or are not what their name says, and boxes outside them."""
    from harness.data.photos import decode_rgb

    def look(photo: int) -> tuple[int, int] | str:
        try:
            height, width = decode_rgb(garments.photos[photo]).shape[:2]
        except InputError as error:
            return str(error)
        return width, height

    with ThreadPoolExecutor(4) as pool:
        seen = dict(zip(chosen, pool.map(look, chosen), strict=True))
    for photo, size in seen.items():
        path = garments.photos[photo]
        if isinstance(size, str):
            tally.note("photo of the sample cannot be decoded", size)
        elif path.suffix.lower() in (".jpg", ".jpeg") and not _begins(path, b"\xff\xd8"):
            tally.note("photo of the sample is no JPEG, whatever its name says; it is read", str(path))
    for row in np.flatnonzero(np.isin(garments.photo_rows, chosen)).tolist():
        outside = _outside(garments.boxes_xyxy[row], seen[int(garments.photo_rows[row])])
        if outside is not None:
            tally.note(
                "box of the sample lies outside its photo", f"{garments.photos[garments.photo_rows[row]]}: {outside}"
            )


def _begins(path: Path, start: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(start)) == start


def _outside(box_xyxy: Floats, size: tuple[int, int] | str) -> str | None:
    if isinstance(size, str) or np.isnan(box_xyxy[0]):
        return None
    x1, y1, x2, y2 = box_xyxy.tolist()
    if x1 >= size[0] or y1 >= size[1] or x2 <= 0 or y2 <= 0:
        return f"{[x1, y1, x2, y2]} in {size[0]} × {size[1]}"
    return None
