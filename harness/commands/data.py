"""`data`: render a data set, examine one, export its ground truth."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.commands.options import (
    WORK,
    Data,
    Json,
    Seed,
    Sources,
    SplitOption,
    Work,
    emit,
    plain,
    read_photos,
    show,
    show_problems,
    source_paths,
    workplace,
    writable_file,
    writable_folder,
)

if TYPE_CHECKING:
    from harness.data.duplicates import DuplicateReport

_DEEPFASHION2 = "DeepFashion2"

data_app = typer.Typer(help="The data set: render one, examine one, export its ground truth.", no_args_is_help=True)


@data_app.command("render")
def data_render(
    folder: Annotated[Path, typer.Argument(help="Where to.")],
    seed: Seed = 0,
    train: Annotated[int | None, typer.Option(min=2, help="Photos of the train split.")] = None,
    validation: Annotated[int | None, typer.Option(min=2, help="Photos of the validation split.")] = None,
    test: Annotated[int | None, typer.Option(min=2, help="Photos of the test split.")] = None,
    layout: Annotated[
        str, typer.Option("--as", metavar="DATA SET", help=f"Whose layout: {_DEEPFASHION2}, or a training source's.")
    ] = _DEEPFASHION2,
    garments: Annotated[int | None, typer.Option(min=12, help="Different garments of a training source.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Render a data set in the layout of DeepFashion2 or of a training source; the same seed gives the same bytes."""
    from harness.progress import bars

    sizes = {"num_train": train, "num_validation": validation, "num_test": test}
    given = {name: size for name, size in sizes.items() if size is not None}
    if layout != _DEEPFASHION2:
        if given:
            option = next(iter(given)).replace("num_", "--")
            raise typer.BadParameter(f"{layout} has no splits: say --garments instead", param_hint=option)
        _render_source(folder, layout, seed, garments, workers)
        return
    if garments is not None:
        raise typer.BadParameter(
            f"{_DEEPFASHION2} is sized by --train, --validation and --test", param_hint="--garments"
        )
    from harness.data.rendered import RenderSettings, render

    settings = RenderSettings(seed=seed, **given)
    with bars() as report:
        render(folder, settings, workers=workers, progress=report("render photos"))
    show(f"rendered {settings.num_train + settings.num_validation + settings.num_test} photos into {folder}")


def _render_source(folder: Path, layout: str, seed: int, garments: int | None, workers: int) -> None:
    from harness.data.rendered.layouts import LAYOUTS, LayoutSettings, render_layout
    from harness.progress import bars

    if layout not in LAYOUTS:
        known = ", ".join((_DEEPFASHION2, *LAYOUTS))
        raise typer.BadParameter(f"there is no layout {layout!r}; there are {known}", param_hint="--as")
    sizes = {} if garments is None else {"num_garments": garments}
    settings = LayoutSettings(layout=layout, seed=seed, **sizes)
    with bars() as report:
        num_garments, num_photos = render_layout(folder, settings, workers=workers, progress=report("render photos"))
    show(f"rendered {num_photos:,} photos of {num_garments:,} garments into {folder}, as {layout}")


@data_app.command("check")
def data_check(
    folder: Annotated[
        Path, typer.Argument(help="A DeepFashion2 folder; with --source that source's folder, or a CSV file.")
    ],
    decode: Annotated[Literal["none", "sample", "all"], typer.Option(help="Photos to decode.")] = "sample",
    source: Annotated[
        str | None,
        typer.Option(help="Street2Shop, DARN, MVC, MPV or Zalando; any name for a CSV file (image,box,item,domain)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Count a data set and list everything that is wrong with it."""
    if source is not None:
        _check_source(source, folder, decode, as_json)
        return
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


def _check_source(name: str, path: Path, decode: str, as_json: bool) -> None:
    from harness.data.sources import SAMPLE_PHOTOS, examine
    from harness.progress import bars

    most = {"none": 0, "sample": SAMPLE_PHOTOS, "all": None}[decode]
    with bars() as report:
        found = examine(name, path, decode=most, progress=report("check photos"))
    if as_json:
        emit({"ok": found.ok, **asdict(found)})
    else:
        counts = [(key, value) for key, value in asdict(found).items() if key.startswith("num_")]
        show(found.source, *(f"  {key.replace('_', ' ')}: {value:,}" for key, value in counts))
        for fate, is_left_out in (("left out", True), ("used all the same", False)):
            odd = [one for one in found.oddities if one.left_out == is_left_out]
            show(*([f"{fate}:"] if odd else []), *(f"  {one.count:,} × {one.kind}; first: {one.first}" for one in odd))
        if found.licence is not None:
            show(f"licence: {found.licence}")
        can = "can be trained on" if found.ok else "cannot be trained on: fewer than two items have two views"
        show(f"{path}: {can}{', RENDERED data' if found.rendered else ''}")
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


@data_app.command("duplicates")
def data_duplicates(
    data: Data,
    source: Sources = None,
    leave_out: Annotated[
        bool, typer.Option("--leave-out-validation", help="Take copies of validation crops out as well.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write the report here, as JSON.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a core if not given.")] = None,
    work: Work = WORK,
    as_json: Json = False,
) -> None:
    """Find copies of photos within and across training sources, and of the validation split among them."""
    from harness.jobs.duplicates import find_duplicates
    from harness.progress import bars

    folder = workplace(work).root
    if out is not None:
        writable_file(out)
    with bars() as report:
        found = find_duplicates(
            data, source_paths(source), folder, leave_out_guarded=leave_out, workers=workers, report=report
        )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found.as_json(), indent=1) + "\n")
    if as_json:
        emit(found.as_json())
    else:
        _show_duplicates(found)


def _show_duplicates(found: DuplicateReport) -> None:
    from rich.table import Table

    reasons = ("unreadable", "same_item", "other_item", "across", "left_out")
    table = Table("source", "crops", "kept", "taken out", "guarded")
    for one in found.sources:
        gone = [f"{getattr(one, f'num_{name}'):,} {name.replace('_', ' ')}" for name in reasons]
        told = "\n".join(text for text in gone if not text.startswith("0 "))
        table.add_row(one.source, f"{one.num_garments:,}", f"{one.num_kept:,}", told or "-", f"{one.num_guarded:,}")
    show(table)
    for pair in found.shared:
        show(f"{pair.count:,} crops of {pair.taken_from} are copies of crops of {pair.kept_in}")
    before, after = found.num_identities_before, found.num_identities_after
    show(
        f"items: {before:,} before, {after:,} after; {found.num_joined_within:,} joined within a source by another one"
    )
    show(f"guarded: {', '.join(found.guard) or 'nothing'}")
    for one in found.sources:
        show(*(f"{one.source}: {kind}: {example}" for kind, example in one.examples.items()))
