"""Published files of weights: fetched once into torch's folder, and compared with the digits in their names."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from harness.artifacts import file_sha256
from harness.types import InputError

_HASH = re.compile(r"-([0-9a-f]{8,64})\.[a-z]+$")


def downloads_folder() -> Path:
    """Where torch keeps files that were fetched."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def fetched(address: str, name: str | None = None) -> Path:
    """The file of that address in torch's download folder, verified; fetched if it is not there.

    Args:
        address: a URL, or the path of a file, which is left where it is.
        name: of the file in the folder; None for the last part of the address.

    Raises:
        InputError: it cannot be fetched, or its SHA-256 does not begin as its name says.
    """
    if "://" not in address:
        if not Path(address).is_file():
            raise InputError(f"{address}: there is no such file of initial weights; give its path with --init-from")
        return Path(address)
    path = downloads_folder() / (name or address.rsplit("/", 1)[-1])
    if not path.is_file():
        _fetch(address, path)
    stated = _HASH.search(path.name)
    if stated is not None and not file_sha256(path).startswith(stated[1]):
        raise InputError(
            f"{path}: is damaged: its name says that its SHA-256 begins {stated[1]}, and it begins "
            f"{file_sha256(path)[: len(stated[1])]}; remove the file to have it fetched again from {address}"
        )
    return path


def by_hand(address: str, path: Path) -> str:
    """What to do where a file cannot be fetched."""
    return f"put the file from {address} at {path}, or give its path with --init-from"


def _fetch(address: str, path: Path) -> None:
    """Download to a temporary name, which is renamed if the digits of the SHA-256 are those of the name."""
    from filelock import FileLock

    stated = _HASH.search(path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):  # one of the processes that train together fetches it
            if not path.is_file():
                torch.hub.download_url_to_file(address, str(path), hash_prefix=None if stated is None else stated[1])
    except OSError as error:  # urllib's errors are of this kind too
        raise InputError(f"{path.name}: cannot be fetched ({error}); {by_hand(address, path)}") from error
    except RuntimeError as error:
        raise InputError(
            f"{path.name}: what came is damaged ({error}); try again, or {by_hand(address, path)}"
        ) from error
