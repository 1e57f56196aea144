"""A detector whose boxes were entered: several on most garments, none on some, many of another category."""

from pathlib import Path

import numpy as np

from harness.data.deepfashion2 import read_split
from harness.data.exports import write_coco_results
from harness.types import Detections
from tests.commands import ok


def enter_d1(data: Path, work: Path, spreads_px: tuple[float, ...]) -> None:
    """Enter ``d1`` on validation: one box a garment and spread, drawn inwards by about so many pixels."""
    truth, rng = read_split(data, "validation").items.as_detections(), np.random.default_rng(3)
    truth = truth.take(rng.random(len(truth)) < 0.85)
    parts = []
    for spread in spreads_px:
        inwards = np.abs(rng.normal(0, spread, truth.boxes_xyxy.shape)) * (1, 1, -1, -1)
        moved = truth.boxes_xyxy + inwards
        corners = np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])
        other = rng.random(len(truth)) < 0.25
        categories = np.where(other, rng.integers(1, 14, len(truth)), truth.category_ids)
        parts.append(Detections(truth.image_ids, np.concatenate(corners, 1), rng.random(len(truth)), categories))
    write_coco_results(work / "boxes.json", Detections.concatenate(parts))
    ok("enter", "detections", "d1", "--boxes", work / "boxes.json", "--data", data, "--work", work,
       "--split", "validation")  # fmt: skip
