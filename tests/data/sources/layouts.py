"""Tiny training sources: files with a byte or two, since reading opens no photo."""

from pathlib import Path

from harness.data.sources.gathering import Tally, gather
from harness.data.sources.reading import SOURCES


def put(root: Path, *photos: str) -> None:
    """Files whose bytes are their name."""
    for name in photos:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def put_text(root: Path, name: str, text: str | bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def read(name: str, path: Path):
    """Garments, and kind -> (count, left out) of everything odd."""
    tally = Tally()
    garments = gather(name, SOURCES[name](path, tally), tally)
    return garments, {one.kind: (one.count, one.left_out) for one in tally.oddities}


def rows(garments) -> list[tuple[str, int, bool]]:
    """Photo, identity and side of each garment."""
    names = [garments.photos[row].name for row in garments.photo_rows.tolist()]
    return list(zip(names, garments.identities.tolist(), garments.is_consumer.tolist(), strict=True))
