"""Fitting the settings of box fusion on held-out training photos: the only door to Optuna here.

The search space reaches from all detectors weighing alike to the single best detector alone, so
fusion that cannot beat its best member on the held-out photos ends as that member.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.detection.fusion import FusionSettings, fuse
from harness.types import Detections, InputError, Progress

if TYPE_CHECKING:
    import optuna

_CONF_TYPES = ("avg", "max", "box_and_model_avg", "absent_model_aware_avg")
_STUDY = "box fusion"

_FIRST_TRIALS: tuple[dict[str, Any], ...] = (
    # The published defaults; the loosest grouping of the best detector alone, which is that
    # detector as it stands; then what served comparable detectors best in trials.
    {"iou_threshold": 0.55, "skip_threshold": 0.0, "conf_type": "avg", "best_alone": False, "trust": 0.0},
    {"iou_threshold": 0.95, "skip_threshold": 0.0, "conf_type": "avg", "best_alone": True, "trust": 0.0},
    {"iou_threshold": 0.65, "skip_threshold": 0.05, "conf_type": "avg", "best_alone": False, "trust": 2.0},
    {"iou_threshold": 0.65, "skip_threshold": 0.0, "conf_type": "avg", "best_alone": False, "trust": 4.0},
)


@dataclass(frozen=True)
class FittedFusion:
    """What a study found.

    Attributes:
        settings: the best of all trials.
        ap50: of these settings on the photos of the study.
        member_ap50s: of each detector alone, on the same photos.
        num_trials: settings tried.
    """

    settings: FusionSettings
    ap50: float
    member_ap50s: tuple[float, ...]
    num_trials: int


def fit_fusion(
    detections: Sequence[Detections],
    sizes_wh: Mapping[int, tuple[int, int]],
    ap50: Callable[[Detections], float],
    *,
    seed: int,
    num_trials: int = 30,
    boxes_per_photo: int = 8,
    max_per_image: int | None = None,
    storage: Path | None = None,
    progress: Progress | None = None,
) -> FittedFusion:
    """Search for the settings of the fusion of these detectors.

    Args:
        detections: one a detector, on photos that the detectors were **not** trained on and that are
            not what the result will be reported on.
        sizes_wh: width and height in pixels of every photo that has a box.
        ap50: scores a set of boxes on those photos, in [0, 1].
        seed: of the search; the same seed finds the same settings, interrupted or not.
        num_trials: settings to try, at least 1.
        boxes_per_photo: of each detector, the best so many a photo take part in the search (speed).
        max_per_image: put into the settings that are found; not searched.
        storage: SQLite file from which an interrupted search goes on; None keeps nothing.
        progress: told of trials done and in all.

    Raises:
        ValueError: there is no detector, or no trial is allowed.
        InputError: the file holds a search over other boxes.
    """
    import optuna

    if not detections or num_trials < 1:
        raise ValueError(f"expected detectors and trials, got {len(detections)} and {num_trials}")
    few = [best_of_each_photo(one, boxes_per_photo) for one in detections]
    member_ap50s = tuple(float(ap50(one)) for one in few)

    def objective(trial: optuna.Trial) -> float:
        values = {
            "iou_threshold": trial.suggest_float("iou_threshold", 0.4, 0.95),
            "skip_threshold": trial.suggest_float("skip_threshold", 0.0, 0.2),
            "conf_type": trial.suggest_categorical("conf_type", _CONF_TYPES),
            "best_alone": trial.suggest_categorical("best_alone", (False, True)),
            "trust": trial.suggest_float("trust", 0.0, 12.0),
        }
        return float(ap50(fuse(few, sizes_wh, _settings(values, member_ap50s, None))))

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _open_study(storage, _digest(few, member_ap50s, seed))
    done = _completed(study)
    while done < num_trials:
        # A sampler a trial, seeded by its number: a search that was interrupted goes on as it would have.
        study.sampler = optuna.samplers.TPESampler(seed=seed * 1_000_003 + done, n_startup_trials=10)
        study.optimize(objective, n_trials=1)
        done = _completed(study)
        if progress is not None:
            progress(done, num_trials)
    settings = _settings(study.best_params, member_ap50s, max_per_image)
    return FittedFusion(settings, float(study.best_value), member_ap50s, done)


def best_of_each_photo(detections: Detections, limit: int) -> Detections:
    """The ``limit`` boxes of the highest scores of every photo, in their old order; ties by row."""
    order = np.lexsort((-detections.scores, detections.image_ids))
    ids = detections.image_ids[order]
    place = np.arange(len(ids)) - np.searchsorted(ids, ids, "left")
    return detections.take(np.sort(order[place < limit]))


def _settings(values: Mapping[str, Any], member_ap50s: Sequence[float], max_per_image: int | None) -> FusionSettings:
    """Settings from the values of a trial: ``trust`` is the power of a detector's own AP50 in its weight."""
    strength = np.asarray(member_ap50s, np.float64)
    if values["best_alone"]:
        weights = (np.arange(len(strength)) == int(np.argmax(strength))).astype(np.float64)
    elif strength.max() <= 0:
        weights = np.ones(len(strength))
    else:
        weights = (strength / strength.max()) ** values["trust"]
    return FusionSettings(
        iou_threshold=values["iou_threshold"],
        skip_threshold=values["skip_threshold"],
        conf_type=values["conf_type"],
        weights=tuple(float(weight) for weight in weights),
        max_per_image=max_per_image,
    )


def _open_study(storage: Path | None, digest: str) -> optuna.Study:
    import optuna

    if storage is not None:
        storage.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=None if storage is None else f"sqlite:///{storage}",
        study_name=_STUDY,
        direction="maximize",
        load_if_exists=True,
    )
    there = study.user_attrs.get("digest")
    if there is None:
        study.set_user_attr("digest", digest)
        for values in _FIRST_TRIALS:
            study.enqueue_trial(values)
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


def _digest(detections: Sequence[Detections], member_ap50s: Sequence[float], seed: int) -> str:
    digest = hashlib.sha256(repr((seed, member_ap50s)).encode())
    for one in detections:
        for column in (one.image_ids, one.boxes_xyxy, one.scores, one.category_ids):
            digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()
