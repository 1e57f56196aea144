"""A recipe from any mmdet config: its model, transforms, optimiser, schedule and thresholds.

What a config says in a way that has no counterpart here is left out and told in a note; what it does
not say at all is as in ``[defaults.full]`` of ``detectors.toml``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.detection.configs import (
    config_path,
    configs_folder,
    load_model_config,
    merged,
    plain,
    read_config,
    zoo_address,
)
from harness.detection.placement import MULTIPLE_PX
from harness.detection.recipes import DetectorRecipe, DetectorScale, check_name, default_scale
from harness.types import InputError

_USUAL_GPUS = 8
"""For how many GPUs mmdet's configs are written where they do not say otherwise."""

_MIXES_SINGLY = ("Mosaic", "RandomAffine", "MixUp")
"""What YOLOX drops together in its last epochs: its affine change is made for four photos in one."""

_NO_DECAY = ("norm_decay_mult", "bias_decay_mult")


def recipe_of_config(name: str, config: str) -> tuple[DetectorRecipe, list[str]]:
    """A detector of the given name that is trained as a config says.

    The recipe holds the config's whole model, so the file is needed no more, and the same content at another path
    makes the same recipe.

    Args:
        name: of the detector, for folders and for the ensemble language.
        config: path of a file, or a path inside the mmdet wheel.

    Returns:
        The recipe, and notes on what of the config is not followed.

    Raises:
        InputError: the name cannot be taken, or the config cannot be read or trained here.
    """
    from harness.detection.trial import try_out

    check_name(name)
    path = config_path(config)
    values = read_config(path)
    notes: list[str] = []
    try:
        scale = _scale(values, str(path), notes)
    except InputError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {place}: {first['msg']}, got {first['input']!r}") from error
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise InputError(
            f"{path}: a part of it is not as mmdet 3 has it: {type(error).__name__}: {error}; compare it with a config "
            "of mmdet 3 of the same kind"
        ) from error
    if scale.coco_weights is None and path.is_relative_to(configs_folder()):
        address = zoo_address(path.relative_to(configs_folder()).as_posix())
        scale = scale.model_copy(update={"coco_weights": address})
    recipe = DetectorRecipe(name=name, full=scale)
    try_out(scale, str(path))
    return recipe, notes


def self_contained(scale: DetectorScale) -> DetectorScale:
    """Settings whose whole model is in them, unless it is a config of the mmdet wheel.

    Raises:
        InputError: the config cannot be read.
    """
    in_wheel = not Path(scale.config).is_absolute() and (configs_folder() / scale.config).is_file()
    if scale.config == "" or in_wheel:
        return scale
    model = plain(merged(load_model_config(scale.config), scale.model), f"{scale.config}: model")
    return scale.model_copy(update={"config": "", "model": model})


def _scale(values: Mapping[str, Any], where: str, notes: list[str]) -> DetectorScale:
    if "data" in values and "train_dataloader" not in values:
        raise InputError(
            f"{where}: this is a config of mmdet 2 ('data' instead of 'train_dataloader'); port it to mmdet 3 first, "
            "see mmdet's migration guide"
        )
    defaults = default_scale()
    model = plain(values["model"], f"{where}: model")
    if "data_preprocessor" not in model:
        model["data_preprocessor"] = plain(values.get("data_preprocessor") or {}, f"{where}: data_preprocessor")
    pixels = model["data_preprocessor"]
    if pixels.get("batch_augments"):
        notes.append("data_preprocessor.batch_augments: changes of whole batches are left out")
    if pixels.get("pad_size_divisor", 1) > MULTIPLE_PX:
        notes.append(f"data_preprocessor.pad_size_divisor: photos are padded to multiples of {MULTIPLE_PX}")
    if "mean" not in pixels:
        notes.append("data_preprocessor.mean: absent; the network is given values from 0 to 255")
    hooks = [_kind(hook) for hook in values.get("custom_hooks") or []]
    idle = [kind for kind in hooks if kind not in ("PipelineSwitchHook", "SetEpochInfoHook", "SyncNormHook")]
    if idle:
        notes.append(f"custom_hooks: {', '.join(idle)} are not run")
    dataset = (values.get("train_dataloader") or {}).get("dataset") or {"pipeline": values.get("train_pipeline", [])}
    steps, times = _dataset(dataset)
    steps = _without_mixing(steps, values, notes)
    if "Normalize" in map(_kind, steps):
        notes.append("train_pipeline: Normalize is left out; normalisation is that of the data_preprocessor")
    steps = [step for step in steps if not _kind(step).startswith(("Load", "Pack", "Normalize"))]
    found: dict[str, Any] = {
        "config": "",
        "model": model,
        "transforms": plain(steps, f"{where}: train_pipeline") or None,
        "coco_weights": values.get("load_from"),
        **_optimiser(values, defaults, notes),
        **_length(values, defaults, times, notes),
        **_limits(values["model"], defaults),
    }
    samples = (values.get("train_dataloader") or {}).get("batch_size")
    base_batch = (values.get("auto_scale_lr") or {}).get("base_batch_size")
    if samples and "optimiser" in found and (base_batch is None or base_batch < samples):
        # Smaller than one GPU's share (RTMDet's 16 against 32): inherited from a base for another learning rate.
        told = "absent" if base_batch is None else f"{base_batch} photos are less than one GPU's"
        base_batch = _USUAL_GPUS * samples
        notes.append(
            f"auto_scale_lr: {told}; the learning rate is taken to be for {_USUAL_GPUS} GPUs of {samples} photos, so a "
            f"step has {base_batch} photos (--batch-size changes both)"
        )
    if base_batch:
        found["batch_size"] = base_batch
    input_px = _input_px(values, steps)
    if input_px is not None:
        found["input_px"] = input_px
    taken = {key: value for key, value in defaults.items() if key not in ("num_epochs", "num_steps", *found)}
    return DetectorScale.model_validate({**taken, **found})


def _kind(step: Mapping[str, Any]) -> str:
    return str(step.get("type", "")).rsplit(".", 1)[-1]


def _dataset(node: Mapping[str, Any]) -> tuple[list[Any], float]:
    """The transforms of a data set and of all that is wrapped around it; how often it is repeated in an epoch."""
    if node.get("datasets"):
        node = node["datasets"][0]
    steps, times = _dataset(node["dataset"]) if node.get("dataset") else ([], 1.0)
    if _kind(node) == "RepeatDataset":
        times *= node.get("times", 1)
    return steps + list(node.get("pipeline") or []), times


def _without_mixing(steps: list[Any], values: Mapping[str, Any], notes: list[str]) -> list[Any]:
    """The transforms without those that need several photos: as the config itself trains in its last epochs."""
    from harness.detection.transforms import MIXING

    mixing = sorted({kind for step in steps for kind in _kinds(step) if kind in MIXING})
    if not mixing:
        return steps
    told = f"train_pipeline: {', '.join(mixing)} mix several photos, which is not supported here"
    hooks = {_kind(hook): hook for hook in values.get("custom_hooks") or []}
    if "PipelineSwitchHook" in hooks:
        notes.append(f"{told}; the transforms of the config's last epochs are used throughout")
        steps = list(hooks["PipelineSwitchHook"]["switch_pipeline"])
        return [step for step in steps if not set(_kinds(step)) & set(MIXING)]
    dropped = set(mixing)
    if "YOLOXModeSwitchHook" in hooks or "Mosaic" in mixing:
        dropped |= set(hooks.get("YOLOXModeSwitchHook", {}).get("skip_type_keys", _MIXES_SINGLY))
    left = [step for step in steps if not set(_kinds(step)) & dropped]
    notes.append(f"{told}; left out: {', '.join(_kind(step) for step in steps if step not in left)}")
    return left


def _kinds(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if "type" in node:
            yield _kind(node)
        for value in node.values():
            yield from _kinds(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _kinds(value)


def _optimiser(values: Mapping[str, Any], defaults: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    wrapper = values.get("optim_wrapper") or {}
    given = wrapper.get("optimizer")
    found: dict[str, Any] = {"gradient_clip": (wrapper.get("clip_grad") or {}).get("max_norm")}
    if _kind(wrapper) in ("AmpOptimWrapper", "OptimWrapper"):
        found["precision"] = "16-mixed" if _kind(wrapper) == "AmpOptimWrapper" else "32-true"
    if wrapper.get("constructor"):
        notes.append(f"optim_wrapper.constructor {wrapper['constructor']}: its learning rates a layer are left out")
    kinds = {"SGD": "sgd", "AdamW": "adamw", "Adam": "adamw"}
    if not given or _kind(given) not in kinds:
        if given:
            notes.append(f"optim_wrapper.optimizer {_kind(given)}: not supported, trained by the default optimiser")
        return found
    if _kind(given) == "Adam":
        notes.append("optim_wrapper.optimizer Adam: trained by AdamW")
    optimiser = {"kind": kinds[_kind(given)], "learning_rate": given["lr"]}
    optimiser["weight_decay"] = given.get("weight_decay", 0.01 if _kind(given) == "AdamW" else 0.0)
    if optimiser["kind"] == "sgd":
        optimiser["momentum"] = given.get("momentum", 0.0)
    by_part = wrapper.get("paramwise_cfg") or {}
    # Under AdamW norms and biases do not decay here either.
    done = ("custom_keys", "bypass_duplicate", *(_NO_DECAY if optimiser["kind"] == "adamw" else ()))
    left_out = [f"{key} {value}" for key, value in by_part.items() if key not in done]
    if left_out:
        notes.append(f"optim_wrapper.paramwise_cfg: {', '.join(left_out)}: left out")
    keys = by_part.get("custom_keys") or {}
    if "lr_mult" in keys.get("backbone", {}):
        optimiser["backbone_factor"] = keys["backbone"]["lr_mult"]
    others = [key for key, value in keys.items() if key != "backbone" and "lr_mult" in value]
    if others:
        notes.append(f"optim_wrapper.paramwise_cfg: {', '.join(others)} learn at the rate of the rest")
    found["optimiser"] = optimiser
    return found


def _length(values: Mapping[str, Any], defaults: Mapping[str, Any], times: float, notes: list[str]) -> dict[str, Any]:
    """Epochs or steps, warm-up, and the schedule after it."""
    loop = values.get("train_cfg") or {}
    if loop.get("max_iters"):
        total, found = loop["max_iters"], {"num_steps": loop["max_iters"]}
    else:
        total = loop.get("max_epochs") or defaults["num_epochs"]
        found = {"num_epochs": total * times}
    given = values.get("param_scheduler") or []
    parts = given if isinstance(given, list | tuple) else [given]
    if not parts:
        return found
    found |= {"warmup_steps": 0, "warmup_fraction": 0.0, "schedule": "steps", "milestones": ()}
    for part in parts:
        kind = _kind(part)
        if kind in ("LinearLR", "QuadraticWarmupLR", "ConstantLR") and part.get("begin", 0) == 0 and part.get("end"):
            if part.get("by_epoch", True):
                found["warmup_fraction"] = min(1.0, part["end"] / total)
            else:
                found["warmup_steps"] = part["end"]
        elif kind in ("MultiStepLR", "StepLR"):
            size = part.get("step_size", total)
            stones = part.get("milestones") or range(size, total, size)
            found["milestones"] = tuple(min(1.0, stone / total) for stone in stones)
            if part.get("gamma", 0.1) != 0.1:
                notes.append(f"param_scheduler {kind}: the rate falls to a tenth, not by gamma {part['gamma']}")
        elif kind == "CosineAnnealingLR":
            found["schedule"] = "cosine"
            if part.get("begin", 0) > 0.1 * total or part.get("eta_min"):
                notes.append("param_scheduler CosineAnnealingLR: the cosine begins after the warm-up and ends at zero")
        elif kind not in ("LinearLR", "ConstantLR"):
            notes.append(f"param_scheduler {kind}: not supported, left out")
    return found


def _limits(model: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    test = model.get("test_cfg") or {}
    test = test.get("rcnn") or test
    if not isinstance(test, Mapping):  # one a stage, as in HTC's relatives
        test = test[-1]
    threshold, most = test.get("score_thr"), test.get("max_per_img")
    return {
        "score_threshold": defaults["score_threshold"] if threshold is None else threshold,
        "max_per_image": most or defaults["max_per_image"],
    }


def _input_px(values: Mapping[str, Any], training: list[Any]) -> tuple[int, int] | None:
    """Longest and shortest side: of the size at test, else of the training photos."""
    loader = values.get("test_dataloader") or values.get("val_dataloader") or {}
    testing = _dataset(loader.get("dataset") or {"pipeline": values.get("test_pipeline") or []})[0]
    for steps in (testing, training):
        sides = [side for step in steps for side in _sizes(step)]
        if sides:
            longest, shortest = max(sides, key=lambda pair: pair[0] * pair[1])
            return longest, shortest
    return None


def _sizes(node: Any) -> Iterator[tuple[int, int]]:
    if isinstance(node, Mapping):
        if "Resize" in _kind(node):
            given = node.get("scale", node.get("scales"))
            if isinstance(given, int) and "max_size" in node:
                given = (node["max_size"], given)
            pairs = given if isinstance(given, list) else [given]
            for pair in pairs:
                if isinstance(pair, int):
                    pair = (pair, pair)
                if isinstance(pair, tuple | list) and len(pair) == 2:
                    yield max(pair), min(pair)
        for key, value in node.items():
            if key != "scales":
                yield from _sizes(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _sizes(value)
