"""How boxes are fused: the settings of `harness.detection.fusion.fuse`, checked when they are made."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from harness.detection.calibration import Calibration
from harness.types import Floats

ConfidenceType = Literal["avg", "max", "box_and_model_avg", "absent_model_aware_avg"]
FusionMethod = Literal["wbf", "nms", "soft_nms", "nmw"]
LabelPolicy = Literal["apart", "best", "vote"]


class FusionSettings(BaseModel):
    """How boxes are fused.

    Attributes:
        method: ``wbf`` makes one box of those of a group; ``nms``, ``soft_nms`` (Gaussian) and ``nmw`` (non-maximum
            weighted) are those of ensemble-boxes, photo by photo and a hundred times slower. ``soft_nms`` leaves the
            scores of the boxes that it keeps as they were, as that package does.
        iou_threshold: boxes of one category with a larger IoU become one.
        skip_threshold: boxes of a lower score are left out; the calibrated score, where there is a calibration.
        conf_type: how a fused box's score is made, see `weighted_boxes_fusion`; for ``wbf`` alone.
        weights: one a detector, not negative, not all 0; a detector of weight 0 takes no part.
            None weighs all alike.
        max_per_image: most fused boxes a photo; None for no limit.
        label_policy: what happens where detectors see one garment and two categories.

            ``apart``: boxes of different categories never meet, as in ensemble-boxes. The garment is handed in under
            both, which average precision and the official protocol reward and the strict protocol does not.

            ``best``: fused apart; then, of the fused boxes of a photo, by descending score, one that overlaps one of
            another category which stays by more than ``label_iou`` goes. Of equal scores the smaller category stays.

            ``vote``: boxes whose IoU is above ``iou_threshold`` form a group whatever their category, by descending
            weighted score; boxes of score 0 are left out. A group's category is the one with the largest sum of
            weighted scores; of equal sums that of the better-scored box, then of the earlier detector. Box and score
            are what the boxes *of that category* make, and the others go. So the score says how sure the detectors
            are of this garment in this category, lower for a disputed one, and compares with scores of that category
            elsewhere, on which average precision rests, and the choice of the box that speaks for a query; and where
            a top was grouped with the outwear over it, it does not pull that box away. On 800 rendered photos, five
            detectors and an IoU of .55: AP .322; with all boxes of a group instead .240; with the box of all and the
            score of the winners .313. (``apart`` has .378 there: average precision rewards a second guess.) For
            ``wbf`` alone. Needs an ``iou_threshold`` above the overlap of garments that are worn over one another.
        label_iou: for ``best`` alone.
        calibrations: one a detector, or None for one that is taken as it is; applied to its scores before all else.
            None takes all as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: FusionMethod = "wbf"
    iou_threshold: float = Field(default=0.55, ge=0, le=1)
    skip_threshold: float = Field(default=0.0, ge=0, le=1)
    conf_type: ConfidenceType = "avg"
    weights: tuple[float, ...] | None = None
    max_per_image: int | None = Field(default=None, ge=1)
    label_policy: LabelPolicy = "apart"
    label_iou: float = Field(default=0.8, ge=0, le=1)
    calibrations: tuple[Calibration | None, ...] | None = None

    @field_validator("weights")
    @classmethod
    def _usable(cls, weights: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if weights is not None:
            check_weights(np.asarray(weights, np.float64), len(weights))
        return weights

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.label_policy == "vote" and self.method != "wbf":
            raise ValueError(f"label_policy 'vote' is for method 'wbf', not {self.method!r}: take 'best' or 'apart'")
        if self.weights is None or self.calibrations is None:
            return self
        if len(self.weights) != len(self.calibrations):
            raise ValueError(
                f"expected one a detector of weights and calibrations, got {len(self.weights)} and "
                f"{len(self.calibrations)}"
            )
        return self


def check_weights(weights: Floats, num_detectors: int) -> None:
    """Raise `ValueError` unless there is one weight a detector, none negative or infinite, and one above 0."""
    if weights.shape != (num_detectors,):
        raise ValueError(f"weights: expected one a detector, {num_detectors}, got {weights.size}")
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        detector = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"weights: that of detector {detector} must be a number >= 0, got {weights[detector]}")
    if num_detectors and not weights.any():
        raise ValueError("weights: at least one must be greater than 0")
