"""`data`: render a data set, examine one, export its ground truth."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.commands.options import (
    Json,
    Seed,
    SplitOption,
    emit,
    plain,
    read_photos,
    show,
    show_problems,
    writable_folder,
)

data_app = typer.Typer(help="The data set: render one, examine one, export its ground truth.", no_args_is_help=True)


@data_app.command("render")
def data_render(
    folder: Annotated[Path, typer.Argument(help="Where to.")],
    seed: Seed = 0,
    train: Annotated[int | None, typer.Option(min=2, help="Photos of the train split.")] = None,
    validation: Annotated[int | None, typer.Option(min=2, help="Photos of the validation split.")] = None,
    test: Annotated[int | None, typer.Option(min=2, help="Photos of the test split.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Render a data set in DeepFashion2's layout; the same seed gives the same bytes."""
    from harness.data.rendered import RenderSettings, render
    from harness.progress import bars

    sizes = {"num_train": train, "num_validation": validation, "num_test": test}
    settings = RenderSettings(seed=seed, **{name: size for name, size in sizes.items() if size is not None})
    with bars() as report:
        render(folder, settings, workers=workers, progress=report("render photos"))
    show(f"rendered {settings.num_train + settings.num_validation + settings.num_test} photos into {folder}")


@data_app.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(help="A DeepFashion2 folder.")],
    decode: Annotated[Literal["none", "sample", "all"], typer.Option(help="Photos to decode.")] = "sample",
    as_json: Json = False,
) -> None:
    """Count a data set and list everything that is wrong with it."""
    from harness.data.doctor import check
    from harness.progress import bars

    with bars() as report:
        found = check(folder, decode=decode, progress=report("check data"))
    problems = [{"where": one.where, "what": one.what, "fatal": one.fatal} for one in found.problems]
    if as_json:
        splits = [asdict(one) for one in found.splits]
        emit({"ok": found.ok, "rendered": found.rendered, "splits": splits, "problems": problems})
    else:
        for one in found.splits:
            counts = list(asdict(one).items())[1:]
            show(one.name, *(f"  {key.replace('_', ' ')}: {plain(value)}" for key, value in counts))
        show_problems([("error" if one.fatal else "warning", one.where, one.what) for one in found.problems])
        show(
            f"{folder}: {'can be read' if found.ok else 'cannot be read'}{', RENDERED data' if found.rendered else ''}"
        )
    if not found.ok:
        raise typer.Exit(1)


@data_app.command("export")
def data_export(
    folder: Annotated[Path, typer.Argument(help="A DeepFashion2 folder.")],
    out: Annotated[Path, typer.Option("--out", help="Where to.")],
    split: SplitOption = "validation",
) -> None:
    """Write val_query.json, val_gallery.json and the COCO ground truth."""
    from harness.data.exports import write_exports
    from harness.progress import bars

    with bars() as report:
        paths = write_exports(read_photos(folder, split), writable_folder(out), progress=report("export"))
    show(*map(str, paths))
