"""Weighted boxes fusion (Solovyev et al. 2021): the boxes of several detectors become one set.

Fusion is done on boxes in units of the photo (``boxes_unit``, 0–1); pixels are converted in
`fuse`, nowhere else. Legend: M detectors, N boxes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from harness.types import Detections, Floats, Ints

ConfidenceType = Literal["avg", "max", "box_and_model_avg", "absent_model_aware_avg"]

_OUTSIDE_PX = 1.0
"""A box may stick out of its photo by this much (rounding in others' result files) and is cut."""


class FusionSettings(BaseModel):
    """How boxes are fused.

    Attributes:
        iou_threshold: boxes of one category with a larger IoU become one.
        skip_threshold: boxes of a lower score are left out.
        conf_type: how a fused box's score is made, see `weighted_boxes_fusion`.
        weights: one a detector, not negative, not all 0; a detector of weight 0 takes no part.
            None weighs all alike.
        max_per_image: most fused boxes a photo; None for no limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    iou_threshold: float = Field(default=0.55, ge=0, le=1)
    skip_threshold: float = Field(default=0.0, ge=0, le=1)
    conf_type: ConfidenceType = "avg"
    weights: tuple[float, ...] | None = None
    max_per_image: int | None = Field(default=None, ge=1)

    @field_validator("weights")
    @classmethod
    def _usable(cls, weights: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if weights is not None:
            _check_weights(np.asarray(weights, np.float64), len(weights))
        return weights


def weighted_boxes_fusion(
    boxes_list: Sequence[Any],
    scores_list: Sequence[Any],
    labels_list: Sequence[Any],
    weights: Sequence[float] | None = None,
    iou_thr: float = 0.55,
    skip_box_thr: float = 0.0,
    conf_type: str = "avg",
    allows_overflow: bool = False,
) -> tuple[Floats, Floats, Floats]:
    """Fuse the boxes of several detectors in one photo, as the function of that name in ensemble-boxes does.

    Boxes of no area are left out. Where every box of a group has score 0, that package divides by
    zero; such a group is left out here.

    Args:
        boxes_list: M of (N, 4), units of the photo in [0, 1], x1 <= x2 and y1 <= y2.
        scores_list: M of (N,) in [0, 1].
        labels_list: M of (N,) whole numbers.
        weights: M numbers, not negative, not all 0; None weighs all alike.
        iou_thr: boxes of one label with a larger IoU become one.
        skip_box_thr: boxes of a lower score are left out.
        conf_type: ``avg``, ``max``, ``box_and_model_avg`` or ``absent_model_aware_avg``.
        allows_overflow: with ``avg``, let scores grow above 1 where a detector gives several boxes.

    Returns:
        boxes (N, 4), scores (N,) and labels (N,), all float64, by descending score.

    Raises:
        ValueError: input of another form; the message names the detector and the box.
    """
    if not len(boxes_list) == len(scores_list) == len(labels_list):
        raise ValueError(
            f"expected one list a detector of boxes, scores and labels, got {len(boxes_list)}, "
            f"{len(scores_list)} and {len(labels_list)}"
        )
    if conf_type not in get_args(ConfidenceType):
        raise ValueError(f"conf_type {conf_type!r}: expected one of {', '.join(get_args(ConfidenceType))}")
    for name, value in (("iou_thr", iou_thr), ("skip_box_thr", skip_box_thr)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: expected a number in [0, 1], got {value}")
    if weights is not None:
        _check_weights(np.asarray(weights, np.float64), len(boxes_list))
    checked = [_checked(m, *lists) for m, lists in enumerate(zip(boxes_list, scores_list, labels_list, strict=True))]
    return _fused(checked, weights, iou_thr, skip_box_thr, conf_type, allows_overflow)


def _fused(
    checked: Sequence[tuple[Floats, Floats, Floats]],
    weights: Sequence[float] | None,
    iou_thr: float,
    skip_box_thr: float,
    conf_type: str,
    allows_overflow: bool,
) -> tuple[Floats, Floats, Floats]:
    from ensemble_boxes import weighted_boxes_fusion as engine

    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.filterwarnings("ignore", message="Zero area box skipped")
        boxes, scores, labels = engine(
            [one[0] for one in checked],
            [one[1] for one in checked],
            [one[2] for one in checked],
            weights=weights,
            iou_thr=iou_thr,
            skip_box_thr=skip_box_thr,
            conf_type=conf_type,
            allows_overflow=allows_overflow,
        )
    sound = np.isfinite(boxes).all(axis=1)
    return boxes[sound], scores[sound], labels[sound]


def _check_weights(weights: Floats, num_detectors: int) -> None:
    if weights.shape != (num_detectors,):
        raise ValueError(f"weights: expected one a detector, {num_detectors}, got {weights.size}")
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        detector = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"weights: that of detector {detector} must be a number >= 0, got {weights[detector]}")
    if num_detectors and not weights.any():
        raise ValueError("weights: at least one must be greater than 0")


def _checked(detector: int, boxes: Any, scores: Any, labels: Any) -> tuple[Floats, Floats, Floats]:
    where = f"detector {detector}"
    boxes_unit = np.asarray(boxes, np.float64)
    boxes_unit = boxes_unit.reshape(0, 4) if boxes_unit.size == 0 else boxes_unit
    if boxes_unit.ndim != 2 or boxes_unit.shape[1] != 4:
        raise ValueError(f"{where}: expected boxes of shape (N, 4), got {boxes_unit.shape}")
    columns = {"scores": np.asarray(scores, np.float64), "labels": np.asarray(labels, np.float64)}
    for name, column in columns.items():
        if column.shape != (len(boxes_unit),):
            raise ValueError(f"{where}: expected {len(boxes_unit)} {name}, one a box, got shape {column.shape}")
    given, names = columns["scores"], columns["labels"]
    _refuse(where, ~np.isfinite(boxes_unit).all(axis=1), "is not finite", boxes_unit)
    outside = ((boxes_unit < 0) | (boxes_unit > 1)).any(axis=1)
    _refuse(where, outside, "is outside [0, 1] (divide pixels by the photo's width and height)", boxes_unit)
    inverted = (boxes_unit[:, 0] > boxes_unit[:, 2]) | (boxes_unit[:, 1] > boxes_unit[:, 3])
    _refuse(where, inverted, "is inverted (expected x1 y1 x2 y2)", boxes_unit)
    _refuse(where, ~((given >= 0) & (given <= 1)), "has a score outside [0, 1]", given)
    _refuse(where, ~np.isfinite(names) | (names != np.round(names)), "has a label that is no whole number", names)
    return boxes_unit, given, names


def _refuse(where: str, wrong: Any, what: str, values: Any) -> None:
    if wrong.any():
        box = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"{where}: box {box} {what}: {np.asarray(values[box]).tolist()}")


def fuse(
    detections: Sequence[Detections], sizes_wh: Mapping[int, tuple[int, int]], settings: FusionSettings
) -> Detections:
    """Fuse the boxes of several detectors, photo by photo.

    Args:
        detections: one a detector, in the order of ``settings.weights``.
        sizes_wh: width and height in pixels of every photo that has a box.
        settings: how.

    Returns:
        The fused boxes by ascending image id, within a photo by descending score.

    Raises:
        ValueError: the number of weights is not that of the detectors, a photo's size is missing, or
            a box sticks out of its photo by more than a pixel.
    """
    weights = np.ones(len(detections)) if settings.weights is None else np.asarray(settings.weights, np.float64)
    _check_weights(weights, len(detections))
    members = [(m, one) for m, one in enumerate(detections) if weights[m] > 0]
    used = [float(weights[m]) for m, _ in members]
    units = [_in_units(m, one, sizes_wh) for m, one in members]
    orders = [np.argsort(one.image_ids, kind="stable") for _, one in members]
    image_ids = np.unique(np.concatenate([one.image_ids for _, one in members] or [np.zeros(0, np.int64)]))
    bounds = [np.searchsorted(one.image_ids[order], [image_ids, image_ids + 1]) for (_, one), order in zip(
        members, orders, strict=True
    )]  # fmt: skip
    parts = []
    for row, image_id in enumerate(image_ids):
        given = []
        for (_, one), unit, order, (first, last) in zip(members, units, orders, bounds, strict=True):
            rows = order[first[row] : last[row]]
            given.append((unit[rows], one.scores[rows], one.category_ids[rows].astype(np.float64)))
        boxes, scores, labels = _fused(
            given, used, settings.iou_threshold, settings.skip_threshold, settings.conf_type, False
        )
        parts.append(_in_pixels(int(image_id), boxes, scores, labels, sizes_wh, settings.max_per_image))
    return Detections.concatenate(parts)


def _in_units(detector: int, detections: Detections, sizes_wh: Mapping[int, tuple[int, int]]) -> Floats:
    present, inverse = np.unique(detections.image_ids, return_inverse=True)
    missing = [int(image_id) for image_id in present if int(image_id) not in sizes_wh]
    if missing:
        raise ValueError(f"sizes_wh: there is no size for image id {missing[0]}, where detector {detector} has a box")
    sizes = np.array([sizes_wh[int(image_id)] for image_id in present], np.float64).reshape(-1, 2)
    sides = np.tile(sizes[inverse], 2)
    boxes = detections.boxes_xyxy
    sticks_out = ((boxes < -_OUTSIDE_PX) | (boxes > sides + _OUTSIDE_PX)).any(axis=1)
    if sticks_out.any():
        row = int(np.flatnonzero(sticks_out)[0])
        raise ValueError(
            f"detector {detector}: row {row}, image id {int(detections.image_ids[row])}: box {boxes[row].tolist()} "
            f"sticks out of the photo, which is {sides[row, 0]:.0f} x {sides[row, 1]:.0f} pixels"
        )
    unit: Floats = np.clip(boxes / sides, 0, 1) if len(boxes) else np.zeros((0, 4))
    return unit


def _in_pixels(
    image_id: int,
    boxes_unit: Floats,
    scores: Floats,
    labels: Floats,
    sizes_wh: Mapping[int, tuple[int, int]],
    limit: int | None,
) -> Detections:
    width, height = sizes_wh[image_id]
    order = np.lexsort((*boxes_unit.T[::-1], labels, -scores))[:limit]
    boxes = np.clip(boxes_unit[order], 0, 1) * np.array([width, height, width, height], np.float64)
    owner = np.full(len(order), image_id, np.int64)
    return Detections(owner, boxes, np.clip(scores[order], 0, 1), labels[order].astype(np.int64))


def keep_best(detections: Detections, budget: int) -> Detections:
    """The ``budget`` boxes of the highest scores over all photos, in their old order.

    Args:
        detections: over a split.
        budget: how many to keep, at least 0; the paper's 590k, 440k and 126k.

    Returns:
        At most ``budget`` boxes; among equal scores the lower image id, then the earlier row, stays.

    Raises:
        ValueError: the budget is negative.
    """
    if budget < 0:
        raise ValueError(f"budget: expected a number of boxes >= 0, got {budget}")
    best: Ints = np.lexsort((detections.image_ids, -detections.scores))[:budget]
    return detections.take(np.sort(best))
