"""Losses that are divided by a number of boxes, made the same on one device and on several.

Gradients are averaged over the processes. A loss that is divided by the boxes of its own process
would weigh a box by how many others happened to be beside it; divided by the mean over the
processes, the average is the loss of one process that has all photos. ATSS and CenterNet do so in
mmdet, plain anchor heads (RetinaNet, and the proposals of a cascade) do not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn


def average_over_processes(model: nn.Module) -> None:
    """Let the anchor heads of a model divide their losses by the mean number of boxes over all processes.

    The number is asked for once a head and part of a step, whether or not there are boxes, so all processes take part.
    """
    from mmdet.models.dense_heads import AnchorHead

    for part in model.modules():
        if isinstance(part, AnchorHead) and type(part).get_targets is AnchorHead.get_targets:
            part.get_targets = partial(_averaged, part.get_targets)


_AVG_FACTOR = 4
"""Where `AnchorHead.get_targets` returns the number that the losses are divided by."""


def _averaged(get_targets: Callable[..., tuple[Any, ...]], *args: Any, **kwargs: Any) -> tuple[Any, ...]:
    from mmdet.utils import reduce_mean

    found = list(get_targets(*args, **kwargs))
    labels = found[0][0]
    found[_AVG_FACTOR] = reduce_mean(labels.new_tensor(found[_AVG_FACTOR], dtype=float)).item()
    return tuple(found)
