"""Boxes of several detectors piled up photo by photo, and the groups that weighted boxes fusion makes of them.

Legend: N boxes of all detectors, P photos, M detectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.types import Floats, Ints


@dataclass(frozen=True, eq=False)
class Groups:
    """What became of a pile: the groups of photo p are the ``counts[p]`` rows from ``starts[p]`` on."""

    boxes: Floats
    scores: Floats
    labels: Ints
    counts: Ints

    @classmethod
    def blank(cls, size: int, num_photos: int) -> Groups:
        """Room for the groups of so many boxes in so many photos."""
        return cls(np.empty((size, 4)), np.empty(size), np.empty(size, np.int64), np.zeros(num_photos, np.int64))


class Space:
    """Memory for a pile and its groups, used for one after another: fresh memory costs as much as the work in it.

    Args:
        size: most boxes of a pile.
    """

    def __init__(self, size: int) -> None:
        self._columns: tuple[Any, ...] = (
            np.empty((size, 4)),
            np.empty(size),
            np.empty(size, np.int64),
            np.empty(size, np.int64),
        )
        self._groups = Groups.blank(size, 0)
        self._rows = np.empty(size, np.int64)

    def pile(self, starts: Ints, weights: Floats) -> Pile:
        """A pile whose columns are to be filled; what was in the one before is lost."""
        boxes, scores, labels, models = (column[: starts[-1]] for column in self._columns)
        return Pile(starts, boxes, scores, labels, models, weights)

    def groups(self, pile: Pile) -> Groups:
        """Groups to be filled."""
        size, whole = pile.starts[-1], self._groups
        counts = np.zeros(len(pile.starts) - 1, np.int64)
        return Groups(whole.boxes[:size], whole.scores[:size], whole.labels[:size], counts)

    def rows(self, pile: Pile) -> Ints:
        """One integer a box, to be filled."""
        return self._rows[: pile.starts[-1]]


@dataclass(frozen=True, eq=False)
class Pile:
    """The boxes of all detectors, photo after photo, within a photo detector after detector.

    Attributes:
        starts: (P + 1,) int64, where each photo's rows begin.
        boxes: (N, 4) float64, units of the photo.
        scores: (N,) float64.
        labels: (N,) int64.
        models: (N,) int64.
        weights: (M,) float64.
    """

    starts: Ints
    boxes: Floats
    scores: Floats
    labels: Ints
    models: Ints
    weights: Floats

    def vote(self, iou_threshold: float, skip_threshold: float, conf_type: str, groups: Groups) -> None:
        """Fusion whatever the labels, of which each group then elects one; arguments as for `fuse`."""
        from harness.detection.label_policies import vote_photos
        from harness.detection.wbf import CONF_TYPES

        vote_photos(
            self.starts,
            self.boxes,
            self.scores,
            self.labels,
            self.models,
            self.weights,
            float(iou_threshold),
            float(skip_threshold),
            CONF_TYPES.index(conf_type),
            False,
            groups.boxes,
            groups.scores,
            groups.labels,
            groups.counts,
        )

    def fuse(
        self, iou_threshold: float, skip_threshold: float, conf_type: str, overflows: bool, groups: Groups
    ) -> None:
        """Weighted boxes fusion of each photo; arguments as for `harness.detection.fusion.weighted_boxes_fusion`.

        Where every box of a group has score 0, the group's box is no number, as ensemble-boxes makes it.
        """
        from harness.detection.wbf import CONF_TYPES, fuse_photos

        is_tied = np.zeros(len(self.starts) - 1, np.bool_)
        chosen = CONF_TYPES.index(conf_type)
        fuse_photos(
            self.starts,
            self.boxes,
            self.scores,
            self.labels,
            self.models,
            self.weights,
            float(iou_threshold),
            float(skip_threshold),
            chosen,
            overflows,
            groups.boxes,
            groups.scores,
            groups.labels,
            groups.counts,
            is_tied,
        )
        for photo in np.flatnonzero(is_tied).tolist():
            self._fuse_tied(photo, float(iou_threshold), skip_threshold, chosen, overflows, groups)

    def _fuse_tied(
        self, photo: int, iou_threshold: float, skip_threshold: float, conf_type: int, overflows: bool, groups: Groups
    ) -> None:
        """A photo with equal scores: numpy's sort decides their order, as it does for ensemble-boxes."""
        from harness.detection.wbf import fuse_ordered

        part = slice(int(self.starts[photo]), int(self.starts[photo + 1]))
        boxes, labels, models = self.boxes[part], self.labels[part], self.models[part]
        weighted = self.scores[part] * self.weights[models]
        sides = boxes[:, 2:] - boxes[:, :2]
        kept = np.flatnonzero((self.scores[part] >= skip_threshold) & (sides[:, 0] * sides[:, 1] != 0))
        names, first = np.unique(labels[kept], return_index=True)
        orders = []
        for name in names[np.argsort(first)]:
            rows = kept[labels[kept] == name]
            orders.append(rows[weighted[rows].argsort()[::-1]])
        groups.counts[photo] = fuse_ordered(
            np.concatenate(orders),
            np.cumsum([0, *map(len, orders)]),
            boxes,
            weighted,
            labels,
            models,
            self.weights,
            iou_threshold,
            conf_type,
            overflows,
            groups.boxes[part],
            groups.scores[part],
            groups.labels[part],
        )
