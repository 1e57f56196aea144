"""`check`: what is wrong with anyone's result file, a repaired copy of it, and how two of them differ."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
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
        raise typer.BadParameter(
            "compares two files and takes neither --fix nor --data nor --query", param_hint="--diff"
        )
    try:
        if diff:
            _compare(files[0], files[1], as_json=as_json)
        else:
            photos = _known_photos(data, split, query, gallery)
            inputs = [one for one in (data, query, gallery) if one is not None]
            if not (_check(files[0], photos, as_json) if fix is None else _fix(files[0], fix, photos, inputs, as_json)):
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


def _fix(file: Path, out: Path, photos: Any, inputs: list[Path], as_json: bool) -> bool:
    from submissions.repair import repair_submission

    found = repair_submission(file, writable_file(out), photos, inputs)
    if as_json:
        repairs = [{"what": one.what, "num": one.num, "rows": list(one.first_rows)} for one in found.repairs]
        emit({**_as_object(found.after), "written": str(out), "repairs": repairs})
        return found.after.ok
    for one in found.repairs:
        places = ", ".join(f"[{row}]" for row in one.first_rows[:3]) + (", …" if len(one.first_rows) > 3 else "")
        show(f"mended: {one.num:,} × {one.what} (rows {places})" if places else f"mended: {one.what}")
    if not found.repairs:
        show("nothing to mend: an exact copy")
    _show_report(found.after, out)
    return found.after.ok


def _compare(first: Path, second: Path, *, as_json: bool) -> None:
    from submissions.difference import compare_submissions

    found = compare_submissions(first, second)
    if as_json:
        emit(_difference_as_object(found))
    else:
        _show_difference(found)


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


def _other_splits(data: Path, split: str) -> Iterator[tuple[str, Photos]]:
    """The other splits of the folder, as far as it has them; train comes last, since it takes longest to read."""
    for name in reversed(SPLITS):
        if name != split and (data / name / "image").is_dir():
            yield name, read_photos(data, name).photos


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
                "what": one.kind.what,
                "num_problems": one.num_problems,
                "num_rows": one.num_rows,
            }
            for one in report.groups
        ],
    }


def _show_report(report: Any, file: Path) -> None:
    """A line a kind of problem, and the verdict."""
    groups = report.groups
    leading = [*takewhile(lambda one: not one.num_rows, groups)]
    show(*(f"{one.kind.severity}: {one.summary()}" for one in leading))
    for severity in ("error", "warning"):
        found = [one for one in groups[len(leading) :] if one.kind.severity == severity]
        show(*(f"{severity}: {one.summary()}" for one in found[:_MOST_LINES]))
        if len(found) > _MOST_LINES:
            show(f"… and {len(found) - _MOST_LINES:,} more kinds of {severity}s (all of them with --json)")
    counts = {
        severity: sum(one.num_problems for one in groups if one.kind.severity == severity)
        for severity in ("error", "warning")
    }
    numbers = [f"{num:,} {name}{'' if num == 1 else 's'}" if num else f"no {name}s" for name, num in counts.items()]
    show(f"{file}: {', '.join(numbers)}, {_rows(report.num_rows or 0)}")


def _rows(num: int) -> str:
    return f"{num:,} row{'' if num == 1 else 's'}"


def _difference_as_object(found: Any) -> dict[str, Any]:
    alone = [
        {"num": num, "examples": examples} for num, examples in zip(found.num_alone, found.examples_alone, strict=True)
    ]
    ranks = found.first_ranks.tolist()
    return {
        "same": found.is_none,
        "files": [str(path) for path in found.paths],
        "num_rows": list(found.num_rows),
        "num_matched": found.num_matched,
        "hint": found.hint,
        "rounded_to_decimals": found.decimals,
        "only_in_first": alone[0],
        "only_in_second": alone[1],
        "scores": {
            "num_differing": found.num_scores,
            "largest_change": found.largest_score_change,
            "examples": found.example_scores,
        },
        "galleries": {
            "num_differing": found.num_galleries,
            "first_differing_rank": {str(rank): num for rank, num in enumerate(ranks, 1) if num},
            "overlap": found.overlap and {str(k): share for k, share in found.overlap.items()},
            "jaccard": found.jaccard and {str(k): share for k, share in found.jaccard.items()},
            "examples": found.example_galleries,
        },
    }


def _show_difference(found: Any) -> None:
    """What differs, a line each."""
    from submissions.difference import RANK_GROUPS

    names = [str(path) for path in found.paths]
    for sign, name, num in zip("AB", names, found.num_rows, strict=True):
        show(f"{sign} = {name}: {_rows(num)}")
    rounded = "" if found.decimals is None else f" (rounded to {found.decimals} decimals, as one of them is)"
    show(f"in both: {_rows(found.num_matched)} of the same photo, box and category{rounded}")
    if found.hint is not None:
        show(found.hint)
    for sign, num, examples in zip("AB", found.num_alone, found.examples_alone, strict=True):
        if num:
            shown = "; ".join(
                f"[{one['row']}] photo {one['query_image_id']}, class {one['query_cls']}, box {one['query_bbox']}"
                for one in examples[:2]
            )
            show(f"only in {sign}: {_rows(num)}: {shown}{'; …' if num > 2 else ''}")
    if found.num_scores:
        one = found.example_scores[0]
        before, after = one["scores"]
        show(
            f"other scores: {_rows(found.num_scores)}, by at most {found.largest_score_change:.4g}; the first is "
            f"A[{one['rows'][0]}] {before:.4g}, B[{one['rows'][1]}] {after:.4g}"
        )
    if found.num_galleries:
        one = found.example_galleries[0]
        counts = ", ".join(
            f"{first if first == last else f'{first}–{last}'}: {int(found.first_ranks[first - 1 : last].sum()):,}"
            for first, last in RANK_GROUPS
        )
        show(
            f"other gallery lists: {_rows(found.num_galleries)}; the first is A[{one['rows'][0]}], "
            f"B[{one['rows'][1]}], from rank {one['first_rank']} on",
            f"    first rank that differs: {counts}",
        )
    if found.overlap and found.num_galleries:
        shares = ", ".join(f"top {k} {share:.1%}" for k, share in found.overlap.items())
        show(f"    shared entries, mean of all rows in both: {shares}")
    if found.is_none:
        show("they say the same")
