"""`evaluate`: the score of anyone's result file and where it loses, without photos, models or torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from harness.commands.options import Json, SplitOption, emit, show, writable_file
from harness.commands.tables import figures, ladder_table, plain_table
from harness.types import CATEGORIES, RANKS, InputError

if TYPE_CHECKING:
    from harness.scoring.examination import Examination

app = typer.Typer()

_WIDEST = max(map(len, CATEGORIES))
"""So that the tables of slices line up."""


@app.command()
def evaluate(
    file: Annotated[Path, typer.Argument(help="A challenge JSON.")],
    query: Annotated[Path, typer.Option("--query", help="val_query.json.")],
    gallery: Annotated[Path, typer.Option("--gallery", help="val_gallery.json.")],
    protocol: Annotated[
        Literal["official", "strict"],
        typer.Option("--protocol", help="Whose verdict the ledger, the slices and acc in --json give."),
    ] = "official",
    ledger: Annotated[
        Path | None, typer.Option("--ledger", help="Write what became of every query: *.parquet or *.csv.")
    ] = None,
    gallery_detections: Annotated[
        Path | None,
        typer.Option(
            "--gallery-detections", help="COCO results of the shop photos: tells what the search could not find."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="A DeepFashion2 folder: take scale, occlusion, … from its annotations."),
    ] = None,
    split: SplitOption = "validation",
    with_ladder: Annotated[bool, typer.Option("--ladder", help="Show what each perfect stage would gain.")] = False,
    with_slices: Annotated[
        bool, typer.Option("--slices", help="Show the score by category, scale, occlusion, …, number of answers.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Score anyone's challenge JSON by the official and the strict protocol, and say where it loses."""
    from harness.scoring.examination import examine
    from harness.scoring.ledger import GalleryBoxes, check_suffix
    from harness.scoring.results import Results
    from harness.scoring.truth import read_truth, with_attributes

    if ledger is not None:
        check_suffix(writable_file(ledger))
        for given in (file, query, gallery, gallery_detections):
            if given is not None and ledger.exists() and given.exists() and ledger.samefile(given):
                raise InputError(
                    f"{ledger}: is read by this command, so the ledger would replace it; name another file"
                )
    queries, answers = read_truth(query, gallery)
    if data is not None:
        from harness.data.deepfashion2 import read_items_of

        queries = with_attributes(queries, read_items_of(data, split, queries.image_ids), f"{data / split}")
    searched = None
    if gallery_detections is not None:
        from harness.data.coco import read_coco_results

        detected = read_coco_results(gallery_detections)
        searched = GalleryBoxes(detected.image_ids, detected.boxes_xyxy)
    try:
        results = Results.from_json(file)
    except InputError as error:
        if not file.exists():
            raise
        raise InputError(f"{error} (run.py check {file} lists all that is wrong, --fix mends some of it)") from error
    found = examine(results, queries, answers, protocol, searched)
    if ledger is not None:
        found.ledger.write(ledger)
    if as_json:
        emit(found.as_json())
        return
    on = " of RENDERED photos, not DeepFashion2" if found.is_rendered else ""
    show(f"{file}: {len(results):,} rows, {found.score.num_queries:,} queries{on}", "", _scores(found))
    show("", *found.differences[0].sentences())
    show("", f"What became of the queries, {protocol} protocol", "", _ledger(found))
    if with_ladder:
        show("", "If one stage after another were perfect, official protocol", "", ladder_table(found.rungs))
        show("Bounds from the file alone: what was not detected cannot be searched again,")
        show("and where several boxes go to an item the best answer counts.")
    if with_slices:
        show("", f"Parts of the queries, {protocol} protocol")
        show(*(part for table in _slices(found) for part in ("", table)))
    show("", *(f"warning: {doubt}" for doubt in found.doubts))
    if ledger is not None:
        show(f"{ledger}: the outcome of every query")
    hints = {
        "--ladder": not with_ladder,
        "--slices": not with_slices,
        "--ledger OUT.csv": ledger is None,
        "--gallery-detections COCO.json": gallery_detections is None,
    }
    if any(hints.values()):
        show(f"more: {', '.join(option for option, is_new in hints.items() if is_new)}")


def _scores(found: Examination) -> Any:
    from harness.scoring.examination import intervals

    table = plain_table(["protocol", *(f"Acc@{k}" for k in RANKS), "95 % at 10"])
    for name, outcome in found.outcomes.items():
        low, high = intervals(outcome.score)[10]
        table.add_row(name, *figures(outcome.score.acc, 6), f"{low:.4f}–{high:.4f}")
    return table


def _ledger(found: Examination) -> Any:
    table = plain_table(["outcome", "queries", "share"])
    for outcome, count in found.ledger.totals().items():
        table.add_row(outcome, f"{count:,}", f"{count / len(found.ledger):.1%}")
    return table


def _slices(found: Examination) -> Iterator[Any]:
    for group in dict.fromkeys(one.group for one in found.slices):
        table = plain_table([group, "queries", *(f"Acc@{k}" for k in RANKS), "95 % at 10"], _WIDEST)
        for one in found.slices:
            if one.group == group:
                low, high = one.intervals[10]
                table.add_row(one.name, f"{one.num_queries:,}", *figures(one.acc, 3), f"{low:.3f}–{high:.3f}")
        yield table
