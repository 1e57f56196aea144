"""What a trained detector says of itself."""

from __future__ import annotations

from typing import Literal

from harness.cards import Outcome, TrainedOn, TrainingPlan
from harness.detection.recipes import DetectorRecipe, DetectorScale
from harness.types import Ints, Split


class DetectorPlan(TrainingPlan):
    """All that decides which weights a training of a detector ends with.

    Attributes:
        recipe: the recipe at the plan's scale.
        init_from_sha256: of the file of initial weights; None without.
    """

    kind: Literal["detector"] = "detector"
    recipe: DetectorScale
    init_from_sha256: str | None = None

    @classmethod
    def of(
        cls, recipe: DetectorRecipe, scale: str, split: Split, image_ids: Ints, seed: int, num_steps: int | None
    ) -> DetectorPlan:
        """The plan of a training on the given photos; ``num_steps`` None takes the recipe's.

        A shorter training than the recipe's is preceded by no longer a pretraining.
        """
        settings = recipe.at(scale)
        trained_on = TrainedOn.of(split, image_ids)
        if num_steps is not None and settings.pretraining is not None:
            shorter = settings.pretraining.model_copy(
                update={"num_steps": min(num_steps, settings.pretraining.num_steps)}
            )
            settings = settings.model_copy(update={"pretraining": shorter})
        steps = settings.steps(trained_on.num_photos) if num_steps is None else num_steps
        values = {"name": recipe.name, "scale": scale, "recipe": settings, "trained_on": (trained_on,)}
        return cls.model_validate({**values, "seed": seed, "num_steps": steps})


class DetectorCard(DetectorPlan, Outcome):
    """A finished training.

    Attributes:
        resumed_at: the step where the run that finished it began.
        initial_weights: name of the file that the training began with; None without.
        left_as_drawn: the network's tensors that this file did not give, such as the class layers.
        items_without_area: how many annotated items of the photos were never shown, because their boxes have no area.
    """

    resumed_at: int
    initial_weights: str | None = None
    left_as_drawn: tuple[str, ...] = ()
    items_without_area: int = 0
