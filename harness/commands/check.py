"""`check`: what is wrong with anyone's result file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands.options import Json, SplitOption, emit, read_photos, show, show_problems

app = typer.Typer()


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A challenge JSON.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="A DeepFashion2 folder, to check the ids against.")
    ] = None,
    split: SplitOption = "validation",
    as_json: Json = False,
) -> None:
    """List everything that is wrong with anyone's challenge JSON."""
    from submissions.checker import check_submission

    found = check_submission(file, None if data is None else read_photos(data, split))
    problems = [{"where": one.where, "what": one.what, "severity": one.severity} for one in found.problems]
    if as_json:
        emit({"ok": found.ok, "num_rows": found.num_rows, "problems": problems})
    else:
        show_problems([(one.severity, one.where or str(file), one.what) for one in found.problems])
        show(f"{file}: {'no errors' if found.ok else 'has errors'}, {found.num_rows or 0:,} rows")
    if not found.ok:
        raise typer.Exit(1)
