"""`enter`: models that were not trained here."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.commands.options import WORK, Work, show, workplace

app = typer.Typer()
enter_app = typer.Typer(help="Enter models that were not trained here.", no_args_is_help=True)
app.add_typer(enter_app, name="enter")

NewName = Annotated[str, typer.Argument(metavar="NAME", help="What the model is to be called in ensembles.")]


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
