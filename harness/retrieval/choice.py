"""A retrieval model's recipe as the options of ``train retriever`` ask for it."""

from __future__ import annotations

import re
from pathlib import Path

from harness.retrieval.recipes import RetrieverRecipe, Scale, load_recipes
from harness.types import InputError

_BATCH = re.compile(r"([1-9]\d*)x([1-9]\d*)")


def chosen_recipe(
    name: str, scale: Scale, *, recipes: Path | None = None, batch: str | None = None
) -> tuple[RetrieverRecipe, list[str]]:
    """The recipe of a retrieval model, changed as was asked for.

    Args:
        name: of the recipe.
        scale: ``full`` or ``tiny``.
        recipes: a TOML file of further recipes.
        batch: ``PxK``, identities and crops of each of a step over all devices, instead of the recipe's; the learning
            rate changes with their product.

    Returns:
        The recipe, and notes on what was changed.

    Raises:
        InputError: there is no such recipe, or an option does not fit.
    """
    known = load_recipes(recipes)
    if name not in known:
        raise InputError(f"unknown retrieval model '{name}'; there are {', '.join(known)}")
    recipe = known[name]
    if batch is None:
        return recipe, []
    sides = _BATCH.fullmatch(batch)
    if sides is None or int(sides[1]) < 2 or int(sides[2]) < 2:
        raise InputError(
            f"--batch {batch}: expected IDENTITIESxCROPS a step over all devices, at least 2 each, such as 32x4"
        )
    before = recipe.at(scale)
    after = before.with_batch(int(sides[1]), int(sides[2]))
    notes = []
    if after != before:
        rates = f"{before.learning_rate:g} to {after.learning_rate:g}"
        was = f"{before.identities_per_batch}x{before.crops_per_identity}"
        notes.append(f"--batch {batch} instead of {was}: the learning rate goes from {rates}")
    return recipe.model_copy(update={scale: after}), notes
