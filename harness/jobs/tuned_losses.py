"""Where a recipe whose multi-similarity loss is "by automl" has its hyper-parameters from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from harness.retrieval.recipes import RetrieverRecipe, Scale
from harness.retrieval.settings import MultiSimilaritySettings
from harness.workplace import Workplace

RECIPE_FILE = "models.toml"


@dataclass(frozen=True)
class TunedRecipe:
    """A recipe with the hyper-parameters that are to be used.

    Attributes:
        recipe: of the model.
        origin: where they are from, for the card; None for a recipe that wants no searched ones.
        notes: for people.
    """

    recipe: RetrieverRecipe
    origin: str | None = None
    notes: tuple[str, ...] = ()


def entry_name(model: str, scale: Scale) -> str:
    """The name under which a working folder keeps what a search for a model at a scale found."""
    return f"{model}/{scale}"


def tuned_recipe(
    recipe: RetrieverRecipe, scale: Scale, work: Workplace, *, rendered: bool, as_in_file: bool = False
) -> TunedRecipe:
    """The recipe with what `tune ms-loss` found, where it wants that and something was found.

    Of several finds that of the same scale goes first, then that of the same model, then the latest.

    Args:
        recipe: of the model to train; only ``ms_loss = "automl"`` is changed.
        scale: to train at.
        work: where finds are kept.
        rendered: whether the photos to train on are.
        as_in_file: leave the recipe's own values.

    Raises:
        InputError: the file of finds is damaged.
    """
    if recipe.ms_loss != "automl":
        return TunedRecipe(recipe)
    kept = {} if as_in_file else work.every_ms_loss()
    if not kept:
        why = "" if as_in_file else "; the paper does not publish its own, and run.py tune ms-loss finds better ones"
        return TunedRecipe(recipe, RECIPE_FILE, (f"multi-similarity loss: the values of {RECIPE_FILE}{why}",))
    latest = list(kept)
    name = max(kept, key=lambda one: (_scale(one) == scale, _model(one) == recipe.name, latest.index(one)))
    entry = kept[name]
    try:
        found = MultiSimilaritySettings.model_validate(entry["settings"])
        origin = f"study {entry['study']}, trial {entry['trial']} ({name}{', RENDERED' if entry['rendered'] else ''})"
        better, study_rendered = bool(entry["better"]), bool(entry["rendered"])
    except (ValidationError, KeyError, TypeError) as error:
        raise work.damaged_ms_loss(f"{name}: {' '.join(str(error).split())}") from error
    notes = [f"multi-similarity loss: {in_words(found)}, from {origin}; the recipe's own: --ms-loss recipe"]
    if _scale(name) != scale:
        notes.append(f"WARNING: these values were found at scale {_scale(name)}, and this training is at scale {scale}")
    if study_rendered and not rendered:
        notes.append("WARNING: these values were found on RENDERED photos, and this training is on real ones")
    if not better:
        notes.append("WARNING: these values were not better than the defaults where the search did not look")
    return TunedRecipe(recipe.with_multi_similarity(scale, found), origin, tuple(notes))


def in_words(settings: MultiSimilaritySettings | Mapping[str, Any]) -> str:
    """Hyper-parameters in a line."""
    values = settings if isinstance(settings, Mapping) else settings.model_dump()
    names = {"alpha": "α", "beta": "β", "base": "λ", "epsilon": "ε", "weight": "weight"}
    return ", ".join(f"{sign} {values[name]:.4g}" for name, sign in names.items())


def _model(name: str) -> str:
    return name.partition("/")[0]


def _scale(name: str) -> str:
    return name.partition("/")[2]
