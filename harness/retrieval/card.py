"""What a trained retriever says of itself."""

from __future__ import annotations

from typing import Literal

from harness.retrieval.settings import RetrieverSettings
from harness.training.cards import Outcome, TrainingPlan


class RetrieverPlan(TrainingPlan):
    """All that decides which weights a training of a retriever ends with.

    Attributes:
        recipe: the settings, resolved.
        wanted: the sources that the recipe names; ``trained_on`` is what it is really trained on.
        num_processes: each sees batches of its own.
    """

    kind: Literal["retriever"] = "retriever"
    recipe: RetrieverSettings
    wanted: tuple[str, ...]
    num_processes: int = 1


class RetrieverCard(RetrieverPlan, Outcome):
    """A finished training.

    Attributes:
        num_identities: garments that it learned to tell apart.
        num_crops: crops of them.
        num_parameters: of the network, without the auxiliary classifier.
    """

    num_identities: int
    num_crops: int
    num_parameters: int

    @property
    def input_wh(self) -> tuple[int, int]:
        """Width and height of a crop, px."""
        return self.recipe.input_wh
