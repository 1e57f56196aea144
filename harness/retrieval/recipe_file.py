"""The form of a recipe file: the paper's terms, and what they become at each scale."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from harness.retrieval.settings import (
    AugmentationSettings,
    CentreSettings,
    Count,
    Descriptor,
    Frozen,
    MemorySettings,
    MultiSimilarityHyperparameters,
    Positive,
    RetrieverSettings,
    Share,
    SoftmaxSettings,
    TripletSettings,
    Weight,
)

Scale = Literal["full", "tiny"]
Source = Literal["DeepFashion2/train", "DeepFashion2/validation", "Street2Shop", "DARN", "MVC", "MPV", "Zalando"]


class PaperTerms(Frozen):
    """A model in the paper's terms, all differences applied.

    Beyond the paper's, for a team's own models: options of the backbone, its last stride, values of the
    multi-similarity loss (written as a table under ``ms_loss``), and changes of `RetrieverSettings` at a scale.
    """

    backbone: str
    backbone_options: dict[str, Any] = Field(default_factory=dict)
    remove_last_stride: bool | None = None
    descriptors: tuple[Descriptor, ...]
    input_wh: tuple[Count, Count]
    output_dim: Count
    epochs: Count
    optimizer: Literal["SGD"]
    learning_rate: Positive
    learning_rate_decay: Literal["cosine"]
    losses: tuple[Literal["softmax", "centre", "triplet", "multi-similarity"], ...]
    ms_loss: Literal["default", "automl"]
    ms_values: dict[str, Any] = Field(default_factory=dict)
    trained_on: tuple[str, ...] = ()
    plus: tuple[str, ...] = ()
    description: str = ""
    published_acc10: Share | None = None
    full: dict[str, Any] = Field(default_factory=dict)
    tiny: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if not self.descriptors or len(set(self.descriptors)) != len(self.descriptors):
            raise ValueError(f"descriptors: expected one or more, each once, got {list(self.descriptors)}")
        if not self.losses or len(set(self.losses)) != len(self.losses):
            raise ValueError(f"losses: expected one or more, each once, got {list(self.losses)}")
        return self


class Backbone(Frozen):
    """timm's name for one of the paper's words, and arguments that change the network's size."""

    timm: str
    options: dict[str, Any] = Field(default_factory=dict)


class _MultiSimilarityWeight(Frozen):
    weight: Weight


class ScaleLosses(Frozen):
    """The losses at one scale; the shape of the multi-similarity loss is the model's."""

    softmax: SoftmaxSettings
    centre: CentreSettings
    triplet: TripletSettings
    multi_similarity: _MultiSimilarityWeight
    memory: MemorySettings


class ScaleTerms(Frozen):
    """What the paper's terms become at one scale."""

    learning_rate_factor: Positive
    input_factor: Positive
    output_dim: Count | None = None
    optimizer: Literal["SGD", "AdamW"]
    pretrained: bool
    remove_last_stride: bool
    margin: Weight
    momentum: Share
    weight_decay: Weight
    warmup_fraction: Share
    gradient_clip: Positive | None = None
    precision: str
    num_steps: Count | None = None
    identities_per_batch: Count
    crops_per_identity: Count
    backbones: dict[str, Backbone]
    losses: ScaleLosses
    augmentation: AugmentationSettings


class RecipeFile(Frozen):
    """``models.toml``, with the models and sources of a team's file."""

    table4: dict[str, Any]
    models: dict[str, dict[str, Any]]
    default_ms_loss: MultiSimilarityHyperparameters
    automl_ms_loss: MultiSimilarityHyperparameters
    scales: dict[Scale, ScaleTerms]
    sources: tuple[str, ...] = ()


def first_problem(error: ValidationError) -> str:
    """What is wrong with a table, and where; an unknown key with those that there are."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    known = ""
    if first["type"] == "extra_forbidden" and error.title in _KEYS and len(first["loc"]) == 1:
        known = f"; there are {', '.join(_KEYS[error.title])}"
    return f"{where}: {first['msg']}{known}" if where else f"{first['msg']}{known}"


_KEYS = {
    "PaperTerms": ("base", *(key for key in PaperTerms.model_fields if key not in ("ms_values", "published_acc10"))),
    "RetrieverSettings": tuple(RetrieverSettings.model_fields),
    "MultiSimilarityHyperparameters": tuple(MultiSimilarityHyperparameters.model_fields),
}
"""What a message lists where a key is unknown."""
