"""The retrieval models m0–m17 as recipes, read from ``models.toml`` and resolved at a scale.

Source: the paper's Tables 3 (differences between the models) and 4 (what they start from).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError

from harness.retrieval.recipe_file import Backbone, PaperTerms, RecipeFile, first_problem
from harness.retrieval.recipe_file import Scale as Scale
from harness.retrieval.recipe_file import Source as Source
from harness.retrieval.settings import (
    Frozen,
    LossSettings,
    MultiSimilarityHyperparameters,
    MultiSimilaritySettings,
    RetrieverSettings,
    Share,
)
from harness.retrieval.team_recipes import beside, laid_over, read_toml, timm_backbone
from harness.types import InputError

MODELS_TOML = Path(__file__).with_name("models.toml")


class RetrieverRecipe(Frozen):
    """One row of Table 3, resolved.

    Attributes:
        name: ``m0`` … ``m17``.
        description: the table's words.
        published_acc10: the paper's Acc@10 on validation with ground-truth boxes; None for m7.
        base: the model it is a difference from; None for one that starts from Table 4.
        trained_on: the splits and data sets that it wants.
        ms_loss: where its multi-similarity loss has its values from: ``automl`` for a search.
        full: the settings at the paper's size.
        tiny: the settings at a size for one CPU core.
    """

    name: str
    description: str
    published_acc10: Share | None
    base: str | None
    trained_on: tuple[str, ...]
    ms_loss: Literal["default", "automl"] = "default"
    full: RetrieverSettings
    tiny: RetrieverSettings

    def at(self, scale: Scale) -> RetrieverSettings:
        """The settings of a scale; `InputError` for another name."""
        if scale not in get_args(Scale):
            raise InputError(f"scale {scale!r}: expected one of {', '.join(get_args(Scale))}")
        return self.full if scale == "full" else self.tiny

    def with_multi_similarity(self, scale: Scale, loss: MultiSimilaritySettings) -> RetrieverRecipe:
        """The recipe with another multi-similarity loss at a scale."""
        settings = self.at(scale)
        losses = settings.losses.model_copy(update={"multi_similarity": loss})
        return self.model_copy(update={scale: settings.model_copy(update={"losses": losses})})


def load_recipes(extra: Path | None = None) -> dict[str, RetrieverRecipe]:
    """The paper's models, resolved, in the order of Table 3, then those of a file of the user's.

    A model of the user's is written like those of ``models.toml``: a base, one of the paper's or of the file, and what
    changes in the paper's terms. A backbone may be any of timm's, by its name; ``ms_loss`` may be a table of values;
    ``full`` and ``tiny`` are tables of further changes at a scale, by the names of `RetrieverSettings`.

    Args:
        extra: a TOML file with ``[models.NAME]`` tables, and ``sources = [...]`` for photo collections of the user's.

    Raises:
        InputError: the file is not such a file; the message names the place.
    """
    told = read_toml(MODELS_TOML)
    return recipes_of(told, MODELS_TOML) if extra is None else recipes_of(beside(told, extra), extra)


def recipes_of(told: Mapping[str, Any], path: Path) -> dict[str, RetrieverRecipe]:
    """Every model of a file of the form of ``models.toml``, resolved, in the file's order.

    Args:
        told: what the file says.
        path: its name, for messages.

    Raises:
        InputError: it is not such a file; the message names the place.
    """
    try:
        file = RecipeFile.model_validate(told)
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}") from error
    recipes = {}
    for name in file.models:
        try:
            recipes[name] = _recipe(file, name)
        except ValidationError as error:
            raise InputError(f"{path}: models.{name}: {first_problem(error)}") from error
        except KeyError as error:
            raise InputError(f"{path}: models.{name}: {error.args[0]}") from error
    return recipes


def resolve(name: str, scale: Scale, extra: Path | None = None) -> RetrieverSettings:
    """The settings of one model at one scale; ``extra`` as for `load_recipes`.

    Raises:
        InputError: no model or scale of that name; the message lists the valid ones.
    """
    return find_recipe(name, extra).at(scale)


def find_recipe(name: str, extra: Path | None = None) -> RetrieverRecipe:
    """The recipe of one model; `InputError` that lists the valid names for another."""
    recipes = load_recipes(extra)
    if name not in recipes:
        raise InputError(f"retriever {name!r}: no such recipe; there are {', '.join(recipes)}")
    return recipes[name]


def _in_paper_terms(file: RecipeFile, name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The entry of a model over that of its base, over that of the base's base, down to Table 4."""
    if name == "table4":
        return dict(file.table4)
    if not isinstance(name, str):
        raise KeyError(f"base: expected the name of a model or table4, got {name!r}")
    if name in above:
        raise KeyError(f"base goes in a circle: {' → '.join((*above, name))}")
    if name not in file.models:
        raise KeyError(f"base {name!r} is not a model; there are table4, {', '.join(file.models)}")
    entry = dict(file.models[name])
    if "base" not in entry:
        raise KeyError(f"base is missing in {name!r}: name a model or table4")
    terms = _in_paper_terms(file, entry.pop("base"), (*above, name))
    # The figure and the words are the row's own: they never come from the base.
    for own in ("description", "published_acc10"):
        terms.pop(own, None)
    if "trained_on" in entry:
        terms.pop("plus", None)
    elif isinstance(entry.get("plus"), list):
        entry["plus"] = [*terms.get("plus", []), *entry["plus"]]
    if isinstance(entry.get("ms_loss"), Mapping):
        entry |= {"ms_loss": "default", "ms_values": entry["ms_loss"]}
    elif "ms_loss" in entry:
        terms.pop("ms_values", None)
    if "backbone" in entry:
        terms.pop("backbone_options", None)
    for scale in get_args(Scale):
        if isinstance(entry.get(scale), Mapping):
            entry[scale] = laid_over(terms.get(scale, {}), entry[scale])
    return {**terms, **entry}


def _recipe(file: RecipeFile, name: str) -> RetrieverRecipe:
    paper = PaperTerms.model_validate(_in_paper_terms(file, name))
    wanted = (*paper.trained_on, *paper.plus)
    known = (*get_args(Source), *file.sources)
    for row, source in enumerate(wanted):
        if source not in known:
            raise KeyError(f"source {source!r}: there are {', '.join(known)}; sources = [...] names further ones")
        if source in wanted[:row]:
            raise KeyError(f"source {source!r} comes twice; plus is in addition to what the base trains on")
    base: str = file.models[name]["base"]
    scales: Mapping[Scale, RetrieverSettings] = {scale: _settings(file, paper, scale) for scale in get_args(Scale)}
    return RetrieverRecipe(
        name=name,
        description=paper.description,
        published_acc10=paper.published_acc10,
        base=None if base == "table4" else base,
        trained_on=wanted,
        ms_loss=paper.ms_loss,
        full=scales["full"],
        tiny=scales["tiny"],
    )


def _settings(file: RecipeFile, paper: PaperTerms, scale_name: Scale) -> RetrieverSettings:
    if scale_name not in file.scales:
        raise KeyError(f"scales.{scale_name} is missing")
    scale = file.scales[scale_name]
    backbone = scale.backbones.get(paper.backbone)
    if backbone is None:
        backbone = Backbone(timm=timm_backbone(paper.backbone, scale.backbones))
    ms_loss = file.automl_ms_loss if paper.ms_loss == "automl" else file.default_ms_loss
    if paper.ms_values:
        try:
            ms_loss = MultiSimilarityHyperparameters.model_validate({**ms_loss.model_dump(), **paper.ms_values})
        except ValidationError as error:
            raise KeyError(f"ms_loss.{first_problem(error)}") from error
    losses = scale.losses
    used = {"softmax": 0.0, "centre": 0.0, "triplet": 0.0, "multi-similarity": 0.0} | dict.fromkeys(paper.losses, 1.0)
    settings = RetrieverSettings(
        backbone=backbone.timm,
        backbone_options={**backbone.options, **paper.backbone_options},
        pretrained=scale.pretrained,
        remove_last_stride=(scale.remove_last_stride if paper.remove_last_stride is None else paper.remove_last_stride),
        descriptors=paper.descriptors,
        output_dim=scale.output_dim or paper.output_dim,
        input_wh=_scaled_wh(paper.input_wh, scale.input_factor),
        margin=scale.margin,
        optimizer=scale.optimizer,
        # Rounded so that 0.17 × 0.01 reads 0.0017 in a card.
        learning_rate=round(paper.learning_rate * scale.learning_rate_factor, 10),
        momentum=scale.momentum,
        weight_decay=scale.weight_decay,
        warmup_fraction=scale.warmup_fraction,
        gradient_clip=scale.gradient_clip,
        epochs=paper.epochs,
        num_steps=scale.num_steps,
        precision=scale.precision,
        identities_per_batch=scale.identities_per_batch,
        crops_per_identity=scale.crops_per_identity,
        losses=LossSettings(
            softmax=losses.softmax.model_copy(update={"weight": losses.softmax.weight * used["softmax"]}),
            centre=losses.centre.model_copy(update={"weight": losses.centre.weight * used["centre"]}),
            triplet=losses.triplet.model_copy(update={"weight": losses.triplet.weight * used["triplet"]}),
            multi_similarity=MultiSimilaritySettings(
                weight=losses.multi_similarity.weight * used["multi-similarity"], **ms_loss.model_dump()
            ),
            memory=losses.memory,
        ),
        augmentation=scale.augmentation,
    )
    changes = paper.full if scale_name == "full" else paper.tiny
    try:
        return RetrieverSettings.model_validate(laid_over(settings.model_dump(), changes))
    except ValidationError as error:
        raise KeyError(f"{scale_name}.{first_problem(error)}") from error


def _scaled_wh(input_wh: tuple[int, int], factor: float) -> tuple[int, int]:
    """Sides times a factor, rounded to whole cells of the last map (16 px), at least one."""
    width, height = (max(16, round(side * factor / 16) * 16) for side in input_wh)
    return width, height
