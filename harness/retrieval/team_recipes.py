"""A team's own retrieval models: what their file says, laid beside the paper's."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.types import InputError

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,99}")
_TIMM = re.compile(r"[a-z][a-z0-9_.]*")
_MEAN_OTHER = ("gt", "with", "histogram")
_TABLES = ("models", "sources")
_PAPER = 18
"""Models in the paper's Table 3, m0 to m17."""


def check_name(name: str) -> None:
    """Refuse a name that a retrieval model of the user's cannot have.

    Raises:
        InputError: other characters than the ensemble language reads, or the name means something else already.
    """
    numbered = re.fullmatch(r"[mM]0*([0-9]+)", name)
    of_paper = numbered is not None and (int(numbered[1]) < _PAPER or f"m{int(numbered[1])}" != name)
    means_other = name.lower() in _MEAN_OTHER or name.upper().startswith("WBF")
    if not _NAME.fullmatch(name) or of_paper or means_other:
        raise InputError(
            f"model name {name!r}: expected a letter and up to 99 letters, digits, '_' and '.'; m0 to m{_PAPER - 1} "
            f"are the paper's (m{_PAPER} is free), {', '.join(_MEAN_OTHER)} and what begins with WBF mean other things"
        )


def read_toml(path: Path) -> dict[str, Any]:
    """What a recipe file says.

    Raises:
        InputError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: cannot be read as TOML: {error}") from error


def beside(shipped: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The shipped file's tables with a team's models, and the names of further sources, beside the paper's.

    Args:
        shipped: what ``models.toml`` says.
        path: a TOML file with ``[models.NAME]`` tables, and ``sources``, the names of photo collections of the team's.

    Raises:
        InputError: the file cannot be read, or it has something else; the message names the place.
    """
    told = read_toml(path)
    unknown = [key for key in told if key not in _TABLES]
    if unknown:
        raise InputError(f"{path}: unknown table {unknown[0]!r}; there are {', '.join(_TABLES)}")
    models, sources = told.get("models", {}), told.get("sources", [])
    if not isinstance(models, dict) or not all(isinstance(entry, dict) for entry in models.values()):
        raise InputError(f'{path}: models: expected tables such as [models.m{_PAPER}] with base = "m4"')
    if not isinstance(sources, list) or not all(isinstance(name, str) and name for name in sources):
        raise InputError(f'{path}: sources: expected a list of names such as ["OurShop"]')
    seen: dict[str, str] = {}
    for name, entry in models.items():
        try:
            check_name(name)
        except InputError as error:
            raise InputError(f"{path}: models.{name}: {error}") from error
        if seen.setdefault(name.lower(), name) != name:
            raise InputError(f"{path}: models.{name}: there is {seen[name.lower()]} too; more than case has to differ")
        if "published_acc10" in entry:
            raise InputError(
                f"{path}: models.{name}.published_acc10: only the paper's models have a published figure; leave it out"
            )
    return {**shipped, "models": {**shipped["models"], **models}, "sources": sources}


def timm_backbone(name: str, words: Iterable[str]) -> str:
    """A backbone that is none of Table 4's words: timm's name of it.

    Raises:
        KeyError: timm has no such network; the message lists the words and near names.
    """
    known = f"there are {', '.join(words)}, and timm's names"
    if not _TIMM.fullmatch(name):
        raise KeyError(f"backbone {name!r}: {known}")

    from harness.retrieval.backbones import check_backbone

    try:
        check_backbone(name)
    except InputError as error:
        raise KeyError(f"{error}; {known}") from error
    return name


def laid_over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A table with another one's values over its own, table by table."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        result[key] = laid_over(old, value) if both else value  # type: ignore[arg-type]
    return result
