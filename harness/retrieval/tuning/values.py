"""What is searched for the multi-similarity loss, and what is known of a search, as plain values.

Source of the ranges of α, β and λ: a public tuner of this loss; its best on Stanford Online Products is what
``models.toml`` has under ``automl_ms_loss``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.retrieval.settings import Frozen, MultiSimilaritySettings

DEFAULTS = MultiSimilaritySettings(alpha=2.0, beta=50.0, base=0.5, epsilon=0.1, weight=1.0)
"""Of pytorch-metric-learning; the paper's models without "automl" have them."""

WANG = MultiSimilaritySettings(alpha=2.0, beta=40.0, base=0.5, epsilon=0.1, weight=1.0)
"""Of the loss's authors' code. Source: Wang et al. 2019."""


class SearchSpace(Frozen):
    """Least and largest value of each hyper-parameter; α, β and the weight are drawn by their logarithm."""

    alpha: tuple[float, float] = (0.01, 100.0)
    beta: tuple[float, float] = (0.01, 100.0)
    base: tuple[float, float] = (0.0, 1.0)
    epsilon: tuple[float, float] = (0.0, 0.5)
    weight: tuple[float, float] = (0.1, 10.0)


WIDE = SearchSpace()
"""Everything that has been tried anywhere: for fifty trials and more."""

NARROW = SearchSpace(alpha=(0.5, 20.0), beta=(10.0, 100.0), base=(0.2, 0.8), epsilon=(0.0, 0.3), weight=(0.3, 3.0))
"""Around the published values: for a few dozen trials."""

SPACES = {"narrow": NARROW, "wide": WIDE}

LOGARITHMIC = ("alpha", "beta", "weight")
NAMES = tuple(SearchSpace.model_fields)


@dataclass(frozen=True)
class Tried:
    """What is known of a trial.

    Attributes:
        number: of the trial.
        state: ``complete``, ``pruned``, ``fail``, ``running`` or ``waiting``.
        settings: of the loss; None where they were not all drawn yet.
        value: its objective; of a pruned one the last that was seen.
        course: steps -> objective on the way.
        task: its name if its values were not drawn.
        seconds: that it took.
        note: why it was given up.
        figures: further ones.
        retry_of: the trial that it tries again.
    """

    number: int
    state: str
    settings: MultiSimilaritySettings | None
    value: float | None
    course: Mapping[int, float]
    task: str | None
    seconds: float | None
    note: str | None
    figures: Mapping[str, float]
    retry_of: int | None


@dataclass(frozen=True)
class StudyState:
    """What a study holds.

    Attributes:
        name: of the study.
        conditions: what its trials have in common.
        tried: its trials, without those that were begun although there were enough.
        importance: hyper-parameter -> share of the objective's variation that it explains; empty with few trials.
    """

    name: str
    conditions: Mapping[str, Any]
    tried: Sequence[Tried]
    importance: Mapping[str, float] = field(default_factory=dict)

    def count(self, *states: str) -> int:
        """Trials of these states."""
        return sum(one.state in states for one in self.tried)

    @property
    def ranked(self) -> list[Tried]:
        """The complete trials, best first; of equals the earlier."""
        complete = [one for one in self.tried if one.state == "complete" and one.value is not None]
        return sorted(complete, key=lambda one: (-(one.value or 0.0), one.number))
