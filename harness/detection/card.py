"""What a trained detector says of itself."""

from __future__ import annotations

from typing import Literal

from harness.detection.recipes import DetectorRecipe, DetectorScale
from harness.training.cards import Outcome, TrainedOn, TrainingPlan
from harness.types import Ints, Split


class DetectorPlan(TrainingPlan):
    """All that decides which weights a training of a detector ends with.

    Attributes:
        recipe: the recipe at the plan's scale.
        init_from_sha256: of the file of initial weights; None without.
        chosen_on: photos by which the best weights of the training are chosen; empty where the last are taken.
        evaluate_every: steps between the looks that choose; None where the last weights are taken.
        patience: looks without a better AP that end the training; 0 where the last weights are taken.
    """

    kind: Literal["detector"] = "detector"
    recipe: DetectorScale
    init_from_sha256: str | None = None
    chosen_on: tuple[TrainedOn, ...] = ()
    evaluate_every: int | None = None
    patience: int = 0

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
        best_step: after how many steps the weights were best, where they were chosen; None where the last are taken.
        best_ap: box AP of these weights on the photos of ``chosen_on``, in [0, 1].
        last_step: steps that were made, fewer than planned where the patience ended the training.
        precision: Lightning's precision string of the run that finished it.
        num_processes: of that run.
        accumulate: parts of a step, in that run.
    """

    resumed_at: int
    initial_weights: str | None = None
    left_as_drawn: tuple[str, ...] = ()
    items_without_area: int = 0
    best_step: int | None = None
    best_ap: float | None = None
    last_step: int | None = None
    precision: str | None = None
    num_processes: int = 1
    accumulate: int = 1
