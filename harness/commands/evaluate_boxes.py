"""`evaluate-boxes`: the box AP of anyone's detections, without photos, models or torch."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from harness.commands.options import Json, emit, show

if TYPE_CHECKING:
    from harness.types import BoxAP

app = typer.Typer()


@app.command("evaluate-boxes")
def evaluate_boxes(
    file: Annotated[Path, typer.Argument(help="Detections: COCO results, boxes as x, y, width, height.")],
    truth: Annotated[Path, typer.Option("--truth", help="COCO ground truth, as run.py data export writes it.")],
    engine: Annotated[
        Literal["faster", "pycocotools"], typer.Option("--engine", help="pycocotools is the slower reference.")
    ] = "faster",
    per_category: Annotated[bool, typer.Option("--per-category", help="Also each category alone.")] = False,
    as_json: Json = False,
) -> None:
    """Score anyone's detections by COCO's box AP: the columns of the paper's Table 2."""
    from harness.data.coco import box_warnings, read_coco_results, read_coco_truth, refuse_foreign_photos
    from harness.scoring.boxes import box_ap_by_category

    annotated, found = read_coco_truth(truth), read_coco_results(file)
    refuse_foreign_photos(found, annotated, str(file))
    warnings = [*annotated.warnings, *(f"{file}: {one}" for one in box_warnings(found, annotated))]
    whole, by_category = box_ap_by_category(annotated.items, found, annotated.image_ids, engine)
    if as_json:
        emit(
            {
                **asdict(whole),
                "num_boxes": len(found),
                "num_photos": len(annotated.image_ids),
                "num_items": len(annotated.items),
                "truth": annotated.description,
                "engine": engine,
                "warnings": warnings,
                "per_category": {str(category): asdict(one) for category, one in by_category.items()},
            }
        )
        return
    sys.stderr.writelines(f"warning: {one}\n" for one in warnings)
    show(
        f"{len(found):,} boxes on {len(annotated.image_ids):,} photos with {len(annotated.items):,} items"
        + (f" of {annotated.description}" if annotated.description else ""),
        _table(whole, by_category if per_category else {}),
    )


def _table(whole: BoxAP, by_category: dict[int, BoxAP]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from harness.types import CATEGORIES

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("")
    for heading in ("AP", "AP50", "AP75", "APS", "APM", "APL"):
        table.add_column(heading, justify="right")
    rows = {"all categories": whole, **{f"{n} {CATEGORIES[n - 1]}": one for n, one in by_category.items()}}
    for name, one in rows.items():
        table.add_row(name, *("–" if value is None else f"{value:.3f}" for value in asdict(one).values()))
    return table
