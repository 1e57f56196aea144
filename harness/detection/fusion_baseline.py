"""ensemble-boxes, photo by photo: the fusion that ours is timed beside; nothing else uses it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.detection.fusion_settings import FusionSettings
from harness.types import Detections, Floats


@dataclass(frozen=True, eq=False)
class PhotoLists:
    """The boxes of one photo in the form that ensemble-boxes takes.

    Attributes:
        boxes: one (N, 4) a detector, in units of the photo.
        scores: one (N,) a detector.
        labels: one (N,) a detector.
    """

    boxes: list[Floats]
    scores: list[Floats]
    labels: list[Floats]


def photo_lists(detections: Sequence[Detections], sizes_wh: Mapping[int, tuple[int, int]]) -> list[PhotoLists]:
    """Every photo's boxes, those of all detectors.

    Args:
        detections: one a detector.
        sizes_wh: width and height in pixels of every photo; those without a box are left out.
    """
    found = []
    for image_id, (width, height) in sizes_wh.items():
        some = [one.take(np.flatnonzero(one.image_ids == image_id)) for one in detections]
        if any(len(one) for one in some):
            sides = np.array([width, height, width, height], np.float64)
            boxes = [np.clip(one.boxes_xyxy / sides, 0, 1) for one in some]
            labels = [one.category_ids.astype(np.float64) for one in some]
            found.append(PhotoLists(boxes, [one.scores for one in some], labels))
    return found


def fuse_by_ensemble_boxes(photos: Sequence[PhotoLists], settings: FusionSettings) -> int:
    """Weighted boxes fusion of every photo; how many boxes come out.

    Calibrations and label policies, which that package has not, are left out.
    """
    from ensemble_boxes import weighted_boxes_fusion

    weights = None if settings.weights is None else list(settings.weights)
    num_boxes = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of boxes without area
        for photo in photos:
            boxes, _, _ = weighted_boxes_fusion(
                photo.boxes,
                photo.scores,
                photo.labels,
                weights=weights,
                iou_thr=settings.iou_threshold,
                skip_box_thr=settings.skip_threshold,
                conf_type=settings.conf_type,
            )
            num_boxes += len(boxes)
    return num_boxes
