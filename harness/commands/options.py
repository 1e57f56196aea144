"""What the commands share: options, the two ways to print, and how an argument becomes an object."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from harness.types import SPLITS, InputError, SplitName

Work = Annotated[Path, typer.Option("--work", help="Working folder: models, store, leaderboard.")]
Data = Annotated[Path, typer.Option("--data", help="A DeepFashion2 folder, real or rendered.")]
SplitOption = Annotated[Literal["train", "validation", "test"], typer.Option("--split", help="Which split.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of data, weights, data order and augmentation.")]
Name = Annotated[str, typer.Argument(help="Which; run.py models lists them.")]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Which; run.py models lists them.")]
Spec = Annotated[
    str, typer.Argument(help="An ensemble: 'm1-16 with WBF_5', 'm4 + GT', or a name from submissions/ensembles.")
]

Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="NAME=PATH",
        help="Further garments: Street2Shop, DARN, MVC, MPV or Zalando and its folder, or any name and a CSV.",
    ),
]

Deduplicate = Annotated[
    bool | None,
    typer.Option("--deduplicate/--no-deduplicate", help="Leave copies of crops out; the default with --source."),
]
LeaveOut = Annotated[bool, typer.Option("--leave-out-validation", help="Leave copies of validation crops out as well.")]

Engine = Annotated[
    Literal["auto", "torch", "faiss"],
    typer.Option("--engine", help="What makes the products of searches; the answers are the same."),
]
Memory = Annotated[
    float | None,
    typer.Option(
        "--memory",
        metavar="GB",
        min=0.01,
        max=1e6,
        help="For searches and projections, beside the features; sizes of blocks follow, answers stay the same.",
    ),
]

Board = Annotated[
    str | None,
    typer.Option(
        "--board",
        metavar="PATH|URL",
        envvar="LEADERBOARD",
        help="A leaderboard that is not the working folder's: a file, or a team's postgresql+psycopg://host/name.",
    ),
]

WORK = Path("work")

MOST_SHOWN = 20
"""Problems of one severity that are printed; ``--json`` has them all."""


def emit(value: dict[str, Any]) -> None:
    """The one JSON object of ``--json``."""
    sys.stdout.write(json.dumps(value) + "\n")


def show(*parts: Any) -> None:
    """Tables and text on standard output."""
    from rich.console import Console

    console = Console()
    for part in parts:
        if isinstance(part, str):  # whole lines for whoever pipes them, and square brackets as they are
            console.print(part, markup=False, highlight=False, soft_wrap=True)
        else:
            console.print(part)


def workplace(work: Path, board: str | None = None) -> Any:
    """The working folder; with a board of its own, or another one."""
    from harness.workplace import Workplace

    return Workplace(writable_folder(work), board)


def board_name(path_or_url: str) -> str:
    """A board in messages: no password of a URL."""
    if "://" not in path_or_url:
        return path_or_url
    named = re.sub(r"(?<=://)([^:/@]*):[^/]*@", r"\1:***@", path_or_url)
    return re.sub(r"(?i)([?&]\w*(?:pass|pwd)\w*=)[^&]*", r"\1***", named)


def writable_folder(path: Path) -> Path:
    """A folder that can be written into; asked before hours of work, not after them."""
    existing = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not existing.is_dir():
        raise InputError(f"{path}: {existing} is not a folder; name another")
    if not os.access(existing, os.W_OK):
        raise InputError(f"{path}: {existing} cannot be written to; name another folder")
    return path


def writable_file(path: Path) -> Path:
    """A file that can be written; whatever else bears the name is left alone."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is there and is no regular file; name another")
    writable_folder(path.parent)
    return path


def show_problems(problems: list[tuple[str, str, str]]) -> None:
    """Severity, place and text of each; of many only the first."""
    for severity in ("error", "warning"):
        found = [one for one in problems if one[0] == severity]
        show(*(f"{severity}: {where}: {what}" for _, where, what in found[:MOST_SHOWN]))
        if len(found) > MOST_SHOWN:
            show(f"… and {len(found) - MOST_SHOWN:,} more {severity}s (all of them with --json)")


def plain(value: Any) -> str:
    """A value as a person reads it."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(one)}" for key, one in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def read_photos(folder: Path, split: SplitName) -> Any:
    """One split of a data set."""
    from harness.data.deepfashion2 import read_split

    return read_split(folder, split)


def source_paths(given: list[str] | None) -> dict[str, Path]:
    """Name and place of every ``NAME=PATH``."""
    paths: dict[str, Path] = {}
    for text in given or []:
        name, is_there, path = text.partition("=")
        if not is_there or not name or not path or name in paths:
            raise typer.BadParameter(f"{text!r}: expected NAME=PATH, each name once", param_hint="--source")
        paths[name] = Path(path)
    return paths


def read_sources(given: list[str] | None) -> list[Any]:
    """The garments of every ``NAME=PATH``."""
    from harness.data.sources import read_source

    return [read_source(name, path) for name, path in source_paths(given).items()]


def refuse_leave_out(leave_out: bool, deduplicate: bool | None, source: list[str] | None) -> None:
    """Copies of validation crops are found by de-duplication alone."""
    if leave_out and not (bool(source) if deduplicate is None else deduplicate):
        raise typer.BadParameter("needs --deduplicate, or a --source", param_hint="--leave-out-validation")


def without_copies(data: Path, work: Path, leave_out: bool, report: Any) -> Any:
    """A function that takes copies out of sources and says what went.

    It returns the rest, and what the training has to know of it by the names of its arguments.

    Args:
        data: the DeepFashion2 folder, whose validation split is guarded.
        work: the working folder.
        leave_out: copies of validation crops as well.
        report: where progress is shown.
    """
    from harness.jobs import duplicates
    from harness.training.processes import first_does, join, place

    def take_out(parts: list[Any]) -> tuple[list[Any], dict[str, Any]]:
        guard = duplicates.guarded(data, parts)
        join()
        left, found = first_does(
            lambda: duplicates.without_copies(parts, guard, work, leave_out_guarded=leave_out, report=report)
        )
        if place().rank == 0:
            for line in duplicates.in_words(found):
                typer.echo(line, err=True)
        return left, {
            "garments_sha256": found.kept_sha256,
            "copied_from": duplicates.copied_from(guard, found),
        }

    return take_out


def split_name(text: str, option: str = "--split") -> SplitName:
    """A split by its name, for an option that may be given twice."""
    for name in SPLITS:
        if name == text:
            return name
    raise typer.BadParameter(f"{text!r} is not one of {', '.join(SPLITS)}", param_hint=option)


def open_pipeline(
    work: Path,
    data: Path,
    split: SplitName,
    report: Any,
    *,
    board: str | None = None,
    engine: str = "auto",
    memory: float | None = None,
) -> Any:
    """The stages over one split in a working folder; engine and memory (GB) are of searches."""
    from harness.pipeline import Pipeline
    from harness.ranking.search import SearchOptions

    options = SearchOptions(engine=engine, memory_bytes=None if memory is None else int(memory * 1e9))  # type: ignore[arg-type]
    return Pipeline(workplace(work, board), read_photos(data, split), report=report, search_options=options)


def inference_settings(given: dict[str, Any]) -> Any:
    """How detectors are to look at photos; None where nothing was given.

    Args:
        given: the options that were, by name; ``scales`` as text.
    """
    from pydantic import ValidationError

    from harness.detection.inference_settings import InferenceSettings

    if not given:
        return None
    try:
        return InferenceSettings(**given | ({"scales": given["scales"].split(",")} if "scales" in given else {}))
    except ValidationError as error:
        first = error.errors()[0]
        option = f"--{str(first['loc'][0]).replace('_', '-')}"
        raise typer.BadParameter(f"{first['input']!r}: {first['msg']}", param_hint=option) from error


def fusion_settings(given: list[str]) -> Any:
    """How boxes are to be fused; None where nothing was given.

    Args:
        given: ``setting=value`` each, values as JSON or plain text; or ``defaults`` alone.
    """
    from pydantic import ValidationError

    from harness.detection.fusion import FusionSettings

    if not given:
        return None
    values: dict[str, Any] = {}
    for text in given if given != ["defaults"] else []:
        name, is_there, value = text.partition("=")
        if not is_there:
            raise typer.BadParameter(f"{text!r}: expected SETTING=VALUE, or defaults", param_hint="--fusion")
        try:
            values[name.strip()] = json.loads(value)
        except ValueError:
            values[name.strip()] = value.strip()
    try:
        return FusionSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "settings"
        known = f"; there are {', '.join(FusionSettings.model_fields)}" if first["type"] == "extra_forbidden" else ""
        raise typer.BadParameter(f"{place}: {first['msg']}{known}", param_hint="--fusion") from error


def spec_of(spec: str) -> str:
    """The spec of a named ensemble, or the text itself."""
    from submissions.named import named_ensembles

    named = named_ensembles()
    if spec in named:
        return named[spec].spec
    if re.fullmatch(r"[\w-]*-w[\w-]*", spec):  # no ensemble is written so, but all the named ones are
        raise InputError(f"there is no ensemble named '{spec}'; there are {', '.join(named)}")
    return spec


def one_of(recipes: Any, name: str, what: str) -> Any:
    """A recipe by its name; an unknown name lists those there are."""
    if name not in recipes:
        raise InputError(f"unknown {what} '{name}'; there are {', '.join(recipes)}")
    return recipes[name]
