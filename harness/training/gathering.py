"""Rows that several processes computed, as one batch in each of them, with gradients.

Legend: B rows of a process, R rows of all of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

from harness.training.processes import place


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_BD: Tensor) -> Tensor:
        parts = [torch.empty_like(rows_BD) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, rows_BD)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # The loss of every process may depend on these rows. Their sum, which the mean of the parameters' gradients
        # over processes then divides by their number, is the gradient of the mean of the processes' losses.
        gradient_RD = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(gradient_RD)
        return gradient_RD.chunk(distributed.get_world_size())[distributed.get_rank()]


def gathered_rows(*columns: Tensor) -> tuple[Tensor, ...]:
    """The rows of all processes, by rank, in each of them.

    Gradients are those of the mean over processes of whatever each computes from the rows: a loss that all compute
    alike from all rows counts once, and losses that each computes of its own rows are averaged.

    Args:
        columns: (B, …) each, of one floating dtype if there are several; B is the same in every process.

    Returns:
        (R, …) each.
    """
    if not is_shared():
        return columns
    if len(columns) == 1 and not columns[0].requires_grad:
        parts = [torch.empty_like(columns[0]) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, columns[0].contiguous())
        return (torch.cat(parts),)
    # One message: backward then has one collective as well, at the same place in every process.
    widths = [column[0].numel() for column in columns]
    joined: Tensor = _Gathered.apply(  # type: ignore[no-untyped-call]
        torch.cat([column.flatten(1) for column in columns], dim=1)
    )
    split = torch.split(joined, widths, dim=1)
    return tuple(part.reshape(-1, *column.shape[1:]).contiguous() for part, column in zip(split, columns, strict=True))


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of what each process has, without gradients."""
    value = value.detach().clone()
    if is_shared():
        distributed.all_reduce(value)
        value /= distributed.get_world_size()
    return value


def take_from_first(tensors: Any) -> None:
    """Give tensors the values that they have in the first process, in place."""
    if is_shared():
        for tensor in tensors:
            distributed.broadcast(tensor, src=0)


def is_shared() -> bool:
    """Whether a step is shared out over several processes."""
    return place().num_processes > 1 and distributed.is_available() and distributed.is_initialized()
