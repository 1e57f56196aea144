"""The named ensembles: one TOML file each in ``submissions/ensembles``."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.types import InputError

FOLDER = Path(__file__).with_name("ensembles")
"""Where the ensembles of this repository are."""


class PublishedFigure(BaseModel):
    """One figure that somebody published for an ensemble; never a measured one.

    Attributes:
        source: table and row it was read from.
        split: which split it was measured on.
        acc_at_1, acc_at_10: in [0, 1]; None where the source has none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    split: Literal["validation", "test"]
    acc_at_1: float | None = Field(default=None, ge=0, le=1)
    acc_at_10: float | None = Field(default=None, ge=0, le=1)


class NamedEnsemble(BaseModel):
    """An ensemble with a name.

    Attributes:
        name: the file's name without its ending.
        title: as the source writes it.
        spec: in the ensemble language.
        note: what to know before its figures are compared; may be empty.
        published: the published figures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    spec: str
    note: str = ""
    published: tuple[PublishedFigure, ...] = ()


def named_ensembles(folder: Path = FOLDER) -> dict[str, NamedEnsemble]:
    """Every named ensemble of a folder.

    Args:
        folder: of ``<name>.toml`` files with ``title``, ``spec``, ``note`` and ``[[published]]``.

    Returns:
        name to ensemble, in the order of the names.

    Raises:
        InputError: the folder is missing, or a file is no TOML or has an unknown, missing or wrong key.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one <name>.toml an ensemble in it")
    return {path.stem: _read(path) for path in sorted(folder.glob("*.toml"))}


def _read(path: Path) -> NamedEnsemble:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return NamedEnsemble.model_validate({"name": path.stem, **table})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        keys = ", ".join(name for name in NamedEnsemble.model_fields if name != "name")
        raise InputError(f"{path}: {place}: {first['msg']}; the keys are {keys}") from error
