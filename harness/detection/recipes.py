"""Recipes of detectors: what is trained, how, and what the paper says it reaches."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from harness.detection.settings import Augmentation, Fraction, Frozen, Optimiser, Pretraining, Published
from harness.types import InputError

ScaleName = Literal["full", "tiny"]

BACKBONES_FOLDER = "backbones"
"""Beside the detectors' folders: backbones that were trained on crops, one folder each."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,99}")


class DetectorScale(Frozen):
    """One size at which a detector is trained and used.

    Attributes:
        config: path of a config inside the mmdet wheel, or of a file; empty where `model` is the whole.
        choice: what was chosen where the paper says nothing.
        model: laid over the config's ``model``.
        coco_weights: address or path of a checkpoint for ``--init-from coco``; None for that of mmdet's model zoo.
        input_px: longest and shortest side that a photo is resized to fit, its aspect kept.
        batch_size: photos a step, over all devices.
        num_steps: optimiser steps; or `num_epochs`, one of the two.
        num_epochs: passes over the training photos.
        warmup_steps: steps of linear warm-up; or `warmup_fraction` of all steps.
        warmup_fraction: see `warmup_steps`.
        schedule: ``cosine`` to zero, or ``steps`` of a factor 0.1 at `milestones`.
        milestones: fractions of all steps.
        gradient_clip: largest norm of the gradient; None for no clipping.
        optimiser: see `Optimiser`.
        augmentation: see `Augmentation`; for recipes without `transforms`.
        transforms: mmdet's transforms of a training photo, each with its ``type``, from the decoded photo to the
            network's input; photos are padded to multiples of 32 afterwards. None lays photos into `input_px`
            with the changes of `augmentation`.
        pretraining: see `Pretraining`; None begins with random weights.
        score_threshold: boxes of a lower score are not reported.
        max_per_image: most boxes a photo.
        detect_batch_size: photos at once in detection.
        precision: Lightning's precision string, used on a GPU; a CPU trains in 32 bits.
        num_workers: processes that decode; 0 decodes in the training process.
        keep_photos_in_memory: decode and resize every training photo once.
    """

    config: str
    choice: str | None = None
    model: Mapping[str, Any] = Field(default_factory=dict)
    coco_weights: str | None = None
    input_px: tuple[int, int]
    batch_size: int = Field(ge=1)
    num_steps: int | None = Field(default=None, ge=1)
    num_epochs: float | None = Field(default=None, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    warmup_fraction: Fraction = 0.0
    schedule: Literal["cosine", "steps"]
    milestones: tuple[Fraction, ...] = ()
    gradient_clip: float | None = Field(default=None, gt=0)
    optimiser: Optimiser
    augmentation: Augmentation = Augmentation()
    transforms: tuple[Mapping[str, Any], ...] | None = None
    pretraining: Pretraining | None = None
    score_threshold: Fraction
    max_per_image: int = Field(ge=1)
    detect_batch_size: int = Field(ge=1)
    precision: str
    num_workers: int = Field(ge=0)
    keep_photos_in_memory: bool

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        if (self.num_steps is None) == (self.num_epochs is None):
            raise ValueError("give either num_steps or num_epochs")
        long_px, short_px = self.input_px
        if not 32 <= short_px <= long_px:
            raise ValueError(f"input_px: expected [longest, shortest] of at least 32, got {list(self.input_px)}")
        return self

    def steps(self, num_photos: int) -> int:
        """Optimiser steps of a training on that many photos."""
        if self.num_steps is not None:
            return self.num_steps
        assert self.num_epochs is not None
        return max(1, round(self.num_epochs * num_photos / self.batch_size))

    def with_batch_size(self, batch_size: int) -> DetectorScale:
        """The same training in other steps: as many photos in all, the learning rate in proportion (Goyal et al. 2017).

        Args:
            batch_size: photos a step, over all devices.
        """
        factor = batch_size / self.batch_size
        rate = self.optimiser.learning_rate * factor
        steps = None if self.num_steps is None else max(1, round(self.num_steps / factor))
        optimiser = self.optimiser.model_copy(update={"learning_rate": rate})
        return self.model_copy(update={"batch_size": batch_size, "optimiser": optimiser, "num_steps": steps})

    def with_input(self, input_px: tuple[int, int]) -> DetectorScale:
        """The same training on photos of another size; the sizes in `transforms` change in proportion.

        Args:
            input_px: longest and shortest side.

        Raises:
            InputError: not two sides of at least 32, the longest first.
        """
        if not 32 <= input_px[1] <= input_px[0]:
            told = "x".join(map(str, input_px))
            raise InputError(f"--input {told}: expected LONGESTxSHORTEST of at least 32 pixels, such as 800x480")
        factor = input_px[0] / self.input_px[0]
        steps = None if self.transforms is None else tuple(_resized(step, factor) for step in self.transforms)
        return self.model_copy(update={"input_px": input_px, "transforms": steps})


_SIZES = ("scale", "scales", "img_scale", "crop_size", "size")
"""Arguments of mmdet's transforms that are pixels of the network's input."""


def _resized(node: Any, factor: float, is_size: bool = False) -> Any:
    if isinstance(node, Mapping):  # a dict of one key may stand for a tuple
        return {
            key: _resized(value, factor, key in _SIZES or (is_size and key == "_tuple_")) for key, value in node.items()
        }
    if isinstance(node, list | tuple):
        return [_resized(value, factor, is_size) for value in node]
    if is_size and isinstance(node, int) and not isinstance(node, bool):
        return max(1, round(node * factor))
    return node


class DetectorRecipe(Frozen):
    """One detector: its name in the ensemble language, the paper's figures, and its scales."""

    name: str
    published: Published | None = None
    full: DetectorScale
    tiny: DetectorScale | None = None

    def at(self, scale: str) -> DetectorScale:
        """The settings at a scale.

        Raises:
            InputError: there is no such scale.
        """
        scales = {"full": self.full} | ({} if self.tiny is None else {"tiny": self.tiny})
        if scale not in scales:
            there = " and ".join(repr(name) for name in scales)
            raise InputError(
                f"scale {scale!r} of detector {self.name}: there {'are' if len(scales) > 1 else 'is'} {there}"
            )
        return scales[scale]

    def changed(self, scale: str, settings: DetectorScale) -> DetectorRecipe:
        """The recipe with other settings at a scale."""
        return self.model_copy(update={scale: settings})


def _laid_over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        result[key] = _laid_over(old, value) if both else value  # type: ignore[arg-type]
    return result


def _length_of_its_own(entry: Mapping[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without the default length where the entry counts in the other unit."""
    for given, other in (("num_steps", "num_epochs"), ("num_epochs", "num_steps")):
        if given in entry and other not in entry:
            settings.pop(other, None)
    return settings


def parse_recipes(text: str, where: str, base: Mapping[str, Any] | None = None) -> dict[str, DetectorRecipe]:
    """Recipes from the text of a TOML file of the form of ``detectors.toml``.

    Args:
        text: the TOML.
        where: the file's name, for messages.
        base: defaults by scale, under the file's own.

    Raises:
        InputError: not TOML, or a recipe has an unknown, missing or impossible value.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where}: not valid TOML: {error}") from error
    unknown = sorted(set(table) - {"defaults", "detectors"})
    if unknown:
        raise InputError(f"{where}: unknown table {unknown[0]!r}; there are 'defaults' and 'detectors'")
    defaults = _laid_over(base or {}, table.get("defaults", {}))
    recipes = {}
    for name, entry in table.get("detectors", {}).items():
        given = {scale: entry[scale] for scale in ("full", "tiny") if scale in entry}
        scales = {
            scale: _length_of_its_own(some, _laid_over(defaults.get(scale, {}), some)) for scale, some in given.items()
        }
        try:
            recipes[name] = DetectorRecipe.model_validate({"name": name, **entry, **scales})
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise InputError(f"{where}: detectors.{name}.{place}: {first['msg']}") from error
    return recipes


@cache
def _shipped() -> dict[str, DetectorRecipe]:
    return parse_recipes(_shipped_text(), "detectors.toml")


def _shipped_text() -> str:
    return resources.files("harness.detection").joinpath("detectors.toml").read_text(encoding="utf-8")


def default_scale() -> dict[str, Any]:
    """``[defaults.full]`` of ``detectors.toml``."""
    return dict(tomllib.loads(_shipped_text())["defaults"]["full"])


def check_name(name: str) -> None:
    """Refuse a name that a detector of the user's cannot have.

    Raises:
        InputError: other characters than letters, digits and ``_ . -``, or the name means something else already.
    """
    taken = {one.lower() for one in (*_shipped(), "GT", BACKBONES_FOLDER)}
    means_other = name.upper().startswith("WBF") or re.fullmatch(r"[mM][0-9]+", name)
    if not _NAME.fullmatch(name) or name.lower() in taken or means_other:
        raise InputError(
            f"detector name {name!r}: expected a letter and up to 99 letters, digits, '_', '.' and '-'; GT, "
            f"{BACKBONES_FOLDER}, what begins with WBF, m and a number, and the names of the recipes "
            f"({', '.join(_shipped())}) are taken"
        )


def load_recipes(extra: Path | None = None) -> dict[str, DetectorRecipe]:
    """The shipped detectors in the paper's Table 5 order, then those of a file of the user's.

    Args:
        extra: a TOML file of the form of ``detectors.toml``. What it leaves out at full scale is as in the shipped
            ``[defaults.full]``; a ``config`` may be the path of a file beside it.

    Raises:
        InputError: the file is missing or wrong, or a detector has a name that is taken.
    """
    recipes = dict(_shipped())
    if extra is not None:
        if not extra.is_file():
            raise InputError(f"{extra}: there is no such recipe file")
        try:
            text = extra.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{extra}: cannot be read as a TOML text: {error}") from error
        for name, recipe in parse_recipes(text, str(extra), {"full": default_scale()}).items():
            check_name(name)
            recipes[name] = _beside(recipe, extra.parent)
    return recipes


def _beside(recipe: DetectorRecipe, folder: Path) -> DetectorRecipe:
    """The recipe with configs that lie beside its file named by their whole path."""
    for scale in ("full", "tiny"):
        settings = getattr(recipe, scale)
        if settings is not None and settings.config and (folder / settings.config).is_file():
            path = str((folder / settings.config).absolute())
            recipe = recipe.changed(scale, settings.model_copy(update={"config": path}))
    return recipe


def recipe_named(name: str, recipes: Mapping[str, DetectorRecipe] | None = None) -> DetectorRecipe:
    """The recipe of that name.

    Raises:
        InputError: there is none; the message lists the names there are.
    """
    known = load_recipes() if recipes is None else recipes
    if name not in known:
        raise InputError(f"detector {name!r}: there is no such recipe; there are {', '.join(known)}")
    return known[name]
