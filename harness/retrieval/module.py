"""The Lightning shell around CGD and its losses."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from harness.retrieval.augmentation import augment
from harness.retrieval.cgd import CGD, normalise
from harness.retrieval.losses import CentreLoss, MultiSimilarityLoss, TripletLoss, softmax_loss
from harness.retrieval.settings import RetrieverSettings
from harness.training.fitting import step_seed

_AUGMENTATION = 2  # its stream of random numbers, beside the sampler's 0 and 1


class RetrieverModule(pl.LightningModule):
    """Trains one retriever: augment, embed, add up the four losses.

    Args:
        settings: the recipe at its scale.
        num_classes: identities trained on.
        num_steps: length of the learning-rate schedule.
        seed: of the augmentation.
        network: the model to train.
    """

    def __init__(self, settings: RetrieverSettings, num_classes: int, num_steps: int, seed: int, network: CGD) -> None:
        super().__init__()
        self.settings = settings
        self.num_steps = num_steps
        self.seed = seed
        self.network = network
        losses = settings.losses
        self.centre = CentreLoss(num_classes, settings.output_dim, losses.centre.rate)
        self.triplet = TripletLoss(losses.triplet.margin)
        shape = losses.multi_similarity
        self.multi_similarity = MultiSimilarityLoss(shape.alpha, shape.beta, shape.base, shape.epsilon)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The weighted sum of the losses on one batch, each logged by its name."""
        random = step_seed(self.seed, _AUGMENTATION, int(batch["step"]), self.global_rank)
        images = augment(batch["canvases"], batch["views"], self.settings.input_wh, self.settings.augmentation, random)
        images = normalise(images).contiguous(memory_format=torch.channels_last)
        embeddings_BD, logits_BC = self.network(images)
        labels_B = batch["labels"]
        with torch.autocast(images.device.type, enabled=False):
            parts = self._losses(embeddings_BD.float(), logits_BC, labels_B)
        if self.settings.losses.centre.weight:
            self.centre.update(embeddings_BD, labels_B)
        total = torch.stack(list(parts.values())).sum()
        self.log_dict({f"loss/{name}": value.detach() for name, value in parts.items()} | {"loss": total.detach()})
        return total

    def _losses(self, embeddings_BD: Tensor, logits_BC: Tensor | None, labels_B: Tensor) -> dict[str, Tensor]:
        """Each loss of nonzero weight, times its weight."""
        losses, parts = self.settings.losses, {}
        if losses.softmax.weight and logits_BC is not None:
            softmax = softmax_loss(logits_BC, labels_B, losses.softmax.temperature, losses.softmax.label_smoothing)
            parts["softmax"] = losses.softmax.weight * softmax
        if losses.centre.weight:
            parts["centre"] = losses.centre.weight * self.centre(embeddings_BD, labels_B)
        if losses.triplet.weight:
            parts["triplet"] = losses.triplet.weight * self.triplet(embeddings_BD, labels_B)
        if losses.multi_similarity.weight:
            similarity = self.multi_similarity(embeddings_BD, labels_B)
            parts["multi_similarity"] = losses.multi_similarity.weight * similarity
        return parts

    def configure_optimizers(self) -> Any:
        """SGD or AdamW with warm-up and cosine; no decay on biases, norms and GeM's power."""
        settings = self.settings
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer: torch.optim.Optimizer
        if settings.optimizer == "SGD":
            optimizer = torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=True)
        else:
            optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
        warmup = round(settings.warmup_fraction * self.num_steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_share(step, self.num_steps, warmup)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def learning_rate_share(step: int, num_steps: int, num_warmup: int) -> float:
    """The share of the full learning rate at a step: linear warm-up, then cosine to 0.

    Args:
        step: from 0.
        num_steps: in all, above ``num_warmup``.
        num_warmup: steps of warm-up, at least 0.
    """
    if step < num_warmup:
        return (step + 1) / (num_warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - num_warmup) / max(1, num_steps - num_warmup))))
