"""What the models of an ensemble cost, and what it may cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.box_stages import BoxSet
from harness.pipeline import Pipeline
from harness.types import InputError

if TYPE_CHECKING:
    from harness.ranking.selection.searching import Budget


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        milliseconds: of embedding a crop; None where it is not known, which counts as nothing.
        whence: how that is known.
        gigabytes: of its features of all boxes in half precision, 1e9 bytes.
    """

    milliseconds: float | None
    whence: str
    gigabytes: float


def cost_of(pipeline: Pipeline, name: str, boxes: BoxSet, milliseconds: float | None = None) -> Cost:
    """What a model costs, as its embedding of a box set was measured.

    Args:
        pipeline: that has the embedding in its store.
        name: of the model.
        boxes: the box set.
        milliseconds: instead of what was measured.
    """
    card = pipeline.retriever_card(name)
    artifact = pipeline.store.find(pipeline.embed_recipe(card, boxes))
    assert artifact is not None
    dimensions, num_boxes = artifact.array("vectors.npy").shape[1], len(boxes.detections)
    gigabytes = 2e-9 * dimensions * num_boxes
    if milliseconds is not None:
        return Cost(milliseconds, "as given", gigabytes)
    if card.is_entered:
        return Cost(None, "not known: embedded elsewhere", gigabytes)
    if artifact.manifest["resumed"]:
        return Cost(None, "not known: embedding was interrupted", gigabytes)
    whence, together = f"{num_boxes:,} crops embedded here", int(artifact.manifest["made_together"])
    if "of" in artifact.facts:
        whence = "its share of more boxes that were embedded here"
    elif together > 1:
        whence += f", {'an equal' if artifact.waiting_seconds is None else 'its own'} share of {together} models' pass"
    return Cost(1000 * artifact.seconds / num_boxes, whence, gigabytes)


def budget_of(
    costs: Mapping[str, Cost], max_models: int | None, max_milliseconds: float | None, max_gigabytes: float | None
) -> Budget:
    """What limits the choice; milliseconds come first, which decide between equals even without a limit.

    Args:
        costs: model -> what it costs.
        max_models: of the ensemble; None for no limit, here and below.
        max_milliseconds: of embedding a crop by all of its models.
        max_gigabytes: of its features.

    Raises:
        InputError: no model by itself keeps within it, or there are too many models.
    """
    from harness.ranking.selection.searching import Budget

    names = list(costs)
    figures = np.array([[costs[name].milliseconds or 0.0 for name in names], [costs[name].gigabytes for name in names]])
    limits = [max_milliseconds, max_gigabytes]
    if len(names) > Budget.MOST_MODELS:
        raise InputError(f"{len(names)} models are too many to choose from, at most {Budget.MOST_MODELS}; name fewer")
    budget = Budget(figures, np.array([np.inf if one is None else one for one in limits]), max_models or len(names))
    if not budget.allows(1 << np.arange(len(names))).any():
        told = zip(figures, limits, ("ms a crop (--max-milliseconds)", "GB (--max-gigabytes)"), strict=True)
        raise InputError(
            "no model by itself keeps within the budget: "
            + "; ".join(
                f"{names[int(cost.argmin())]} takes {cost.min():.3g} {unit}, the least of all; the limit is {limit:g}"
                for cost, limit, unit in told
                if limit is not None
            )
        )
    return budget
