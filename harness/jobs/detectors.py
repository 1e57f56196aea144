"""Training a detector as people ask for it: on which photos, and judged on which."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from harness.detection.card import DetectorCard
from harness.detection.evaluation import Evaluation
from harness.detection.recipes import DetectorRecipe
from harness.detection.training import train
from harness.training.pairs import held_out_pairs, training_ids
from harness.types import BoxAP, Detections, InputError, Ints, Split


def train_detector(
    recipe: DetectorRecipe,
    scale: str,
    split: Split,
    out_dir: Path,
    *,
    hold_out: bool = False,
    evaluate_on: Split | None = None,
    eval_every: int | None = None,
    patience: int = 0,
    **how: Any,
) -> DetectorCard:
    """Train a detector on a split, judged meanwhile where photos are left for that.

    Args:
        recipe: which detector.
        scale: ``full`` or ``tiny``.
        split: to train on.
        out_dir: the model's folder.
        hold_out: leave out the pairs of `held_out_pairs`, and judge on them unless ``evaluate_on`` is given.
        evaluate_on: an annotated split to judge on.
        eval_every: steps between looks; None for once an epoch at full scale, or with a patience; 0 for never.
        patience: looks without a better AP that end the training, whose best weights then count; 0 for never.
        how: further arguments of `harness.detection.training.train`.

    Raises:
        InputError: there are no photos to judge on; and whatever `harness.detection.training.train` raises.
    """
    evaluation = _evaluation(scale, split, hold_out, evaluate_on, eval_every, patience)
    return train(recipe, scale, split, training_ids(split, hold_out), out_dir, evaluation=evaluation, **how)


def _evaluation(
    scale: str, split: Split, hold_out: bool, evaluate_on: Split | None, eval_every: int | None, patience: int
) -> Evaluation | None:
    if eval_every == 0:
        if patience:
            raise InputError("a patience needs looks: leave --eval-every 0 out, or --patience")
        return None
    asked = patience > 0 or eval_every is not None or evaluate_on is not None
    if not asked and not (hold_out and scale == "full"):
        return None
    if evaluate_on is None and not hold_out:
        raise InputError(
            "there are no photos to judge the detector on while it is trained; add --hold-out, or --evaluate-on "
            "validation, or leave --patience and --eval-every out"
        )
    if evaluate_on is not None:
        photos, image_ids = evaluate_on, evaluate_on.photos.image_ids
    else:
        photos, image_ids = split, held_out_pairs(split)[1]
    return Evaluation(photos, image_ids, partial(_box_ap, photos, image_ids), eval_every, patience)


def _box_ap(photos: Split, image_ids: Ints, found: Detections) -> BoxAP:
    from harness.scoring.boxes import box_ap

    assert photos.items is not None
    return box_ap(photos.items, found, image_ids)
