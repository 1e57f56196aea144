"""`enter`: models that were not trained here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands.options import (
    WORK,
    Data,
    Json,
    SplitOption,
    Work,
    emit,
    read_photos,
    show,
    split_name,
    workplace,
)

enter_app = typer.Typer(help="Enter models that were not trained here into ensembles.", no_args_is_help=True)

NewName = Annotated[str, typer.Argument(help="What the model is called in ensembles: a letter, letters and digits.")]


@enter_app.command("embeddings")
def enter_embeddings(
    name: NewName,
    vectors: Annotated[Path, typer.Option("--vectors", help="FILE.npy of floats, one row a box; normalised here.")],
    boxes: Annotated[
        Path,
        typer.Option("--boxes", help="Those boxes in that order: COCO results (xywh) or a boxes.parquet of the store."),
    ],
    data: Data,
    work: Work = WORK,
    split: SplitOption = "validation",
    saw: Annotated[
        list[str] | None,
        typer.Option("--saw", help="A split that the model was trained on; its rows are marked. May be given again."),
    ] = None,
    trained_on: Annotated[
        str | None, typer.Option("--trained-on", metavar="TEXT", help="What the model was trained on, in words.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Enter embeddings that were made elsewhere; NAME is then a model of ensembles, on just these boxes.

    Give the command again for the boxes of another box set or split.
    """
    from harness.jobs import entering

    photos = read_photos(data, split)
    seen = [photos if one == split else read_photos(data, split_name(one, "--saw")) for one in saw or []]
    card = entering.enter_embeddings(workplace(work), name, vectors, boxes, photos, seen, trained_on)
    if as_json:
        emit(card.model_dump(mode="json") | {"rendered": photos.rendered})
        return
    entry = card.entries[-1]
    what = f"{'RENDERED ' if photos.rendered else ''}{split}"
    show(f"{name}: {entry.num_boxes:,} x {card.dimensions} on {what}, brought to unit length in float16")
    for one in card.entries[:-1]:
        show(f"entered before: {one.num_boxes:,} of {one.split} from {one.vectors}")
    marked = ", ".join(one.split for one in card.trained_on)
    show(f"trained on: {card.trained_on_said}" + (f"; rows on {marked} are ranked apart" if marked else ""))
