"""All that training and embedding need to know of one model, as validated values."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Descriptor = Literal["SPoC", "MAC", "GeM"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Frozen(BaseModel):
    """A value read from TOML: unchangeable, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SoftmaxSettings(Frozen):
    """Weight and shape of the auxiliary classifier's loss."""

    weight: Weight
    temperature: Positive
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]


class CentreSettings(Frozen):
    """Weight of the centre loss and the rate at which centres follow."""

    weight: Weight
    rate: Annotated[float, Field(gt=0, le=1)]


class TripletSettings(Frozen):
    """Weight and margin (Euclidean, between unit vectors) of the triplet loss."""

    weight: Weight
    margin: Weight


class MultiSimilarityHyperparameters(Frozen):
    """The α, β, λ and miner's ε of the multi-similarity loss."""

    alpha: Positive
    beta: Positive
    base: Share
    epsilon: Weight


class MultiSimilaritySettings(MultiSimilarityHyperparameters):
    """The hyper-parameters with the loss's weight."""

    weight: Weight


class MemorySettings(Frozen):
    """Embeddings of past batches that join the pairs of the triplet and the multi-similarity loss.

    Attributes:
        size: embeddings that are kept; 0 keeps none.
        from_step: the step from which they join; before it the network changes too fast for old ones to hold.
    """

    size: Annotated[int, Field(ge=0)] = 0
    from_step: Annotated[int, Field(ge=0)] = 0


class LossSettings(Frozen):
    """The four losses of Table 4; a weight of 0 leaves one out."""

    softmax: SoftmaxSettings
    centre: CentreSettings
    triplet: TripletSettings
    multi_similarity: MultiSimilaritySettings
    memory: MemorySettings = MemorySettings()


class AugmentationSettings(Frozen):
    """How training crops vary; amounts are of uniform draws unless they say otherwise.

    Attributes:
        zoom: least and largest side of the window, relative to what the finished model sees.
        aspect: largest change of the window's width against its height, as a log ratio.
        shift: largest displacement of the window, in window sides.
        rotation_deg: largest turn.
        flip: probability of mirroring left and right.
        brightness, contrast, saturation: largest log gain.
        white_balance: largest log gain of each colour channel.
        blur: probability of a 3×3 mean filter.
        erase: probability of a grey rectangle.
        erase_area: its least and largest share of the image.
    """

    zoom: tuple[Positive, Positive]
    aspect: Weight
    shift: Weight
    rotation_deg: Weight
    flip: Share
    brightness: Weight
    contrast: Weight
    saturation: Weight
    white_balance: Weight
    blur: Share
    erase: Share
    erase_area: tuple[Share, Share]

    @model_validator(mode="after")
    def _ordered(self) -> AugmentationSettings:
        if self.zoom[0] > self.zoom[1] or self.erase_area[0] > self.erase_area[1]:
            raise ValueError("zoom and erase_area are [least, largest]")
        return self


class RetrieverSettings(Frozen):
    """All that training and embedding need to know of one model at one scale.

    Attributes:
        backbone: timm's name of the network.
        backbone_options: keyword arguments for timm that change its size.
        pretrained: whether to start from timm's published weights.
        remove_last_stride: CGD's larger last map.
        descriptors: of CGD; the first feeds the auxiliary classifier.
        output_dim: length D of an embedding.
        input_wh: width and height of a crop, px.
        margin: context around the box, as a share of its width and height on each side.
        optimizer: ``SGD`` or ``AdamW``.
        learning_rate: at its height; cosine to 0 after a linear warm-up.
        momentum: of SGD.
        weight_decay: of weights, not of biases and norms.
        warmup_fraction: of all steps.
        gradient_clip: largest norm of the gradient.
        epochs: passes over the identities; used where num_steps is None.
        num_steps: optimiser steps.
        precision: Lightning's precision string on a GPU; a CPU trains in ``32-true``.
        identities_per_batch: P.
        crops_per_identity: K.
        losses: the four.
        augmentation: of training crops.
    """

    backbone: str
    backbone_options: dict[str, Any]
    pretrained: bool
    remove_last_stride: bool
    descriptors: tuple[Descriptor, ...]
    output_dim: Count
    input_wh: tuple[Count, Count]
    margin: Weight
    optimizer: Literal["SGD", "AdamW"]
    learning_rate: Positive
    momentum: Share
    weight_decay: Weight
    warmup_fraction: Share
    gradient_clip: Positive | None
    epochs: Count
    num_steps: Count | None
    precision: str
    identities_per_batch: Annotated[int, Field(ge=2)]
    crops_per_identity: Annotated[int, Field(ge=2)]
    losses: LossSettings
    augmentation: AugmentationSettings

    def with_batch(self, num_identities: int, num_crops: int) -> Self:
        """The same training in other steps: as many crops in all, the learning rate with the crops of a step.

        In proportion for SGD (Goyal et al. 2017), by the square root for AdamW (Malladi et al. 2022).

        Args:
            num_identities: P of a step over all devices.
            num_crops: K.
        """
        factor = num_identities * num_crops / (self.identities_per_batch * self.crops_per_identity)
        rate = self.learning_rate * (factor if self.optimizer == "SGD" else math.sqrt(factor))
        changed = {
            "identities_per_batch": num_identities,
            "crops_per_identity": num_crops,
            "learning_rate": float(f"{rate:.6g}"),
            "num_steps": None if self.num_steps is None else max(1, round(self.num_steps / factor)),
        }
        return self.model_copy(update=changed)
