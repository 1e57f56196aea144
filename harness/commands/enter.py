"""`enter`: models that were not trained here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from harness.training.entries import EnteredModel

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
    _show_what_was_said(card)


@enter_app.command("detections")
def enter_detections(
    name: Annotated[
        str, typer.Argument(help="What the detector is called in ensembles: a letter, letters and digits.")
    ],
    boxes: Annotated[
        Path,
        typer.Option(
            "--boxes", help="COCO results (xywh, categories 1-13, scores in [0, 1]) or a boxes.parquet of the store."
        ),
    ],
    data: Data,
    work: Work = WORK,
    split: SplitOption = "validation",
    saw: Annotated[
        list[str] | None,
        typer.Option("--saw", help="A split that it was trained on; its rows are marked. May be given again."),
    ] = None,
    hold_out: Annotated[
        bool, typer.Option("--hold-out", help="With --saw train: it did not see the held-out pairs of it.")
    ] = False,
    trained_on: Annotated[
        str | None, typer.Option("--trained-on", metavar="TEXT", help="What it was trained on, in words.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Enter detections that were made elsewhere; NAME is then a detector: 'm4 + NAME', 'WBF(ATSS,NAME)'.

    Give the command again for another split; for the same one the boxes are replaced. `tune fusion` wants the boxes of
    the held-out training photos as well (--split train).
    """
    from harness.jobs import entering

    photos = read_photos(data, split)
    seen = [photos if one == split else read_photos(data, split_name(one, "--saw")) for one in saw or []]
    card = entering.enter_detections(workplace(work), name, boxes, photos, seen, trained_on, hold_out=hold_out)
    if as_json:
        emit(card.model_dump(mode="json") | {"rendered": photos.rendered})
        return
    entry = card.entries[-1]
    what = f"{'RENDERED ' if photos.rendered else ''}{split}"
    show(f"{name}: {entry.num_boxes:,} boxes on {what}; {entry.num_empty:,} of {entry.num_photos:,} photos have none")
    if entry.num_copies:
        show(f"left out: {entry.num_copies:,} rows that repeat another one exactly")
    _show_what_was_said(card)


def _show_what_was_said(card: EnteredModel) -> None:
    for one in card.entries[:-1]:
        show(f"entered before: {one.num_boxes:,} of {one.split} from {one.boxes}")
    marked = ", ".join(one.split for one in card.trained_on)
    show(f"trained on: {card.trained_on_said}" + (f"; rows on {marked} are ranked apart" if marked else ""))


@enter_app.command("encoder")
def enter_encoder(
    name: NewName,
    timm: Annotated[
        str, typer.Option("--timm", help="A network of timm's: vit_small_patch14_dinov2, vit_base_patch16_siglip_224 …")
    ],
    work: Work = WORK,
    init_from: Annotated[
        str,
        typer.Option(
            "--init-from", metavar="imagenet|none|PATH", help="Its weights: timm's published ones, random, or a file."
        ),
    ] = "imagenet",
    input_px: Annotated[
        str | None, typer.Option("--input", metavar="WxH", help="Size of crops; default: what it was published with.")
    ] = None,
    margin: Annotated[
        float, typer.Option("--margin", min=0, help="Context around a box, as a share of its sides.")
    ] = 0.05,
    force: Annotated[bool, typer.Option("--force", help="Replace a model of this name.")] = False,
) -> None:
    """A published image encoder as a retrieval model, without training."""
    from harness.jobs.encoders import enter_encoder as enter

    place = workplace(work)
    card = enter(place, name, timm, init_from=init_from, input_px=input_px, margin=margin, force=force)
    width, height = card.recipe.input_wh
    show(f"entered {name}: {card.summary}")
    show(f"{card.recipe.output_dim} dimensions, crops of {width}x{height}: {place.model_folder('retriever', name)}")
    if card.initial_weights.sha256 is not None:
        show("DeepFashion1's consumer photos are in DeepFashion2: an encoder trained on them has seen the answers")
