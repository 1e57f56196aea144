"""The Lightning shell around CGD and its losses.

Legend: B crops of a process, R crops of a step over all processes, D dimensions, C channels of the first descriptor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from harness.retrieval.augmentation import Draws, augment
from harness.retrieval.cgd import CGD, normalise
from harness.retrieval.losses import CentreLoss, MultiSimilarityLoss, Past, TripletLoss, softmax_loss
from harness.retrieval.memory import Memory
from harness.retrieval.settings import RetrieverSettings
from harness.training.fitting import LOG_EVERY, step_seed
from harness.training.gathering import gathered_rows, mean_over_processes
from harness.training.processes import place
from harness.types import InputError

_AUGMENTATION, _FORWARD = 2, 3  # streams of random numbers, beside the sampler's 0 and 1


class RetrieverModule(pl.LightningModule):
    """Trains one retriever: augment, embed, add up the four losses over the whole step.

    A step is one batch of crops however many processes share it, and in however many parts a process computes its
    share. Embeddings and labels of all are brought together with gradients, and every process computes the losses over
    pairs, the centres and the memory alike; of the classifier's losses each computes those of its own crops. Parts are
    computed once without keeping what backward needs, and once more when backward comes to them: the same step in the
    memory of one part and, where the network has batch statistics, with those of the parts.

    Args:
        settings: the recipe at its scale.
        num_classes: identities trained on.
        num_steps: length of the learning-rate schedule.
        seed: of the augmentation.
        network: the model to train.
        accumulate: parts of a process's share of a step, of equal size.
    """

    def __init__(
        self,
        settings: RetrieverSettings,
        num_classes: int,
        num_steps: int,
        seed: int,
        network: CGD,
        accumulate: int = 1,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.num_steps = num_steps
        self.seed = seed
        self.network = network
        self.accumulate = accumulate
        losses = settings.losses
        self.centre = CentreLoss(num_classes, settings.output_dim, losses.centre.rate)
        self.triplet = TripletLoss(losses.triplet.margin)
        shape = losses.multi_similarity
        self.multi_similarity = MultiSimilarityLoss(shape.alpha, shape.beta, shape.base, shape.epsilon)
        self.memory = Memory(losses.memory.size, settings.output_dim) if losses.memory.size else None
        # All processes make the same of them; sent around at every step they would be most of the traffic.
        self._ddp_params_and_buffers_to_ignore = [
            name for name, _ in self.named_buffers() if name.startswith(("centre.", "memory."))
        ]

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The weighted sum of the losses of a step.

        Raises:
            InputError: it is not finite at a step that is logged, and so before the next checkpoint.
        """
        step = int(batch["step"])
        images = self._images(batch, step)
        with self._own_chance(step):
            embeddings_BD, first_BC = self._described(images)
        embeddings_RD, first_RC = gathered_rows(embeddings_BD.float(), first_BC)
        (labels_R,) = gathered_rows(batch["labels"])
        past = None
        if self.memory is not None and step >= self.settings.losses.memory.from_step:
            past = self.memory.before(step, len(labels_R))
        parts = self._losses(embeddings_RD, first_RC, labels_R, past)
        if self.settings.losses.centre.weight:
            self.centre.update(embeddings_RD, labels_R)
        if self.memory is not None:
            self.memory.write(step, embeddings_RD, labels_R)
        total = torch.stack(list(parts.values())).sum()
        if self.global_step % LOG_EVERY == LOG_EVERY - 1:
            self._log_losses(parts)
        return total

    def _images(self, batch: dict[str, Any], step: int) -> Tensor:
        """(B, 3, h, w) normalised views; what they are depends on a crop's place in the step, not on the process."""
        here, share = place(), len(batch["labels"])
        draws = Draws.of(
            share * here.num_processes, self.settings.augmentation, step_seed(self.seed, _AUGMENTATION, step, 0)
        )
        images = augment(batch["canvases"], batch["views"], self.settings.input_wh, draws.take(_own(share)))
        return normalise(images).contiguous(memory_format=torch.channels_last)

    @contextmanager
    def _own_chance(self, step: int) -> Iterator[None]:
        """Dropout and its like draw by (seed, step, process): a resumed run finds torch's global stream elsewhere."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(int(step_seed(self.seed, _FORWARD, step, place().rank).integers(2**62)))
            yield

    def _described(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if self.accumulate == 1:
            return self.network.describe(images)
        parts = [
            checkpoint(
                self.network.describe,
                part,
                use_reentrant=False,
                context_fn=lambda: (nullcontext(), statistics_held(self.network)),
            )
            for part in images.chunk(self.accumulate)
        ]
        embeddings, firsts = zip(*parts, strict=True)
        return torch.cat(embeddings), torch.cat(firsts)

    def _losses(
        self, embeddings_RD: Tensor, first_RC: Tensor, labels_R: Tensor, past: Past | None
    ) -> dict[str, Tensor]:
        """Each loss of nonzero weight, times its weight."""
        losses, parts = self.settings.losses, {}
        if losses.softmax.weight:
            own = _own(len(labels_R) // place().num_processes)
            logits_BC, labels_B = self.network.classify(first_RC, own), labels_R[own]
            with torch.autocast(logits_BC.device.type, enabled=False):
                softmax = softmax_loss(logits_BC, labels_B, losses.softmax.temperature, losses.softmax.label_smoothing)
            parts["softmax"] = losses.softmax.weight * softmax
        with torch.autocast(embeddings_RD.device.type, enabled=False):
            if losses.centre.weight:
                parts["centre"] = losses.centre.weight * self.centre(embeddings_RD, labels_R)
            if losses.triplet.weight:
                parts["triplet"] = losses.triplet.weight * self.triplet(embeddings_RD, labels_R, past)
            if losses.multi_similarity.weight:
                similarity = self.multi_similarity(embeddings_RD, labels_R, past)
                parts["multi_similarity"] = losses.multi_similarity.weight * similarity
        return parts

    def _log_losses(self, parts: dict[str, Tensor]) -> None:
        told = {f"loss/{name}": mean_over_processes(value) for name, value in parts.items()}
        total = torch.stack(list(told.values())).sum()
        if not torch.isfinite(total):
            each = ", ".join(f"{name.removeprefix('loss/')} {float(value):.3g}" for name, value in told.items())
            raise InputError(
                f"the training diverged: at step {self.global_step + 1:,} its loss is not finite ({each}); begin anew "
                "with --force and a lower learning rate, with other initial weights, or in --precision 32-true"
            )
        self.log_dict(told | {"loss": total})

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


def _own(share: int) -> slice:
    """The rows of this process among those of all."""
    rank = place().rank
    return slice(rank * share, (rank + 1) * share)


@contextmanager
def statistics_held(network: torch.nn.Module) -> Iterator[None]:
    """Batch statistics are used within, and running ones left as they are: a part that comes again counts once."""
    norms = [part for part in network.modules() if isinstance(part, _BatchNorm)]
    counts = [(norm, norm.num_batches_tracked) for norm in norms if norm.num_batches_tracked is not None]
    before = [(norm, norm.momentum, count, count.clone()) for norm, count in counts]
    for norm, *_ in before:
        norm.momentum = 0.0  # without running statistics backward would miss tensors that forward had kept
    try:
        yield
    finally:
        for norm, momentum, count, was in before:
            norm.momentum = momentum
            count.copy_(was)
