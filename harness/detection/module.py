"""The Lightning module that every detector is trained by: a thin shell around the network's own losses."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from harness.detection.bridge import Network
from harness.detection.dataset import Batch
from harness.detection.recipes import DetectorScale
from harness.detection.settings import Optimiser
from harness.training.fitting import LOG_EVERY, step_seed
from harness.types import InputError

_SEED_PLACE = 2
"""Keeps a step's random numbers (the sampling of proposals) apart from shuffles and augmentation."""


def learning_rate_factor(scale: DetectorScale, step: int, num_steps: int) -> float:
    """What the recipe's learning rate is multiplied by at a step.

    Args:
        scale: the recipe's settings.
        step: from 0.
        num_steps: of the whole training.
    """
    warmup = min(max(scale.warmup_steps, round(scale.warmup_fraction * num_steps)), num_steps // 2)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if scale.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, num_steps - warmup)))
    return float(0.1 ** sum(step >= milestone * num_steps for milestone in scale.milestones))


class DetectorModule(pl.LightningModule):
    """Trains a network on the sum of its losses.

    Args:
        network: to train.
        scale: the recipe's settings.
        seed: of what the losses draw at random.
        num_steps: of the whole training, for the schedule.
        accumulate: parts of a step that follow one another.
    """

    def __init__(self, network: Network, scale: DetectorScale, seed: int, num_steps: int, accumulate: int = 1) -> None:
        super().__init__()
        self.network, self.scale, self.seed, self.num_steps = network, scale, seed, num_steps
        self.accumulate = accumulate
        # Lightning leaves modes as they are, and mmdet stops its batch statistics in train() only.
        self.network.train()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """The batch on the device that trains."""
        return batch.to(device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch.

        Raises:
            InputError: it is not finite at a step that is logged, and so before the next checkpoint.
        """
        place = (batch.step, self.global_rank, batch_idx % self.accumulate)
        drawn = int(step_seed(self.seed, _SEED_PLACE, *place).integers(2**62))
        # mmdet samples proposals from torch's global stream, which a resumed run would find elsewhere.
        devices = [self.device] if self.device.type == "cuda" else []
        self.network.epoch = int((self.scale.num_epochs or 0) * batch.step / self.num_steps)
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(drawn)
            losses = self.network.losses(batch.photos_BHW3, batch.targets)
        loss = torch.stack(list(losses.values())).sum()
        if self.global_step % LOG_EVERY == LOG_EVERY - 1:
            told = {f"loss/{name.removeprefix('loss_')}": value.detach() for name, value in losses.items()}
            if not torch.isfinite(loss):
                parts = ", ".join(f"{name} {float(value):.3g}" for name, value in told.items())
                raise InputError(
                    f"the training diverged: at step {self.global_step + 1:,} its loss is not finite ({parts}); begin "
                    "anew with --force and a lower learning rate (--batch-size lowers it too), with other initial "
                    "weights, or in --precision 32-true"
                )
            self.log_dict({"loss/sum": loss.detach(), **told}, batch_size=len(batch.targets))
        return loss

    def configure_optimizers(self) -> Any:
        """The recipe's optimiser and schedule."""
        optimiser = make_optimiser(self.network, self.scale.optimiser)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: learning_rate_factor(self.scale, step, self.num_steps)
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def make_optimiser(model: nn.Module, settings: Optimiser) -> torch.optim.Optimizer:
    """The optimiser of the parameters that are not frozen; norms and biases do not decay under AdamW."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = settings.backbone_factor if ".backbone." in f".{name}" else 1.0
            decays = settings.kind == "sgd" or parameter.ndim > 1
            place = settings.learning_rate * factor, settings.weight_decay if decays else 0.0
            groups.setdefault(place, []).append(parameter)
    options = [{"params": some, "lr": rate, "weight_decay": decay} for (rate, decay), some in groups.items()]
    if settings.kind == "sgd":
        return torch.optim.SGD(options, settings.learning_rate, momentum=settings.momentum)
    return torch.optim.AdamW(options, settings.learning_rate)


def unfreeze(network: Network) -> None:
    """Let every weight and every batch statistic learn: for a training that starts from random weights.

    The full-scale configs freeze the stem, the first stage and all batch statistics, which is
    right only for pre-trained backbones.
    """
    for part in network.modules():
        if hasattr(part, "frozen_stages"):
            part.frozen_stages = -1  # type: ignore[assignment]
        if hasattr(part, "norm_eval"):
            part.norm_eval = False  # type: ignore[assignment]
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    network.train()
