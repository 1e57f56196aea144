"""Frozen image encoders as retrieval models: any timm network as it was published, without training.

Crops are cut and resized as for every other model, whatever interpolation the network was published with; colours are
normalised as it was trained with, and its own pooling gives the vector.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import ConfigDict
from torch import Tensor, nn
from torch.nn import functional

from harness.artifacts import file_sha256
from harness.retrieval.backbones import encoder_width, make_encoder_backbone, published_pixels, published_wh
from harness.retrieval.cgd import OwnPixels
from harness.retrieval.initial_weights import InitialWeights, find, initialise
from harness.retrieval.settings import Count, Frozen, Weight
from harness.training.cards import (
    CARD_FILE,
    PLAN_FILE,
    WEIGHTS_FILE,
    Outcome,
    TrainedOn,
    clear,
    library_versions,
    seen_by,
    write,
)
from harness.training.keeping import write_whole
from harness.types import InputError


class EncoderSettings(Frozen):
    """All that embedding needs to know of a frozen encoder.

    Attributes:
        backbone: timm's name of the network.
        input_wh: width and height of a crop, px.
        margin: context around the box, as a share of its width and height on each side.
        output_dim: length D of an embedding.
        pixel_mean, pixel_std: of each channel, as the network was trained with.
    """

    backbone: str
    input_wh: tuple[Count, Count]
    margin: Weight
    output_dim: Count
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]


class EncoderCard(Outcome):
    """What a frozen encoder says of itself.

    Attributes:
        kind: tells it from a model that was trained here.
        name: of the model.
        recipe: see `EncoderSettings`.
        trained_on: photos that its weights are known to have seen, which is those of a model trained here; which ones
            another maker used is unknown.
        chosen_on: photos by which the weights of that model were chosen.
        initial_weights: where its weights come from.
        summary: for people.
        num_parameters: of the network.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["encoder"] = "encoder"
    name: str
    recipe: EncoderSettings
    trained_on: tuple[TrainedOn, ...] = ()
    chosen_on: tuple[TrainedOn, ...] = ()
    initial_weights: InitialWeights
    summary: str
    num_parameters: int


class Encoder(nn.Module):
    """A timm network whose vectors are embeddings.

    Args:
        settings: of the encoder.

    Raises:
        InputError: timm has no such network, or it does not take crops of that size.
    """

    left_out: tuple[str, ...] = ()

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.backbone_name = settings.backbone
        self.backbone = make_encoder_backbone(settings.backbone, settings.input_wh)
        self.pixels = OwnPixels(settings.pixel_mean, settings.pixel_std)

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, None]:
        """(B, 3, H, W) float, normalised as `harness.retrieval.cgd.normalise` does, to (B, D) of length 1."""
        vectors_BD = self.backbone(self.pixels(images_BCHW))
        return functional.normalize(vectors_BD.float(), dim=1), None


def encoder_settings(backbone: str, input_wh: tuple[int, int] | None = None, margin: float = 0.05) -> EncoderSettings:
    """What timm says of a network.

    Args:
        backbone: timm's name of the network.
        input_wh: width and height of a crop, px; None for those that it was published with.
        margin: context around the box, as a share of its width and height on each side.

    Raises:
        InputError: timm has no such network, or it does not take crops of that size.
    """
    output_dim = encoder_width(backbone, input_wh)
    mean, std = published_pixels(backbone)
    return EncoderSettings.model_validate(
        {
            "backbone": backbone,
            "input_wh": input_wh or published_wh(backbone),
            "margin": margin,
            "output_dim": output_dim,
            "pixel_mean": mean,
            "pixel_std": std,
        }
    )


def enter_encoder(
    name: str, settings: EncoderSettings, out_dir: Path, *, init_from: str = "imagenet", force: bool = False
) -> EncoderCard:
    """Write the folder of a frozen encoder: from now on it is a model like the trained ones.

    Args:
        name: of the model.
        settings: of the encoder.
        out_dir: ``weights.pt`` and ``card.json`` go here.
        init_from: ``imagenet`` for the weights that timm publishes, ``none`` for random ones, or a path; see
            `harness.retrieval.initial_weights.find`.
        force: replace what is there.

    Raises:
        InputError: the folder holds a model already, or its weights cannot be had or do not fit.
    """
    if any((out_dir / file).exists() for file in (CARD_FILE, WEIGHTS_FILE, PLAN_FILE)) and not force:
        raise InputError(f"{out_dir}: there is a model {name} already; take another name, or --force to replace it")
    with torch.random.fork_rng():
        torch.manual_seed(0)  # random weights, where they are asked for, are always the same
        network = Encoder(settings)
    began_with, file = initialise(network, init_from), find(init_from, settings.backbone)
    trained_on, chosen_on = ((), ()) if file is None else seen_by(file)
    origin = "random weights" if began_with.sha256 is None else began_with.what
    if began_with.sha256 is not None:
        seen = ", ".join(f"{one.num_photos} photos of {one.split}" for one in trained_on)
        origin += f", trained on {seen}" if seen else ", which photos trained it is unknown"
    clear(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    state = network.state_dict()
    write_whole(
        out_dir / WEIGHTS_FILE,
        lambda part: torch.save(state, part),
        sum(value.nbytes for value in state.values()),
        "make room and give the same command again",
    )
    card = EncoderCard(
        name=name,
        recipe=settings,
        trained_on=trained_on,
        chosen_on=chosen_on,
        initial_weights=began_with,
        summary=f"frozen {settings.backbone} ({origin})",
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
        seconds=0.0,
        weights_sha256=file_sha256(out_dir / WEIGHTS_FILE),
        versions=library_versions(),
    )
    write(out_dir / CARD_FILE, card)
    return card
