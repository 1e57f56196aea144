"""What the folder of a trained model says of itself; the same for detectors and retrieval models.

``plan.json`` says what is being trained, so that a training of other settings is never continued by
mistake. ``card.json`` is the plan with its outcome; it is written last and makes the model exist.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import harness
from harness.artifacts import file_sha256
from harness.training.fitting import LAST_CHECKPOINT, PROGRESS_FILE
from harness.types import InputError, Ints, Split

CARD_FILE = "card.json"
PLAN_FILE = "plan.json"
WEIGHTS_FILE = "weights.pt"

_VERSIONED = ("torch", "torchvision", "pytorch-lightning", "mmdet", "timm", "pytorch-metric-learning", "numpy")


class TrainedOn(BaseModel):
    """Photos of a split, or of another data set, that a model has seen.

    Attributes:
        fingerprint: of the split; of another data set, of its lists.
        split: its name; of another data set, that of the source, such as ``Street2Shop``.
        num_photos: how many of its photos.
        image_ids_sha256: of their ids, see `image_ids_sha256`; of another data set, of the rows of ``photos`` used.
        rendered: whether they were rendered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    split: str
    num_photos: int
    image_ids_sha256: str
    rendered: bool

    @classmethod
    def of(cls, split: Split, image_ids: Ints) -> TrainedOn:
        """The record of the ids (n,) int64 used of a split; order and repeats do not matter."""
        return cls(
            fingerprint=split.fingerprint,
            split=split.name,
            num_photos=len(np.unique(image_ids)),
            image_ids_sha256=image_ids_sha256(image_ids),
            rendered=split.rendered,
        )


def image_ids_sha256(image_ids: Ints) -> str:
    """SHA-256 (hexadecimal) of the different ids in ascending order, as decimal numbers, one a line."""
    return hashlib.sha256("\n".join(map(str, np.unique(image_ids).tolist())).encode()).hexdigest()


class TrainingPlan(BaseModel):
    """All that decides which weights a training ends with; two equal plans are the same training.

    Attributes:
        name: of the model.
        scale: ``full`` or ``tiny``.
        trained_on: the photos.
        seed: as the user gave it.
        num_steps: optimiser steps.
        init_trained_on: photos that a model was trained on from whose weights this one begins, as `seen_by` knows.
        init_chosen_on: photos by which the weights of that model were chosen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    scale: Literal["full", "tiny"]
    trained_on: tuple[TrainedOn, ...]
    seed: int
    num_steps: int = Field(ge=1)
    init_trained_on: tuple[TrainedOn, ...] = ()
    init_chosen_on: tuple[TrainedOn, ...] = ()


def seen_by(weights: Path) -> tuple[tuple[TrainedOn, ...], tuple[TrainedOn, ...]]:
    """Photos that a model was trained on, and photos that chose its weights.

    Those of what it began with are included, and as trained on those of which it saw copies.

    Args:
        weights: a file in the folder of a model, whose card or plan says so; of any other file nothing is known.

    Raises:
        InputError: the card or the plan is damaged.
    """
    for path in (weights.with_name(CARD_FILE), weights.with_name(PLAN_FILE)):
        try:
            told = json.loads(path.read_bytes())
            if not isinstance(told, dict) or "trained_on" not in told:
                continue  # somebody else's file
            trained, chosen = (
                tuple(dict.fromkeys(TrainedOn.model_validate(one) for name in names for one in _rows(told.get(name))))
                for names in (("trained_on", "init_trained_on", "copied_from"), ("chosen_on", "init_chosen_on"))
            )
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path}: is damaged ({' '.join(str(error).split())[:200]}), so which photos {weights.name} has seen "
                "is unknown; train that model again, or copy the file elsewhere to begin with it all the same"
            ) from error
        return trained, chosen
    return (), ()


def _rows(told: Any) -> list[Any]:
    """The entries of a card's list; a backbone's card has one entry instead."""
    return told if isinstance(told, list) else [] if told is None else [told]


class Outcome(BaseModel):
    """What came of a training.

    Attributes:
        seconds: wall-clock time in this process, decoding included, imports not; only the part since the last
            start where it was interrupted.
        weights_sha256: of ``weights.pt``.
        versions: of the harness and the libraries that shape the result.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float
    weights_sha256: str
    versions: dict[str, str]


Value = TypeVar("Value", bound=BaseModel)


def read(path: Path, kind: type[Value]) -> Value | None:
    """A card or a plan; None where there is no such file.

    Raises:
        InputError: the file is damaged or of another kind.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); train the model again with --force") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where}: {first['msg']}; train the model again with --force") from error


def read_trained(model_dir: Path, kind: type[Value]) -> Value:
    """The card of a model that is ready, its weights being those that the card speaks of.

    Raises:
        InputError: there is no finished model, its card is damaged, or its weights are missing or others.
    """
    card = read(model_dir / CARD_FILE, kind)
    if card is None:
        begun = " (a training was begun; run it again to go on)" if (model_dir / PLAN_FILE).is_file() else ""
        raise InputError(f"{model_dir}: there is no trained model{begun}; train it with: run.py train")
    weights = model_dir / WEIGHTS_FILE
    told = card.weights_sha256  # type: ignore[attr-defined]
    if not weights.is_file():
        raise InputError(f"{weights}: the weights are missing; restore the file, or train again with --force")
    if file_sha256(weights) != told:
        raise InputError(
            f"{weights}: not the weights that {CARD_FILE} speaks of (its SHA-256 begins {told[:12]}); "
            "restore the file, or train again with --force"
        )
    return card


def prepare(model_dir: Path, plan: TrainingPlan, card_kind: type[Value], *, force: bool) -> Value | None:
    """Make a folder ready for a training.

    Args:
        model_dir: the model's folder.
        plan: what is to be trained.
        card_kind: the class of the finished training's card, a plan and an `Outcome`.
        force: throw away what another training left there.

    Returns:
        The card of the same training done; None if it is to begin or to go on.

    Raises:
        InputError: the folder holds another training, or a damaged one.
    """
    if force:
        clear(model_dir)
    card = read(model_dir / CARD_FILE, card_kind)
    there = read(model_dir / PLAN_FILE, type(plan))
    if card is not None:
        there = type(plan)(**{name: getattr(card, name) for name in type(plan).model_fields})
    elif there is not None and not (model_dir / LAST_CHECKPOINT).is_file():
        there = None  # begun, and nothing came of it
    if there is not None and there != plan:
        found = differences(there, plan)
        raise InputError(
            f"{model_dir}: this folder holds another training of {there.name} than the one asked for "
            f"({'; '.join(found[:3])}{'; …' if len(found) > 3 else ''}); take another folder, or --force to replace it"
        )
    if card is not None:
        return read_trained(model_dir, card_kind)
    model_dir.mkdir(parents=True, exist_ok=True)
    if there is None:
        (model_dir / LAST_CHECKPOINT).unlink(missing_ok=True)  # of an unknown plan
        write(model_dir / PLAN_FILE, plan)
    return None


def clear(model_dir: Path) -> None:
    """Throw away what a training left in a folder."""
    for name in (CARD_FILE, PLAN_FILE, WEIGHTS_FILE, LAST_CHECKPOINT, PROGRESS_FILE):
        (model_dir / name).unlink(missing_ok=True)
    for best in model_dir.glob("best_*.pt"):
        best.unlink()
    shutil.rmtree(model_dir / "logs", ignore_errors=True)


def finish(
    model_dir: Path,
    plan: TrainingPlan,
    card_kind: type[Value],
    weights: Mapping[str, Any],
    seconds: float,
    **more: Any,
) -> Value:
    """Write weights and card: from now on the model exists.

    Args:
        model_dir: the model's folder.
        plan: what was trained.
        card_kind: the class of the card.
        weights: name -> tensor.
        seconds: that it took.
        more: further fields of the card.

    Raises:
        InputError: the weights cannot be written.
    """
    import torch

    from harness.training.keeping import write_whole

    kept = {name: value.cpu() for name, value in weights.items()}
    write_whole(
        model_dir / WEIGHTS_FILE,
        lambda part: torch.save(kept, part),
        sum(value.nbytes for value in kept.values()),
        "make room and give the same command again: the training goes on from its last checkpoint",
    )
    card = card_kind(
        **{name: getattr(plan, name) for name in type(plan).model_fields},
        seconds=round(seconds, 3),
        weights_sha256=file_sha256(model_dir / WEIGHTS_FILE),
        versions=library_versions() | more.pop("versions", {}),
        **more,
    )
    write(model_dir / CARD_FILE, card)
    return card


def library_versions() -> dict[str, str]:
    """Versions of the harness and of the libraries that shape a model."""
    return {"harness": harness.__version__} | {name: version(name) for name in _VERSIONED}


def write(path: Path, value: BaseModel) -> None:
    """Write a card or a plan: the file is whole or absent."""
    write_text(path, value.model_dump_json(indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text: the file is whole or absent."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def differences(there: BaseModel, wanted: BaseModel) -> list[str]:
    """Where two plans differ, as ``recipe.learning_rate: 0.002 there, 0.0017 wanted``."""
    before, after = (_flat(json.loads(plan.model_dump_json())) for plan in (there, wanted))
    keys = [*before, *(key for key in after if key not in before)]
    return [
        f"{key}: {before.get(key)} there, {after.get(key)} wanted" for key in keys if before.get(key) != after.get(key)
    ]


def _flat(value: Any, place: str = "") -> dict[str, Any]:
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        value = {str(row): part for row, part in enumerate(value)}
    if not isinstance(value, dict):
        return {place: value}
    return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{place}.{key}" if place else key).items()}
