"""A detector judged while it is trained, on photos that it does not learn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.detection.card import DetectorCard, DetectorPlan
from harness.training.cards import TrainedOn
from harness.training.fitting import Watch
from harness.training.processes import gathered, place
from harness.types import BoxAP, Detections, InputError, Ints, Split

if TYPE_CHECKING:
    from harness.detection.bridge import Network

DECIDES = "AP"
"""The figure by which one state of a detector is better than another."""

_LIMITS = ("score_thr", "max_per_img")


@dataclass(frozen=True)
class Evaluation:
    """How a detector is judged while it is trained.

    Attributes:
        split: whose photos are looked at.
        image_ids: (E,) int64, which of them.
        score: box AP of the detections of just these photos.
        every: steps between looks; None for once an epoch.
        patience: looks without a better AP that end the training, which then takes its best weights; 0 never ends it
            and takes the last.
    """

    split: Split
    image_ids: Ints
    score: Callable[[Detections], BoxAP]
    every: int | None = None
    patience: int = 0

    def __post_init__(self) -> None:
        where = f"{self.split.root / self.split.name}"
        if self.split.items is None:
            raise InputError(f"{where}: has no annotations, so no detector can be judged on it")
        if not np.isin(self.image_ids, self.split.items.image_ids).any():
            raise InputError(
                f"{where}: none of the {len(self.image_ids)} photos to judge a detector on has an annotated item"
            )
        if self.patience < 0 or (self.every is not None and self.every < 1):
            raise InputError(
                f"a detector is judged every 1 or more steps with a patience of 0 or more, got {self.every} and "
                f"{self.patience}"
            )

    def steps(self, num_photos: int, batch_size: int) -> int:
        """Steps between looks of a training on that many photos."""
        return max(1, round(num_photos / batch_size)) if self.every is None else self.every

    def chosen_on(self) -> TrainedOn:
        """The record of the photos that decide which weights are taken."""
        return TrainedOn.of(self.split, self.image_ids)

    def watch(self, plan: DetectorPlan, network: Network, every: int) -> Watch:
        """What `harness.training.fitting` needs to judge a network, each process looking at its share of the photos."""
        return Watch(
            every=every,
            look=lambda: self._figures(plan, network),
            weights=network.model.state_dict,
            figure=DECIDES,
            patience=self.patience,
        )

    def _figures(self, plan: DetectorPlan, network: Network) -> Mapping[str, float]:
        from harness.detection.inference import Detector, detect

        here = place()
        with as_in_use(network, plan):
            detector = Detector(DetectorCard.model_construct(**dict(plan)), network)
            found = detect(detector, self.split, self.image_ids[here.rank :: here.num_processes])
        everything = Detections.concatenate(gathered(found))
        # The same boxes in the same order however many processes looked: ties must not depend on them.
        order = np.argsort(everything.image_ids, kind="stable")
        ap = self.score(everything.take(order))
        assert ap.ap is not None
        assert ap.ap50 is not None
        return {DECIDES: ap.ap, "AP50": ap.ap50}


@contextmanager
def as_in_use(network: Network, plan: DetectorPlan) -> Iterator[None]:
    """The network of a training as `harness.detection.inference.Detector` has it; afterwards it learns on."""
    head = getattr(network.model, "roi_head", None) or getattr(network.model, "bbox_head", None)
    learns_masks, mask_head = network.learns_masks, getattr(head, "mask_head", None)
    settings = getattr(head, "test_cfg", None)
    limits: dict[str, Any] = {} if settings is None else {name: settings.get(name) for name in _LIMITS}
    network.eval()
    network.only_boxes()
    network.limit(plan.recipe.score_threshold, plan.recipe.max_per_image)
    try:
        yield
    finally:
        if settings is not None:
            settings.update(limits)
        if learns_masks:
            assert head is not None
            network.learns_masks, head.mask_head = learns_masks, mask_head
        network.train()
