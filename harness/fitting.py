"""One way to train: Lightning drives a module for a fixed number of steps, resumably.

The order of the data is a pure function of (seed, step): batch ``s`` is the same batch whether
the run began at step 0 or was resumed at step ``s``. Together with the state of the model, the
optimiser and the schedule, which Lightning's checkpoint holds, that makes a resumed run the
same run. Random numbers inside a step (augmentation, dropout) must be drawn from generators
that `step_seed` seeds, never from a global stream.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from torch.utils.data import DataLoader

PROGRESS_FILE = "progress.json"
LAST_CHECKPOINT = "last.ckpt"


def step_seed(seed: int, *where: int) -> np.random.Generator:
    """A random generator that depends on the run's seed and on the place (step, row, …), on nothing else."""
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=where))


@dataclass(frozen=True)
class StepSampler:
    """Batches of dataset indices, one a training step; a `batch_sampler` for a DataLoader.

    Each index is the pair (step, row), so that the dataset can seed its augmentation by both.

    Args:
        draw: rows of the batch of a given step: a pure function of the step.
        num_steps: steps of the whole training.
        first_step: where to begin; the steps before it were done by an earlier run.
    """

    draw: Callable[[int], Sequence[int]]
    num_steps: int
    first_step: int = 0

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.first_step, self.num_steps):
            yield [(step, int(row)) for row in self.draw(step)]


def shuffled_batches(num_rows: int, batch_size: int, seed: int) -> Callable[[int], Sequence[int]]:
    """Epoch-wise shuffled batches for `StepSampler`: every row once before any comes twice.

    Args:
        num_rows: rows of the data set, at least 1.
        batch_size: rows a batch; batches run on over the borders of epochs.
        seed: of the shuffles; epoch e is shuffled by (seed, e).
    """
    if num_rows < 1:
        raise ValueError("there is nothing to train on: the data set has no rows")

    def draw(step: int) -> Sequence[int]:
        first, last = step * batch_size, (step + 1) * batch_size
        epochs = range(first // num_rows, (last - 1) // num_rows + 1)
        order = np.concatenate([step_seed(seed, epoch).permutation(num_rows) for epoch in epochs])
        offset = first - epochs[0] * num_rows
        return [int(row) for row in order[offset : offset + batch_size]]

    return draw


@dataclass(frozen=True)
class FitSettings:
    """How a training runs, as against what is trained.

    Attributes:
        num_steps: optimiser steps in all.
        seed: of weights, data order and augmentation.
        checkpoint_every: steps between checkpoints, from which a killed run goes on.
        precision: Lightning's precision string, such as ``32-true``, ``16-mixed`` or ``bf16-mixed``.
        devices: GPUs (or CPU processes) a node; 0 takes every GPU there is, and one process on a CPU.
        num_nodes: machines.
        gradient_clip: largest norm of the gradient; None for no clipping.
        accumulate: batches whose gradients are summed into one step.
    """

    num_steps: int
    seed: int
    checkpoint_every: int = 200
    precision: str = "32-true"
    devices: int = 0
    num_nodes: int = 1
    gradient_clip: float | None = None
    accumulate: int = 1


def resume_step(out_dir: Path) -> int:
    """The step at which a training in this folder goes on; 0 where none has begun."""
    import torch

    last = out_dir / LAST_CHECKPOINT
    if not last.exists():
        return 0
    return int(torch.load(last, map_location="cpu", weights_only=False, mmap=True)["global_step"])


def fit(
    module: pl.LightningModule,
    make_loader: Callable[[int], DataLoader[Any]],
    settings: FitSettings,
    out_dir: Path,
) -> None:
    """Train a module for ``settings.num_steps`` steps, going on from the folder's last checkpoint.

    ``module.parameters()`` must have been made under the run's seed by the caller. Logs go to
    ``out_dir/logs`` (CSV and TensorBoard), progress to ``out_dir/progress.json``.

    Args:
        module: what to train.
        make_loader: a loader over the steps from the given one on, built on a `StepSampler`.
        settings: how.
        out_dir: checkpoint and logs go here; one training at a time.
    """
    import logging
    import warnings

    import pytorch_lightning as pl
    import torch
    from pytorch_lightning.callbacks import Callback
    from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

    out_dir.mkdir(parents=True, exist_ok=True)
    first_step = resume_step(out_dir)
    last = out_dir / LAST_CHECKPOINT

    class Keeper(Callback):
        """Writes progress, and checkpoints to a temporary name that is then renamed."""

        def __init__(self) -> None:
            self.began = time.perf_counter()
            self.wrote = 0.0

        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            step = trainer.global_step
            now = time.perf_counter()
            if step % settings.checkpoint_every == 0 and first_step < step < settings.num_steps:
                part = last.with_suffix(".part")
                trainer.save_checkpoint(part, weights_only=False)
                if trainer.is_global_zero:
                    os.replace(part, last)
            if trainer.is_global_zero and (now - self.wrote > 0.5 or step == settings.num_steps):
                self.wrote = now
                rate = (step - first_step) / max(now - self.began, 1e-9)
                write_progress(out_dir, step, settings.num_steps, rate)

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    has_gpu = torch.cuda.is_available()
    trainer = pl.Trainer(
        accelerator="gpu" if has_gpu else "cpu",
        devices=settings.devices or (-1 if has_gpu else 1),
        num_nodes=settings.num_nodes,
        precision=settings.precision,  # type: ignore[arg-type]
        max_steps=settings.num_steps,
        max_epochs=-1,
        gradient_clip_val=settings.gradient_clip,
        accumulate_grad_batches=settings.accumulate,
        logger=[
            kind(str(out_dir), name="logs", version=f"from_step_{first_step}")
            for kind in (CSVLogger, TensorBoardLogger)
        ],
        log_every_n_steps=20,
        callbacks=[Keeper()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    with warnings.catch_warnings():
        # The loader is told its first step (StepSampler), which Lightning cannot see.
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # A resumed run that had no checkpoint writes its log anew; short runs log only their end.
        warnings.filterwarnings("ignore", message=".*Experiment logs directory.*")
        warnings.filterwarnings("ignore", message=".*is smaller than the logging interval.*")
        # Lightning 2.6.6 asks torch 2.11 for a tree in a way that torch has renamed.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        trainer.fit(module, make_loader(first_step), ckpt_path=str(last) if first_step else None, weights_only=False)


def write_progress(out_dir: Path, done: int, total: int, rate: float) -> None:
    """Say how far a training is, for whoever watches the folder (steps, steps a second)."""
    part = out_dir / (PROGRESS_FILE + ".part")
    part.write_text(json.dumps({"done": done, "total": total, "rate": rate}))
    os.replace(part, out_dir / PROGRESS_FILE)


def read_progress(out_dir: Path) -> tuple[int, int] | None:
    """(done, total) of the training in a folder; None before it has said anything."""
    try:
        told = json.loads((out_dir / PROGRESS_FILE).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return int(told["done"]), int(told["total"])
