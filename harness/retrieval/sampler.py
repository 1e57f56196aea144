"""Identity-balanced batches as a pure function of (seed, step).

Legend: N crops, I identities, P identities a batch, K crops of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.training.fitting import step_seed
from harness.types import Bools, Ints

_ORDER, _MEMBERS = 0, 1  # separate streams of random numbers


@dataclass(frozen=True, eq=False)
class IdentityBatches:
    """P identities × K crops a batch, of each identity as near as can be half consumer and half shop crops.

    Every epoch goes over the identities in another order and leaves out what does not fill a last batch,
    so no identity is twice in a batch. Crops of an identity are drawn without repeats while they last: one
    view makes up for what the other lacks.

    Attributes:
        labels: (N,) int64, identity of each crop, at least 0.
        is_consumer: (N,) bool.
        num_identities: P, cut down to the number of identities where there are fewer.
        num_crops: K.
        seed: of all draws.

    Raises:
        ValueError: there is no crop, a label is negative, or P or K is below 1.
    """

    labels: Ints
    is_consumer: Bools
    num_identities: int
    num_crops: int
    seed: int

    def __post_init__(self) -> None:
        if len(self.labels) == 0 or len(self.labels) != len(self.is_consumer):
            raise ValueError(f"expected as many labels as views, at least one; got {len(self.labels)}")
        if self.labels.min() < 0:
            raise ValueError("labels: a crop without identity (-1) cannot be in an identity-balanced batch")
        if min(self.num_identities, self.num_crops) < 1:
            raise ValueError("num_identities and num_crops: expected at least 1")
        # Crops sorted by identity; shop crops (False) come before consumer crops within one.
        order = np.lexsort((self.is_consumer, self.labels))
        identities, starts, counts = np.unique(self.labels[order], return_index=True, return_counts=True)
        num_shop = np.add.reduceat(~self.is_consumer[order], starts, dtype=np.int64)
        set_ = object.__setattr__
        set_(self, "_order", order)
        set_(self, "_spans", np.stack([starts, num_shop, counts], axis=1))
        set_(self, "_epoch", (-1, identities[:0]))
        set_(self, "num_identities", min(self.num_identities, len(identities)))

    @property
    def batches_per_epoch(self) -> int:
        """Batches in which every identity comes at most once."""
        spans: Ints = self._spans  # type: ignore[attr-defined]
        return len(spans) // self.num_identities

    def draw(self, step: int) -> Sequence[int]:
        """Rows of the batch of a step: P·K row numbers, the K crops of an identity side by side."""
        epoch, place = divmod(step, self.batches_per_epoch)
        spans: Ints = self._spans  # type: ignore[attr-defined]
        chosen = self._order_of(epoch)[place * self.num_identities : (place + 1) * self.num_identities]
        random = step_seed(self.seed, _MEMBERS, step)
        return [
            row
            for start, num_shop, count in spans[chosen].tolist()
            for row in self._members((start, num_shop, count), random)
        ]

    def _order_of(self, epoch: int) -> Ints:
        """The identities in an epoch's order, which is kept for the steps that follow: it takes 2 ms for 100,000."""
        kept: tuple[int, Ints] = self._epoch  # type: ignore[attr-defined]
        if kept[0] != epoch:
            spans: Ints = self._spans  # type: ignore[attr-defined]
            kept = epoch, step_seed(self.seed, _ORDER, epoch).permutation(len(spans))
            object.__setattr__(self, "_epoch", kept)
        return kept[1]

    def _members(self, span: tuple[int, int, int], random: np.random.Generator) -> list[int]:
        start, num_shop, count = span
        shop, consumer = random.permutation(num_shop), num_shop + random.permutation(count - num_shop)
        # An odd K gives the extra place to consumer crops, which vary more.
        from_shop = min(len(shop), max(self.num_crops // 2, self.num_crops - len(consumer)))
        from_consumer = min(len(consumer), self.num_crops - from_shop)
        places = np.concatenate([shop[:from_shop], consumer[:from_consumer]])
        if len(places) < self.num_crops:
            places = np.concatenate([places, random.choice(count, self.num_crops - len(places))])
        order: Ints = self._order  # type: ignore[attr-defined]
        return [int(row) for row in order[start + places]]
