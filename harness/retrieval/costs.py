"""What a network costs: parameters, and multiply-adds a crop, counted on torch's meta device without computing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from harness.retrieval.cgd import CGD
from harness.retrieval.settings import RetrieverSettings


@dataclass(frozen=True)
class Costs:
    """Of embedding one crop.

    Attributes:
        num_parameters: of the network without the auxiliary classifier.
        multiply_adds: of convolutions and matrix products; what is done a value at a time is not counted.
    """

    num_parameters: int
    multiply_adds: int


def costs_of(settings: RetrieverSettings) -> Costs:
    """What embedding one crop costs with the network of a recipe.

    Raises:
        InputError: the network cannot be made.
    """
    with torch.device("meta"):
        network = CGD.of(settings)
    return count(network, settings.input_wh)


def count(network: nn.Module, input_wh: tuple[int, int]) -> Costs:
    """What a network on the meta device costs for one image.

    Args:
        network: takes (1, 3, H, W).
        input_wh: width and height of the image, px.
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network.eval()(torch.empty(1, 3, input_wh[1], input_wh[0], device="meta"))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Costs(parameters, counter.get_total_flops() // 2)  # it counts a multiply-add as two
