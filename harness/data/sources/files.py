"""The files of a source's folder, from one listing of each directory and without a look at any single file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from harness.types import InputError

_NO_PHOTOS = frozenset({
    ".txt", ".json", ".jsonl", ".csv", ".tsv", ".md", ".html", ".xml", ".yaml", ".yml", ".toml", ".ini", ".db",
    ".sqlite", ".log", ".py", ".m", ".sh", ".zip", ".tar", ".gz", ".tgz", ".rar", ".7z", ".pkl", ".pickle", ".npy",
    ".npz", ".mat", ".pt", ".h5", ".part", ".tmp", ".pdf", ".doc",
})  # fmt: skip


def files_below(root: Path) -> list[str]:
    """All files of a folder and its subfolders, links followed, hidden ones left alone.

    Args:
        root: the folder.

    Returns:
        paths relative to it, with ``/`` between the parts, sorted.

    Raises:
        InputError: there is no such folder.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; name the folder that holds the source's lists and photos")
    found: list[str] = []
    pending = [("", str(root))]
    seen = {os.path.realpath(root)}
    while pending:
        prefix, folder = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if not entry.is_dir():
                    found.append(prefix + entry.name)
                    continue
                if entry.is_symlink():
                    target = os.path.realpath(entry.path)
                    if target in seen:
                        continue
                    seen.add(target)
                pending.append((f"{prefix}{entry.name}/", entry.path))
    return sorted(found)


def may_be_photo(name: str) -> bool:
    """Whether a file may be a photo, going by its name alone: any extension but those of lists and archives."""
    return name[name.rfind(".") :].lower() not in _NO_PHOTOS if "." in name else True


def base_name(name: str) -> str:
    """The part of a relative path after its last ``/``."""
    return name[name.rfind("/") + 1 :]


def stem_of(name: str) -> str:
    """The file's name without its last extension."""
    base = base_name(name)
    dot = base.rfind(".")
    return base[:dot] if dot > 0 else base


def by_key(names: Iterable[str], key: Callable[[str], str | None]) -> tuple[dict[str, str], list[str]]:
    """Files by a part of their name.

    Args:
        names: relative paths, sorted.
        key: what to find each by; None for a file that is not to be found.

    Returns:
        the first file of every key, and the files that share a key with an earlier one.
    """
    found: dict[str, str] = {}
    later: list[str] = []
    for name in names:
        one = key(name)
        if one is not None and found.setdefault(one, name) != name:
            later.append(name)
    return found, later


@dataclass(frozen=True)
class PathsBelow(Sequence[Path]):
    """Paths of a folder, each made when it is asked for: half a million of them are half a gigabyte as objects.

    Attributes:
        root: the folder.
        names: relative to it.
    """

    root: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, row: int) -> Path: ...

    @overload
    def __getitem__(self, row: slice) -> Sequence[Path]: ...

    def __getitem__(self, row: int | slice) -> Path | Sequence[Path]:
        if isinstance(row, slice):
            return PathsBelow(self.root, self.names[row])
        return self.root / self.names[row]
