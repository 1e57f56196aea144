"""Embeddings of past batches, which join the pairs of the losses.

Legend: M places, B crops of a batch, D dimensions.

Source: Wang, Zhang, Huang, Scott, "Cross-batch memory for embedding learning", 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.retrieval.losses import Past


class Memory(nn.Module):
    """The newest embeddings with their labels, in a ring.

    Every step writes one batch, so that what is where depends on the step alone. The buffers are part of a checkpoint;
    processes that share a step all write the whole batch and hold the same.

    Args:
        size: M, at least 1.
        dimensions: D.
    """

    embeddings_MD: Tensor
    labels_M: Tensor

    def __init__(self, size: int, dimensions: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size: expected at least 1, got {size}")
        self.size = size
        self.register_buffer("embeddings_MD", torch.zeros(size, dimensions))
        self.register_buffer("labels_M", torch.zeros(size, dtype=torch.int64))

    def before(self, step: int, batch_size: int) -> Past | None:
        """What is remembered of the steps before the given one, each of which wrote ``batch_size`` rows."""
        filled = min(self.size, step * batch_size)
        return (self.embeddings_MD[:filled], self.labels_M[:filled]) if filled else None

    @torch.no_grad()
    def write(self, step: int, embeddings_BD: Tensor, labels_B: Tensor) -> None:
        """Remember the batch of a step over the oldest; of a batch larger than the memory, its last rows."""
        batch = len(labels_B)
        kept = slice(max(0, batch - self.size), batch)
        places = (step * batch + torch.arange(batch, device=labels_B.device)[kept]) % self.size
        self.embeddings_MD[places] = embeddings_BD[kept].to(self.embeddings_MD.dtype)
        self.labels_M[places] = labels_B[kept]
