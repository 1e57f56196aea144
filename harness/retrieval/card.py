"""What a trained retriever says of itself."""

from __future__ import annotations

from typing import Literal

from harness.retrieval.settings import RetrieverSettings
from harness.training.cards import Outcome, TrainedOn, TrainingPlan


class RetrieverPlan(TrainingPlan):
    """All that decides which weights a training of a retriever ends with.

    Attributes:
        recipe: the settings, resolved.
        wanted: the sources that the recipe names; ``trained_on`` is what it is really trained on.
        garments_sha256: of which garments of these were left when copies had been taken out; None where nobody did.
        copied_from: splits that are not trained on, but of whose photos copies are.
        init_from_sha256: of the file of initial weights that was asked for; None for what the recipe begins with.
        patience: looks without a better figure that end the training; 0 where the last weights are taken.
        evaluate_every: steps between the looks that choose; None where the last weights are taken.
        chosen_by: the figure that chooses; None where the last weights are taken.
        chosen_on: photos by which the best weights of the training are chosen; empty where the last are taken.
    """

    kind: Literal["retriever"] = "retriever"
    recipe: RetrieverSettings
    wanted: tuple[str, ...]
    garments_sha256: str | None = None
    copied_from: tuple[TrainedOn, ...] = ()
    init_from_sha256: str | None = None
    patience: int = 0
    evaluate_every: int | None = None
    chosen_by: str | None = None
    chosen_on: tuple[TrainedOn, ...] = ()


class RetrieverCard(RetrieverPlan, Outcome):
    """A finished training.

    Attributes:
        num_identities: garments that it learned to tell apart.
        num_crops: crops of them.
        num_parameters: of the network, without the auxiliary classifier.
        best_step: after how many steps the weights were best, where they were chosen; None where the last are taken.
        best_acc10: their Acc@10 on the photos of ``chosen_on``, in [0, 1]; None where nobody told it.
        last_step: steps that were made, fewer than planned where the patience ended the training.
        resumed_at: the step where the run that finished it began.
        initial_weights: name of what the training began with; None for random weights.
        left_as_drawn: the network's tensors that it did not give, such as the classifier's.
        precision: Lightning's precision string of the run that finished it.
        num_processes: of that run.
        accumulate: parts of a process's share of a step, in that run.
        data_wait_share: share of that run's time in training that went by waiting for photos.
        ms_loss_from: where the values of a searched multi-similarity loss are from; None where none is wanted.
    """

    num_identities: int
    num_crops: int
    num_parameters: int
    best_step: int | None = None
    best_acc10: float | None = None
    last_step: int | None = None
    resumed_at: int = 0
    initial_weights: str | None = None
    left_as_drawn: tuple[str, ...] = ()
    precision: str | None = None
    num_processes: int = 1
    accumulate: int = 1
    data_wait_share: float | None = None
    ms_loss_from: str | None = None

    @property
    def input_wh(self) -> tuple[int, int]:
        """Width and height of a crop, px."""
        return self.recipe.input_wh
