"""What a leaderboard row says beyond its score: what became of every query, what decided it, how to run it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.pipeline import Pipeline, Scored
from harness.types import GALLERY_LENGTH
from submissions.writer import DECIMALS

if TYPE_CHECKING:
    from harness.scoring.hearing import Hearing
    from harness.scoring.questions import Questions
    from leaderboard.rows import Losses

_NOBODY = -1
"""The photo that boxes answer with that were not searched for: there is none of that id."""


def losses_of(pipeline: Pipeline, scored: Scored) -> tuple[Losses, Questions]:
    """What became of every query of a scored ensemble, and what is known of the queries.

    Where only the boxes that speak for a query were searched for, "displaced" cannot be told: that takes the answers of
    all of its boxes. Such a query stands under one of the later fates then.

    Args:
        pipeline: that ran it.
        scored: what `Pipeline.run` returned, with a score.
    """
    from harness.scoring.ledger import Fate, GalleryBoxes, account
    from harness.scoring.official import decide
    from harness.scoring.questions import Questions
    from leaderboard.rows import Losses

    assert scored.score is not None
    hearing = hear(pipeline, scored)
    outcome = decide(hearing)
    assert np.array_equal(outcome.score.hit_ranks, scored.score.hit_ranks), "the file and the boxes tell one score"
    boxes = scored.boxes.detections
    shop = boxes.take(~pipeline.split.photos.consumer_mask(boxes.image_ids))
    searched = GalleryBoxes(shop.image_ids, np.round(shop.boxes_xyxy, DECIMALS))
    fates = account(hearing, outcome, gallery_boxes=searched).fates.astype(np.uint8)
    untold = () if scored.every_box else (str(Fate.DISPLACED),)
    return Losses(fates, untold), Questions.of(hearing)


def hear(pipeline: Pipeline, scored: Scored) -> Hearing:
    """The results of a scored ensemble beside the truth, with all consumer boxes: those that were not searched for
    answer with a photo that there is not.

    Args:
        pipeline: that ran it, over a split whose truth is known.
        scored: what `Pipeline.run` returned.
    """
    from harness.scoring.hearing import Hearing
    from harness.scoring.results import Results
    from harness.scoring.truth import read_truth

    boxes, ranking = scored.boxes.detections, scored.ranking
    corners = np.round(boxes.boxes_xyxy, DECIMALS)  # as they stand in the challenge JSON, which is what is scored
    rows = np.flatnonzero(pipeline.split.photos.consumer_mask(boxes.image_ids))
    image_ids = np.full((len(rows), GALLERY_LENGTH), _NOBODY, np.int64)
    found = np.zeros((len(rows), GALLERY_LENGTH, 4))
    answered = np.searchsorted(rows, ranking.query_rows)
    # Where there are fewer than 20 shop boxes the challenge JSON repeats the last one.
    places = np.minimum(np.arange(GALLERY_LENGTH), ranking.gallery_rows_QK.shape[1] - 1)
    answers = ranking.gallery_rows_QK[:, places]
    image_ids[answered] = boxes.image_ids[answers]
    found[answered] = corners[answers]
    scores, categories = boxes.scores[rows], boxes.category_ids[rows]
    results = Results(boxes.image_ids[rows], corners[rows], scores, categories, image_ids, found)
    return Hearing.of(results, *read_truth(*pipeline.truth()))


def settings_of(pipeline: Pipeline, scored: Scored) -> dict[str, str]:
    """Model or fusion -> how it departs from its recipe, in words; those that do not are left out."""
    source = scored.ensemble.boxes
    changes: dict[str, Mapping[str, Any]] = {}
    for card in scored.members:
        if not card.is_entered:
            is_detector = card.name in source.detectors
            kept = pipeline.inference_settings(card.name) if is_detector else pipeline.embedding_settings(card.name)
            changes[card.name] = kept.changes
    if source.fused is not None:
        changes[source.name] = pipeline.fusion_settings(source).model_dump(mode="json", exclude_defaults=True)
    return {name: _in_words(some) for name, some in changes.items() if some}


def command_of(pipeline: Pipeline, scored: Scored) -> str:
    """The command that scores the same again."""
    split, work = pipeline.split, pipeline.work.root
    parts = ["run.py", "score", str(scored.ensemble), "--data", str(split.root), "--split", split.name]
    parts += [] if work == Path("work") else ["--work", str(work)]
    parts += ["--every-box"] if scored.every_box else []
    return shlex.join(parts)


def _in_words(settings: Mapping[str, Any]) -> str:
    words = []
    for name, value in settings.items():
        if name == "calibrations":
            value = "+".join(dict.fromkeys("none" if one is None else str(one["kind"]) for one in value))
        elif isinstance(value, list):
            value = " ".join(f"{one:.3g}" if isinstance(one, float) else str(one) for one in value)
        elif isinstance(value, float):
            value = f"{value:.4g}"
        words.append(f"{name} {value}")
    return ", ".join(words)
