"""The losses of the paper's Table 4: softmax + centre + triplet + multi-similarity.

The only door to pytorch-metric-learning. Legend: B crops of a batch, D dimensions, C identities, R references: the
batch and M embeddings of past batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

Past = tuple[Tensor, Tensor]
"""Embeddings (M, D) and labels (M,) of batches before this one; see `harness.retrieval.memory`."""


def softmax_loss(logits_BC: Tensor, labels_B: Tensor, temperature: float, label_smoothing: float) -> Tensor:
    """Cross entropy of the auxiliary classifier, sharpened by a temperature.

    Args:
        logits_BC: (B, C) float.
        labels_B: (B,) int64 in [0, C).
        temperature: above 0; logits are divided by it (0.5 in CGD).
        label_smoothing: share of the target spread evenly over all classes, in [0, 1).

    Returns:
        The mean over the batch. Source: Jun et al. 2019, section 3.2.
    """
    return functional.cross_entropy(logits_BC.float() / temperature, labels_B, label_smoothing=label_smoothing)


class CentreLoss(nn.Module):
    """Half the mean squared distance of the embeddings to the centres of their identities.

    The centres are no parameters: they follow the embeddings by Wen's own rule in `update`, so that
    the optimiser's rate and decay do not touch them. They start at 0, where the loss of unit vectors
    has no gradient along the sphere: an identity not yet seen pulls nowhere.

    Args:
        num_classes: C.
        dimensions: D.
        rate: α of equation 4, in (0, 1].

    Source: Wen et al. 2016, equations 2–4 (here the mean over the batch, not the sum).
    """

    centres_CD: Tensor

    def __init__(self, num_classes: int, dimensions: int, rate: float = 0.5) -> None:
        super().__init__()
        if not 0 < rate <= 1:
            raise ValueError(f"rate: expected a number in (0, 1], got {rate}")
        self.rate = rate
        self.register_buffer("centres_CD", torch.zeros(num_classes, dimensions))

    def forward(self, embeddings_BD: Tensor, labels_B: Tensor) -> Tensor:
        """The loss, a scalar; the centres stay as they are."""
        # A copy: `update` writes the centres in place before backward has used them.
        centres_BD = self.centres_CD[labels_B].clone()
        return 0.5 * (embeddings_BD - centres_BD).square().sum(dim=1).mean()

    @torch.no_grad()
    def update(self, embeddings_BD: Tensor, labels_B: Tensor) -> None:
        """Move each centre of the batch towards its embeddings: c ← c − α Σ(c − x) / (1 + count)."""
        embeddings_BD = embeddings_BD.detach().to(self.centres_CD.dtype)
        classes, inverse = torch.unique(labels_B, return_inverse=True)
        centres = self.centres_CD[classes]
        differences = torch.zeros_like(centres).index_add_(0, inverse, centres[inverse] - embeddings_BD)
        counts = torch.bincount(inverse, minlength=len(classes)).to(centres.dtype)
        self.centres_CD[classes] = centres - self.rate * differences / (1 + counts)[:, None]


class TripletLoss(nn.Module):
    """Triplet loss over each anchor's farthest positive and nearest negative.

    Distances are Euclidean between unit vectors; the mean is over the triplets above zero.

    Args:
        margin: at least 0.

    Source: Schroff et al. 2015 with the batch-hard choice of Hermans et al. 2017.
    """

    def __init__(self, margin: float) -> None:
        super().__init__()
        from pytorch_metric_learning.losses import TripletMarginLoss

        self.loss = TripletMarginLoss(margin=margin)

    def forward(self, embeddings_BD: Tensor, labels_B: Tensor, past: Past | None = None) -> Tensor:
        """The loss, a scalar; 0 where no anchor has both a positive and a negative.

        Args:
            embeddings_BD: (B, D) float, rows of length 1; computed with in at least single precision.
            labels_B: (B,) int64.
            past: embeddings (M, D) and labels (M,) that may be positives and negatives, but no anchors.
        """
        pairs = _Pairs.of(embeddings_BD, labels_B, past)
        with torch.no_grad():
            distances_BR = self.loss.distance(pairs.anchors_BD, pairs.references_RD)
            farthest_B = distances_BR.masked_fill(~pairs.is_positive_BR, -math.inf).argmax(dim=1)
            nearest_B = distances_BR.masked_fill(~pairs.is_negative_BR, math.inf).argmin(dim=1)
            anchors = torch.where(pairs.is_positive_BR.any(dim=1) & pairs.is_negative_BR.any(dim=1))[0]
        triplets = (anchors, farthest_B[anchors], nearest_B[anchors])
        loss: Tensor = self.loss(pairs.anchors_BD, labels_B, triplets, pairs.references_RD, pairs.labels_R)
        return loss


class MultiSimilarityLoss(nn.Module):
    """Multi-similarity loss over the pairs that its miner finds informative.

    The form of pytorch-metric-learning. The authors' own code differs: β is 40 there by default instead of 50,
    positives of similarity 1 − 1e-5 or more do not count, and anchors without a positive or a negative that was kept
    give nothing, where here the other half of the loss stays. Both divide the sum by all B anchors. Where at most one
    pair of each kind is kept in the whole batch, pytorch-metric-learning says 0.

    Args:
        alpha: sharpness over positives, above 0.
        beta: sharpness over negatives, above 0.
        base: similarity λ from which pairs are weighed, in [0, 1].
        epsilon: margin of the miner: a positive is kept when less similar than the most similar
            negative plus ε, a negative when more similar than the least similar positive minus ε.

    Source: Wang et al. 2019, equations 10–16.
    """

    def __init__(self, alpha: float, beta: float, base: float, epsilon: float) -> None:
        super().__init__()
        from pytorch_metric_learning.losses import MultiSimilarityLoss as VendorLoss

        self.epsilon = epsilon
        self.loss = VendorLoss(alpha=alpha, beta=beta, base=base)

    def forward(self, embeddings_BD: Tensor, labels_B: Tensor, past: Past | None = None) -> Tensor:
        """The loss, a scalar: the mean over all B anchors.

        Args:
            embeddings_BD: (B, D) float, rows of length 1; computed with in at least single precision.
            labels_B: (B,) int64.
            past: embeddings (M, D) and labels (M,) that may be positives and negatives, but no anchors.
        """
        pairs = _Pairs.of(embeddings_BD, labels_B, past)
        with torch.no_grad():
            positives_BR, negatives_BR = self.informative(pairs)
        kept = (*torch.where(positives_BR), *torch.where(negatives_BR))
        loss: Tensor = self.loss(pairs.anchors_BD, labels_B, kept, pairs.references_RD, pairs.labels_R)
        return loss

    def informative(self, pairs: _Pairs) -> tuple[Tensor, Tensor]:
        """Which positive and which negative pairs are kept, (B, R) bool each.

        What pytorch-metric-learning's miner keeps; but that one takes a crop for a positive of itself where the
        references are more than the batch.
        """
        similarities_BR = self.loss.distance(pairs.anchors_BD, pairs.references_RD)
        nearest_B1 = similarities_BR.masked_fill(~pairs.is_negative_BR, -math.inf).amax(dim=1, keepdim=True)
        farthest_B1 = similarities_BR.masked_fill(~pairs.is_positive_BR, math.inf).amin(dim=1, keepdim=True)
        return (
            pairs.is_positive_BR & (similarities_BR - self.epsilon < nearest_B1),
            pairs.is_negative_BR & (similarities_BR + self.epsilon > farthest_B1),
        )


@dataclass(frozen=True)
class _Pairs:
    """Anchors against references: the batch itself, then what is remembered of batches before it."""

    anchors_BD: Tensor
    references_RD: Tensor
    labels_R: Tensor
    is_positive_BR: Tensor
    is_negative_BR: Tensor

    @classmethod
    def of(cls, embeddings_BD: Tensor, labels_B: Tensor, past: Past | None) -> _Pairs:
        anchors_BD = embeddings_BD.to(torch.promote_types(embeddings_BD.dtype, torch.float32))
        references_RD, labels_R = anchors_BD, labels_B
        if past is not None:
            references_RD = torch.cat([anchors_BD, past[0].to(anchors_BD.dtype)])
            labels_R = torch.cat([labels_B, past[1]])
        is_same_BR = labels_B[:, None] == labels_R[None]
        is_positive_BR = is_same_BR.clone()
        is_positive_BR.diagonal().fill_(False)  # an anchor is no pair with itself
        return cls(anchors_BD, references_RD, labels_R, is_positive_BR, ~is_same_BR)
