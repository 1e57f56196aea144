"""`check`: what is wrong with anyone's result file, a repaired copy of it, and how two of them differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from harness.commands.options import Json, SplitOption, emit, read_photos, show, writable_file
from harness.types import SPLITS, InputError, Photos, Split

app = typer.Typer()

_MOST_LINES = 12


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE [OTHER]", help="A challenge JSON, plain or zipped.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="A DeepFashion2 folder, to check ids and boxes against.")
    ] = None,
    split: SplitOption = "validation",
    query: Annotated[Path | None, typer.Option("--query", help="val_query.json, to check ids against.")] = None,
    gallery: Annotated[Path | None, typer.Option("--gallery", help="val_gallery.json, with --query.")] = None,
    fix: Annotated[Path | None, typer.Option("--fix", help="Write a copy, mended where only one way is right.")] = None,
    diff: Annotated[bool, typer.Option("--diff", help="Tell how OTHER differs from FILE instead.")] = False,
    as_json: Json = False,
) -> None:
    """List everything that is wrong with anyone's challenge JSON; mend it; compare two."""
    if len(files) != (2 if diff else 1):
        raise typer.BadParameter(f"expected {'two files' if diff else 'one file'}, got {len(files)}", param_hint="FILE")
    if (query is None) != (gallery is None):
        raise typer.BadParameter("--query and --gallery belong together", param_hint="--query")
    if query is not None and data is not None:
        raise typer.BadParameter("the photos are told by --data or by --query and --gallery, not by both")
    if diff and (fix or data or query):
        raise typer.BadParameter("compares two files and takes neither --fix nor --data nor --query", param_hint="--diff")
    try:
        if diff:
            _compare(files[0], files[1], as_json=as_json)
        else:
            photos = _known_photos(data, split, query, gallery)
            is_ok = _check(files[0], photos, as_json) if fix is None else _fix(files[0], fix, photos, as_json)
            if not is_ok:
                raise typer.Exit(1)
    except InputError as error:
        if not as_json:
            raise
        problem = {"where": "", "what": str(error), "severity": "error", "kind": "input"}
        emit({"ok": False, "num_rows": None, "problems": [problem]})
        raise typer.Exit(1) from None


def _check(file: Path, photos: Any, as_json: bool) -> bool:
    from submissions.checker import check_submission

    report = check_submission(file, photos)
    if as_json:
        emit(_as_object(report))
    else:
        _show_report(report, file)
    return report.ok


def _fix(file: Path, out: Path, photos: Any, as_json: bool) -> bool:
    from submissions.repair import repair_submission

    found = repair_submission(file, writable_file(out), photos)
    if as_json:
        repairs = [{"what": one.what, "num": one.num, "rows": list(one.first_rows)} for one in found.repairs]
        emit({**_as_object(found.after), "written": str(out), "repairs": repairs})
        return found.after.ok
    for one in found.repairs:
        places = ", ".join(f"[{row}]" for row in one.first_rows[:3]) + (", …" if len(one.first_rows) > 3 else "")
        show(f"mended: {one.num:,} × {one.what} (rows {places})")
    if not found.repairs:
        show("nothing to mend: an exact copy")
    _show_report(found.after, out)
    return found.after.ok


def _compare(first: Path, second: Path, *, as_json: bool) -> None:
    from submissions.difference import compare_submissions

    found = compare_submissions(first, second)
    if as_json:
        emit(found.as_object())
    else:
        show(*found.lines())


def _known_photos(data: Path | None, split: Any, query: Path | None, gallery: Path | None) -> Any:
    """The photos that the file may speak of; None if nothing was said of them."""
    from submissions.photos import KnownPhotos

    if query is not None and gallery is not None:
        from harness.scoring.truth import Gallery, Queries

        return KnownPhotos.of_truth(Queries.from_json(query), Gallery.from_json(gallery))
    if data is None:
        return None
    from harness.data.photos import photo_size

    found: Split = read_photos(data, split)
    return KnownPhotos.of_split(
        split,
        found.photos,
        size_of=lambda image_id: photo_size(found.photo_path(image_id)),
        other_splits=lambda: _other_splits(data, split),
    )


def _other_splits(data: Path, split: str) -> dict[str, Photos]:
    """The photos of the other splits of the folder, as far as it has them."""
    found: dict[str, Photos] = {}
    for name in SPLITS:
        if name != split and (data / name / "image").is_dir():
            found[name] = read_photos(data, name).photos
    return found


def _as_object(report: Any) -> dict[str, Any]:
    fields = ("where", "what", "severity", "kind")
    return {
        "ok": report.ok,
        "num_rows": report.num_rows,
        "problems": [{field: getattr(one, field) for field in fields} for one in report.problems],
        "kinds": [
            {
                "kind": one.kind.name,
                "severity": one.kind.severity,
                "field": one.field_name,
                "num_problems": one.num_problems,
                "num_rows": one.num_rows,
            }
            for one in report.groups
        ],
    }


def _show_report(report: Any, file: Path) -> None:
    """A line a kind of problem, and the verdict."""
    groups = report.groups
    for severity in ("error", "warning"):
        found = [one for one in groups if one.kind.severity == severity]
        show(*(f"{severity}: {one.summary()}" for one in found[:_MOST_LINES]))
        if len(found) > _MOST_LINES:
            show(f"… and {len(found) - _MOST_LINES:,} more kinds of {severity}s (all of them with --json)")
    counts = {
        severity: sum(one.num_problems for one in groups if one.kind.severity == severity)
        for severity in ("error", "warning")
    }
    numbers = [f"{num:,} {name}{'' if num == 1 else 's'}" if num else f"no {name}s" for name, num in counts.items()]
    show(f"{file}: {', '.join(numbers)}, {report.num_rows or 0:,} rows")
