"""The parts of a detector's recipe: optimiser, augmentation, pretraining, published figures."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]


class Frozen(BaseModel):
    """Settings that cannot be changed; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Published(Frozen):
    """Box AP that a paper reports, in [0, 1]; never mixed with measured figures."""

    ap: Fraction
    ap50: Fraction
    ap75: Fraction
    ap_small: Fraction
    ap_medium: Fraction
    ap_large: Fraction


class Optimiser(Frozen):
    """Which optimiser, with its settings at the recipe's batch size.

    Attributes:
        kind: ``sgd`` or ``adamw``.
        learning_rate: at the end of the warm-up.
        weight_decay: as torch has it.
        momentum: of SGD.
        backbone_factor: the backbone learns at this fraction of the rate.
    """

    kind: Literal["sgd", "adamw"]
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    momentum: Fraction = 0.9
    backbone_factor: float = Field(default=1.0, gt=0)


class Augmentation(Frozen):
    """Random changes to training photos; the defaults change nothing.

    Attributes:
        flip: probability of a left-right flip.
        zoom: smallest and largest factor of size, drawn log-uniformly.
        shift: place the photo anywhere in the input (larger ones are cropped) instead of top left.
        brightness: largest change of brightness, as a fraction of the range.
        contrast: largest relative change of contrast.
        colour: largest relative change of each channel, and of saturation.
    """

    flip: Fraction = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    shift: bool = False
    brightness: Fraction = 0.0
    contrast: Fraction = 0.0
    colour: Fraction = 0.0

    @model_validator(mode="after")
    def _zoom_ascends(self) -> Self:
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise ValueError(f"zoom: expected 0 < smallest <= largest, got {list(self.zoom)}")
        return self


class Pretraining(Frozen):
    """Teach the backbone to classify crops of garments first, where the user gives no initial weights.

    Attributes:
        num_steps: optimiser steps.
        batch_size: crops a step.
        crop_px: side of the square crops.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
    """

    num_steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    crop_px: int = Field(ge=32)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
