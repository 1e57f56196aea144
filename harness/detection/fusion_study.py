"""The search for the settings of box fusion: the only door to Optuna here.

The search space reaches from all detectors weighing alike to the single best detector alone, so
fusion that cannot beat its best member on the photos of the search ends as that member.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from harness.detection.fusion import FusionSettings, fuse
from harness.types import Detections, InputError, Progress

if TYPE_CHECKING:
    import optuna

    from harness.detection.calibration import Calibration

CalibrationKind = Literal["none", "temperature", "isotonic"]

_CONF_TYPES = ("avg", "max", "box_and_model_avg", "absent_model_aware_avg")
_STUDY = "box fusion"

_LEAST_WEIGHT = 0.1
"""A free weight below this leaves the detector out."""

_NUM_RANDOM = 10
"""Trials drawn at random before the sampler trusts what it has seen."""


@dataclass(frozen=True)
class SearchSpace:
    """What is searched beside IoU threshold, skip threshold, confidence type and the detectors' shares.

    Attributes:
        label_policies: see `FusionSettings`.
        calibrations: of the scores; ``none`` leaves them as the detectors give them.
        free_weights: also a weight for each detector by itself, which leaves some of them out, instead of only the
            strongest few by the power of their own strength.
        largest_skip: upper end of the skip threshold.
    """

    label_policies: tuple[str, ...] = ("apart",)
    calibrations: tuple[CalibrationKind, ...] = ("none",)
    free_weights: bool = False
    largest_skip: float = 0.2


WIDE = SearchSpace(("apart", "best", "vote"), ("none", "temperature", "isotonic"), True, 0.3)
"""Everything there is: for a hundred trials and more."""


@dataclass(frozen=True)
class FittedFusion:
    """What a study found.

    Attributes:
        settings: the best of all trials.
        value: the objective of these settings on the photos of the study.
        member_values: of each detector alone, on the same photos.
        num_trials: settings tried.
    """

    settings: FusionSettings
    value: float
    member_values: tuple[float, ...]
    num_trials: int


def fit_fusion(
    detections: Sequence[Detections],
    sizes_wh: Mapping[int, tuple[int, int]],
    objective: Callable[[Detections], float],
    *,
    seed: int,
    num_trials: int = 30,
    space: SearchSpace | None = None,
    calibrations: Mapping[str, Sequence[Calibration]] | None = None,
    boxes_per_photo: int | None = None,
    max_per_image: int | None = None,
    storage: Path | None = None,
    progress: Progress | None = None,
) -> FittedFusion:
    """Search for the settings of the fusion of these detectors.

    Args:
        detections: one a detector, on photos that the detectors were **not** trained on and that are
            not what the result will be reported on.
        sizes_wh: width and height in pixels of every photo that has a box.
        objective: scores a set of boxes on those photos, in [0, 1]; higher is better.
        seed: of the search; the same seed finds the same settings, interrupted or not.
        num_trials: settings to try, at least 1; those that ``storage`` holds count.
        space: what is searched; None for the smallest space.
        calibrations: for each kind of ``space`` but ``none``, one a detector.
        boxes_per_photo: of each detector, the best so many a photo take part in the search (speed); None for all.
        max_per_image: put into the settings; not searched.
        storage: SQLite file from which an interrupted search goes on; None keeps nothing.
        progress: told of trials done and in all.

    Raises:
        ValueError: there is no detector, or no trial is allowed.
        InputError: the file holds a search over other boxes, or is damaged, or the disk is full.
    """
    import optuna

    if not detections or num_trials < 1:
        raise ValueError(f"expected detectors and trials, got {len(detections)} and {num_trials}")
    searched = space or SearchSpace()
    few = detections if boxes_per_photo is None else [best_of_each_photo(one, boxes_per_photo) for one in detections]
    member_values = tuple(float(objective(one)) for one in few)

    def settings_of(values: Mapping[str, Any]) -> FusionSettings:
        return _settings(values, member_values, calibrations or {}, max_per_image)

    def value_of(trial: optuna.Trial) -> float:
        return float(objective(fuse(few, sizes_wh, settings_of(_suggested(trial, searched, len(few))))))

    facts = (seed, member_values, asdict(searched), max_per_image)
    with _held(storage):
        study = _open_study(storage, _digest(few, facts), _first_trials(searched, len(few)))
        done = _completed(study)
        while done < num_trials:
            # A sampler a trial, seeded by its number: a search that was interrupted goes on as it would have.
            study.sampler = optuna.samplers.TPESampler(seed=seed * 1_000_003 + done, n_startup_trials=_NUM_RANDOM)
            study.optimize(value_of, n_trials=1)
            done = _completed(study)
            if progress is not None:
                progress(done, num_trials)
        return FittedFusion(settings_of(study.best_params), float(study.best_value), member_values, done)


@contextmanager
def _held(storage: Path | None) -> Iterator[None]:
    """One search at a time in a file: another waits, since it would take the trial that is being made for a lost one.

    Raises:
        InputError: the file cannot be read or written.
    """
    import optuna
    from filelock import FileLock

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if storage is None:
        yield
        return
    storage.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(storage.with_name(storage.name + ".lock")):
            yield
    except Exception as error:
        cause: BaseException | None = error  # Optuna hands its database's errors on in wrappers of others
        while cause is not None and not isinstance(cause, sqlite3.Error):
            cause = cause.__cause__
        if cause is None:
            raise
        raise InputError(
            f"{storage}: the search's file cannot be used ({cause}); where the disk is full make room, else remove the "
            "file and search anew"
        ) from error


def best_of_each_photo(detections: Detections, limit: int) -> Detections:
    """The ``limit`` boxes of the highest scores of every photo, in their old order; ties by row."""
    order = np.lexsort((-detections.scores, detections.image_ids))
    ids = detections.image_ids[order]
    place = np.arange(len(ids)) - np.searchsorted(ids, ids, "left")
    return detections.take(np.sort(order[place < limit]))


def _suggested(trial: optuna.Trial, space: SearchSpace, num_detectors: int) -> dict[str, Any]:
    values: dict[str, Any] = {
        "iou_threshold": trial.suggest_float("iou_threshold", 0.4, 0.95),
        "skip_threshold": trial.suggest_float("skip_threshold", 0.0, space.largest_skip),
        "conf_type": trial.suggest_categorical("conf_type", _CONF_TYPES),
    }
    for name, choices in (("label_policy", space.label_policies), ("calibration", space.calibrations)):
        if len(choices) > 1:
            values[name] = trial.suggest_categorical(name, choices)
    if space.free_weights:
        values["free_weights"] = trial.suggest_categorical("free_weights", (False, True))
    if values.get("free_weights", False):
        values |= {name: trial.suggest_float(name, 0.0, 1.0) for name in _weight_names(num_detectors)}
    else:
        values["strongest"] = trial.suggest_int("strongest", 1, num_detectors)
        values["trust"] = trial.suggest_float("trust", 0.0, 12.0)
    return values


def _first_trials(space: SearchSpace, num_detectors: int) -> list[dict[str, Any]]:
    """The published defaults; the loosest grouping of the best detector alone, which is that detector as it stands;
    then what served comparable detectors best in trials."""
    plain = {"skip_threshold": 0.0, "conf_type": "avg", "strongest": num_detectors, "trust": 0.0}
    if len(space.label_policies) > 1:
        plain["label_policy"] = "apart"
    if len(space.calibrations) > 1:
        plain["calibration"] = "none"
    if space.free_weights:
        plain["free_weights"] = False
    return [
        plain | {"iou_threshold": 0.55},
        plain | {"iou_threshold": 0.95, "strongest": 1},
        plain | {"iou_threshold": 0.65, "skip_threshold": 0.05, "trust": 2.0},
        plain | {"iou_threshold": 0.65, "trust": 4.0},
    ]


def _settings(
    values: Mapping[str, Any],
    strengths: Sequence[float],
    calibrations: Mapping[str, Sequence[Calibration]],
    max_per_image: int | None,
) -> FusionSettings:
    """Settings from the values of a trial: ``trust`` is the power of a detector's own strength in its weight."""
    kind = values.get("calibration", "none")
    return FusionSettings(
        iou_threshold=values["iou_threshold"],
        skip_threshold=values["skip_threshold"],
        conf_type=values["conf_type"],
        label_policy=values.get("label_policy", "apart"),
        calibrations=None if kind == "none" else tuple(calibrations[kind]),
        weights=tuple(float(weight) for weight in _weights(values, np.asarray(strengths, np.float64))),
        max_per_image=max_per_image,
    )


def _weights(values: Mapping[str, Any], strengths: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
    if values.get("free_weights", False):
        free = np.array([values[name] for name in _weight_names(len(strengths))])
        free[free < _LEAST_WEIGHT] = 0.0
        return free if free.any() else np.ones(len(strengths))
    strongest = np.argsort(-strengths, kind="stable")[: values["strongest"]]
    takes_part = np.isin(np.arange(len(strengths)), strongest)
    # 0 to the power of 0 is 1: without trust, a detector that finds nothing weighs as much as the others.
    share = strengths / strengths.max() if strengths.max() > 0 else np.ones(len(strengths))
    return np.where(takes_part, share ** values["trust"], 0.0)


def _weight_names(num_detectors: int) -> list[str]:
    return [f"weight {number}" for number in range(num_detectors)]


def _open_study(storage: Path | None, digest: str, first_trials: Sequence[dict[str, Any]]) -> optuna.Study:
    import optuna

    study = optuna.create_study(
        storage=None if storage is None else f"sqlite:///{storage}",
        study_name=_STUDY,
        direction="maximize",
        load_if_exists=True,
    )
    there = study.user_attrs.get("digest")
    if there is None:
        for values in first_trials[len(study.get_trials(deepcopy=False)) :]:  # some, if a search was killed right here
            study.enqueue_trial(values)
        study.set_user_attr("digest", digest)
    elif there != digest:
        raise InputError(
            f"{storage}: holds a search over other boxes or of another seed; name another file or delete it"
        )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        # Left behind by a killed search. What it was told to try is put back; the rest is drawn again.
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        fixed = trial.system_attrs.get("fixed_params")
        if fixed is not None:
            study.enqueue_trial(fixed)
    return study


def _completed(study: optuna.Study) -> int:
    import optuna

    return len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))


def _digest(detections: Sequence[Detections], facts: object) -> str:
    digest = hashlib.sha256(repr(facts).encode())
    for one in detections:
        for column in (one.image_ids, one.boxes_xyxy, one.scores, one.category_ids):
            digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()
