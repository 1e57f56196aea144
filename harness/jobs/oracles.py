"""The oracle ladder of an ensemble: its score if one stage after another were perfect, with everything searched again.

`harness.scoring.ladder` reads bounds from a result file alone. Here the photos and the models are at hand, so the
ground-truth boxes are embedded and searched as the detected ones are: what a rung gains is what its stage loses.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.pipeline import Pipeline
from harness.scoring.hearing import place_boxes
from harness.scoring.ladder import Rung, rungs
from harness.scoring.official import evaluate
from harness.scoring.results import Results
from harness.scoring.truth import read_truth
from harness.spec import GROUND_TRUTH, BoxSource, Ensemble
from harness.types import GALLERY_LENGTH, InputError


def ladder(pipeline: Pipeline, spec: Ensemble | str) -> list[Rung]:
    """Score an ensemble with detected boxes, then with more and more of the ground truth.

    Args:
        pipeline: over an annotated split.
        spec: the ensemble; with ``GT`` as its box source there is but one rung.

    Returns:
        As it is; with the category of the item that each query box goes to; with ground-truth query boxes; with
        ground-truth gallery boxes too. What the last rung misses, the ranking loses. These are measurements, no bounds:
        a rung may lose against the one before.

    Raises:
        InputError: the split has no annotations, a model is missing, or there are fewer than 20 gallery boxes.
    """
    ensemble = pipeline.parse(spec) if isinstance(spec, str) else spec
    pipeline.members(ensemble)
    detected, perfect = pipeline.boxes(ensemble.boxes), pipeline.boxes(BoxSource(GROUND_TRUTH))
    truth = read_truth(*pipeline.truth())
    is_perfect = ensemble.boxes.name == GROUND_TRUTH
    steps = [("as it is", f"the official score with {ensemble.boxes}", detected, detected)]
    if not is_perfect:
        steps += [
            ("query classes", "each query box has the category of the item that it goes to", detected, detected),
            ("query boxes", "the annotated garments ask", perfect, detected),
            ("gallery boxes", "the annotated garments answer", perfect, perfect),
        ]
    scores = []
    for name, rule, asking, searched in steps:
        ranking, _ = pipeline.rank(ensemble, asking, None if searched is asking else searched)
        if ranking.gallery_rows_QK.shape[1] < GALLERY_LENGTH:
            raise InputError(f"{searched.source}: has fewer than {GALLERY_LENGTH} gallery boxes, too few to score")
        results = Results.from_ranking(ranking, asking.detections, searched.detections)
        if name == "query classes":
            items, _ = place_boxes(results.image_ids, results.boxes_xyxy, truth[0])
            categories = np.where(items >= 0, truth[0].category_ids[items], results.category_ids)
            results = replace(results, category_ids=categories)
        scores.append((name, rule, evaluate(results, *truth).acc))
    return rungs(scores)
