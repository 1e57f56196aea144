"""`--plan` of `score` and `submit`: what would run, and whether memory and disk suffice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from harness.commands.options import emit, open_pipeline, show, spec_of
from harness.types import SplitName

if TYPE_CHECKING:
    from rich.table import Table

    from harness.jobs.planning import Plan, PlannedStage

WithPlan = Annotated[
    bool,
    typer.Option("--plan", help="Only tell which stages are missing, and what they will take of memory and disk."),
]


def show_plan(
    work: Path,
    data: Path,
    split: SplitName,
    spec: str,
    *,
    every_box: bool = True,
    decimals: int = 3,
    engine: str = "auto",
    memory: float | None = None,
    as_json: bool = False,
) -> NoReturn:
    """Print what an ensemble would take; the arguments are those of the command.

    Raises:
        typer.Exit: always; with 1 where it does not fit.
    """
    from harness.jobs.planning import plan
    from harness.progress import silent

    pipeline = open_pipeline(work, data, split, silent, engine=engine, memory=memory)
    found = plan(pipeline, spec_of(spec), every_box=every_box, decimals=decimals)
    if as_json:
        emit(found.as_json() | {"split": split, "rendered": pipeline.split.rendered})
        raise typer.Exit(0 if found.fits else 1)
    what = f"{'RENDERED ' if pipeline.split.rendered else ''}{split}"
    show(f"{found.ensemble} on {what}: {len(found.missing)} of {len(found.stages)} stages would run", "")
    show(_table(found), "", *_words(found))
    raise typer.Exit(0 if found.fits else 1)


def _table(found: Plan) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from harness.preflight import gigabytes

    table = Table(box=SIMPLE_HEAD, show_edge=False, collapse_padding=True)
    for heading, side in (("stage", "left"), ("", "left"), ("rows", "right"), ("memory", "right"), ("disk", "right")):
        table.add_column(heading, justify=side, overflow="fold")  # type: ignore[arg-type]
    for stage in found.stages:
        about = "about " if stage.is_guessed else ""
        sizes = [gigabytes(size) if size and not stage.is_there else "" for size in _sizes(stage)]
        state = "in the store" if stage.is_there else "missing"
        table.add_row(
            stage.name, state, f"{about}{stage.rows:,}", *(f"{about}{size}" if size else "" for size in sizes)
        )
    return table


def _words(found: Plan) -> list[str]:
    from harness.preflight import gigabytes

    memory, disk = found.room.memory_bytes, found.room.disk_bytes
    lines = [
        f"disk: {gigabytes(found.disk_bytes)} needed in {found.where}, {gigabytes(disk or 0)} free",
        f"memory: {gigabytes(found.memory_bytes)} needed at most, beside models"
        + ("" if memory is None else f"; {gigabytes(memory)} free"),
    ]
    if any(stage.is_guessed for stage in found.missing):
        lines.append("'about' rests on a guess of how many boxes there will be: run.py detect makes them")
    if not found.fits:
        hints = [hint for stage in found.missing for hint in stage.hints(found.room)]
        lines.append(f"it does not fit{': ' if hints else ''}{'; '.join(dict.fromkeys(hints))}")
    return lines


def _sizes(stage: PlannedStage) -> tuple[int, int]:
    return stage.memory_bytes, stage.disk_bytes
