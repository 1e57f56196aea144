"""A retrieval model judged while it is trained, on photos that it does not learn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.retrieval.card import RetrieverCard, RetrieverPlan
from harness.training.cards import TrainedOn
from harness.training.fitting import Watch
from harness.types import InputError

if TYPE_CHECKING:
    from harness.retrieval.cgd import CGD
    from harness.retrieval.embedding import Embedder

DECIDES = "acc@10"
"""The figure by which one state of a model is better than another, unless the judge names one."""


@dataclass(frozen=True)
class Judge:
    """How a retrieval model is judged while it is trained.

    Attributes:
        every: steps between looks, the last step being looked at in any case; None for once an epoch.
        look: figures of a model, the same in every process; each process calls it. What it raises ends the training.
        figure: the name of the one that decides; more is better.
        patience: looks without a better figure that end the training, which then takes its best weights; 0 never ends
            it and takes the last.
        chosen_on: the photos that ``look`` looks at; a patience needs them, for the card.

    Raises:
        InputError: ``every`` is below 1, the patience below 0, or a patience comes without ``chosen_on``.
    """

    every: int | None
    look: Callable[[Embedder], Mapping[str, float]]
    figure: str = DECIDES
    patience: int = 0
    chosen_on: TrainedOn | None = None

    def __post_init__(self) -> None:
        if self.patience < 0 or (self.every is not None and self.every < 1):
            raise InputError(
                f"a retriever is judged every 1 or more steps with a patience of 0 or more, got {self.every} and "
                f"{self.patience}"
            )
        if self.patience and self.chosen_on is None:
            raise InputError("a patience chooses weights by photos: say which they are, chosen_on is None")

    def steps(self, num_crops: int, batch_size: int) -> int:
        """Steps between looks of a training on that many crops."""
        return max(1, round(num_crops / batch_size)) if self.every is None else self.every

    def watch(self, plan: RetrieverPlan, network: CGD, every: int) -> Watch:
        """What `harness.training.fitting` needs to judge a network in training."""
        return Watch(
            every=every,
            look=lambda: self._figures(plan, network),
            weights=lambda: inference_weights(network),
            figure=self.figure,
            patience=self.patience,
        )

    def _figures(self, plan: RetrieverPlan, network: CGD) -> Mapping[str, float]:
        from harness.training.gathering import take_from_first

        # Each process has batch statistics of its own until the next step; those of the first are kept.
        take_from_first(network.buffers())
        with as_in_use(network, plan) as retriever:
            figures = self.look(retriever)
        if self.figure not in figures:
            raise ValueError(f"a look at {plan.name} told {', '.join(figures) or 'nothing'}, but not {self.figure}")
        return figures


@contextmanager
def as_in_use(network: CGD, plan: RetrieverPlan) -> Iterator[Embedder]:
    """The network of a training as `harness.retrieval.embedding.Retriever` has it; afterwards it learns on.

    Neither batch statistics nor torch's random numbers know of it.
    """
    import torch

    from harness.retrieval.embedding import Retriever

    modes = [(part, part.training) for part in network.modules()]
    device = next(network.parameters()).device
    network.eval()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield Retriever(RetrieverCard.model_construct(**dict(plan)), network, device)
    finally:
        for part, mode in modes:
            part.training = mode


def inference_weights(network: CGD) -> dict[str, object]:
    """The network's tensors without the auxiliary classifier's: what ``weights.pt`` holds."""
    return {key: value for key, value in network.state_dict().items() if not key.startswith("classifier.")}
