"""Which recipe a training follows: a shipped one, one of a user's file, or one made of an mmdet config."""

from __future__ import annotations

import re
from pathlib import Path

from harness.detection.recipes import DetectorRecipe, load_recipes
from harness.types import InputError

_INPUT = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")


def chosen_recipe(
    name: str,
    scale: str,
    *,
    config: str | None = None,
    recipes: Path | None = None,
    batch_size: int | None = None,
    input_px: str | None = None,
) -> tuple[DetectorRecipe, list[str]]:
    """The recipe of a detector as the options of ``train detector`` ask for it.

    Args:
        name: of the detector: one of the recipes, or with ``config`` a new one.
        scale: ``full`` or ``tiny``.
        config: path of an mmdet config, or a path inside the mmdet wheel.
        recipes: a TOML file of further recipes.
        batch_size: photos a step instead of the recipe's; the learning rate changes in proportion.
        input_px: ``LONGESTxSHORTEST`` side instead of the recipe's.

    Returns:
        The recipe, and notes on what of a config is not followed or was changed.

    Raises:
        InputError: there is no such recipe, or an option does not fit.
    """
    notes: list[str] = []
    if config is not None:
        from harness.detection.config_recipes import recipe_of_config

        if recipes is not None:
            raise InputError("--config and --recipes: give one of the two; a recipe file names its configs itself")
        if scale != "full":
            raise InputError(f"--config: a config is trained as it says, so leave out --scale {scale}")
        recipe, notes = recipe_of_config(name, config)
    else:
        known = load_recipes(recipes)
        if name not in known:
            raise InputError(
                f"unknown detector '{name}'; there are {', '.join(known)}; any other mmdet config can be trained under "
                "a name of its own with --config FILE, which it needs whenever it is trained"
            )
        recipe = known[name]
    settings = recipe.at(scale)
    if batch_size is not None and batch_size != settings.batch_size:
        before, settings = settings, settings.with_batch_size(batch_size)
        rates = f"{before.optimiser.learning_rate:g} to {settings.optimiser.learning_rate:g}"
        notes.append(f"--batch-size {batch_size} instead of {before.batch_size}: the learning rate goes from {rates}")
    if input_px is not None:
        sides = _INPUT.fullmatch(input_px)
        if sides is None:
            raise InputError(f"--input {input_px}: expected LONGESTxSHORTEST in pixels, such as 800x480")
        settings = settings.with_input((int(sides[1]), int(sides[2])))
    return recipe.changed(scale, settings), notes
