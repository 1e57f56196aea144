"""The accuracy of parts of the queries: by category, by how the garment is shown, and by how many answers it has.

The data set's paper (Y. Ge et al. 2019, Table 9) counts only queries with more than five identical shop items in the
gallery, and reports the top 20 for them: that is the last slice of ``counterparts``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from harness.scoring.overlap import distinct
from harness.scoring.questions import Questions
from harness.scoring.significance import wilson_interval
from harness.types import CATEGORIES, RANKS, Bools, Ints

ATTRIBUTE_VALUES: Mapping[str, tuple[str, str, str]] = {
    "scale": ("small", "modest", "large"),
    "occlusion": ("slight or none", "medium", "heavy"),
    "zoom_in": ("none", "medium", "large"),
    "viewpoint": ("no wear", "frontal", "side or back"),
}
"""What 1, 2 and 3 of each attribute stand for."""


@dataclass(frozen=True)
class Slice:
    """The score of a part of the queries.

    Attributes:
        group: ``category``, ``scale``, ``occlusion``, ``zoom_in``, ``viewpoint`` or ``counterparts``.
        name: which value.
        num_queries: at least 1.
        acc: Acc@k for k in `RANKS`.
        intervals: 95 % Wilson interval for each k.
    """

    group: str
    name: str
    num_queries: int
    acc: Mapping[int, float]
    intervals: Mapping[int, tuple[float, float]]


def cut(questions: Questions, hit_ranks: Ints) -> list[Slice]:
    """Every slice that has a query, group by group.

    Args:
        questions: what is known of the queries; attributes that they have not are left out.
        hit_ranks: (Q,) int64, as in a `Score`.
    """
    return [_slice(group, name, hit_ranks[chosen]) for group, name, chosen in parts(questions) if bool(np.any(chosen))]


def parts(questions: Questions) -> Iterator[tuple[str, str, Bools]]:
    """Group, name and (Q,) bool of every slice, those without a query too."""
    categories = questions.category_ids
    for category in distinct(categories).tolist():
        known = 1 <= category <= len(CATEGORIES)
        yield "category", CATEGORIES[category - 1] if known else f"category {category}", categories == category
    for attribute, names in ATTRIBUTE_VALUES.items():
        if attribute in questions.attributes:
            values = questions.attributes[attribute]
            for number, name in enumerate((*names, "not annotated"), 1):
                yield attribute, name, values == number % (len(names) + 1)
    counts = questions.num_counterparts
    yield "counterparts", "1", counts == 1
    yield "counterparts", "2–5", (counts >= 2) & (counts <= 5)
    yield "counterparts", "more than 5", counts > 5


def _slice(group: str, name: str, hit_ranks: Ints) -> Slice:
    hits = {k: int(((hit_ranks > 0) & (hit_ranks <= k)).sum()) for k in RANKS}
    count = len(hit_ranks)
    return Slice(
        group,
        name,
        count,
        {k: hits[k] / count for k in RANKS},
        {k: wilson_interval(hits[k], count) for k in RANKS},
    )
