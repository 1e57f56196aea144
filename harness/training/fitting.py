"""One way to train: Lightning drives a module for a fixed number of steps, resumably.

The order of the data is a pure function of (seed, step): batch ``s`` is the same batch whether
the run began at step 0 or was resumed at step ``s``. Together with the state of the model, the
optimiser and the schedule, which Lightning's checkpoint holds, that makes a resumed run the
same run. Random numbers inside a step (augmentation, dropout) must be drawn from generators
that `step_seed` seeds, never from a global stream.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.training.processes import Interrupted, Place, join
from harness.types import InputError

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from torch.utils.data import DataLoader

    from harness.training.keeping import Best

PROGRESS_FILE = "progress.json"
LAST_CHECKPOINT = "last.ckpt"

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
"""Lightning's names of the arithmetics that a training may use."""

LOG_EVERY = 20
"""Steps between two rows of the log; figures are those of the last."""


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
        num_parts: batches that a step is divided into, one after the other.
    """

    draw: Callable[[int], Sequence[int]]
    num_steps: int
    first_step: int = 0
    num_parts: int = 1

    def __len__(self) -> int:
        return self.num_steps * self.num_parts

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.first_step, self.num_steps):
            rows = self.draw(step)
            for part in range(self.num_parts):
                yield [(step, int(row)) for row in rows[part :: self.num_parts]]


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
        precision: Lightning's precision string, one of `PRECISIONS`.
        gradient_clip: largest norm of the gradient; None for no clipping.
        accumulate: parts of a step that are computed one after the other; the step follows the mean of their gradients.
        photos_per_step: over all processes, for the log; None logs steps alone.
        seen: what these are, for the log.
        sync_batchnorm: batch statistics over all GPUs instead of over those of one.
        alone: train in this process alone, although it is one of several.
    """

    num_steps: int
    seed: int
    checkpoint_every: int = 200
    precision: str = "32-true"
    gradient_clip: float | None = None
    accumulate: int = 1
    photos_per_step: int | None = None
    seen: str = "photos"
    sync_batchnorm: bool = False
    alone: bool = False


@dataclass(frozen=True)
class Watch:
    """How a model is judged while it is trained.

    Attributes:
        every: steps between looks; the last step is looked at in any case.
        look: figures of the model as it is now, the same in every process; each process calls it.
        weights: what to keep of a model that is better than all before it.
        figure: the name of the one that decides; more is better.
        patience: looks without a better figure that end the training; 0 never ends it.
    """

    every: int
    look: Callable[[], Mapping[str, float]]
    weights: Callable[[], Mapping[str, Any]]
    figure: str
    patience: int = 0


@dataclass(frozen=True)
class Fitted:
    """What became of a training.

    Attributes:
        first_step: where this run began.
        num_steps: that were made in all; fewer than were planned where patience ended it.
        best: the best that was seen; None where nobody looked.
        data_wait_share: share of the time in training that this run waited for data.
    """

    first_step: int
    num_steps: int
    best: Best | None
    data_wait_share: float


def check_precision(precision: str) -> None:
    """See that this machine can train so.

    Raises:
        InputError: it cannot.
    """
    import torch

    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r}: there are {', '.join(PRECISIONS)}")
    if precision == "16-mixed" and not torch.cuda.is_available():
        raise InputError("precision '16-mixed': needs a GPU; a CPU trains in 32-true or bf16-mixed")


def ignore_interruptions(_: int) -> None:
    """For processes that read data: Ctrl-C reaches them too, but the training ends them when it has kept its state."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def reader_context(num_workers: int) -> BaseContext | None:
    """Where the processes that read data for a loader come from; None without any.

    A fork of this process would have the locks of its threads (OpenCV's, Arrow's, numba's) and not the threads: now and
    then it waits for ever. These are forked from a process that has none, which has loaded torch for all of them.
    """
    if num_workers == 0:
        return None
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cv2", "torch"])
    return context


def fit(
    module: pl.LightningModule,
    make_loader: Callable[[int], DataLoader[Any]],
    settings: FitSettings,
    out_dir: Path,
    watch: Watch | None = None,
) -> Fitted:
    """Train a module for ``settings.num_steps`` steps, going on from the folder's last checkpoint.

    ``module.parameters()`` must have been made under the run's seed by the caller. Every process of
    `harness.training.processes` calls this. Ctrl-C and SIGTERM end the training after the step that is being
    made, with a checkpoint; a second Ctrl-C ends it at once.

    Progress goes to ``out_dir/progress.json``. Of every 20 steps the last is logged: losses, learning rate, norm
    of the gradient before clipping, steps (and photos) a second, the share of the time that went by waiting for data,
    peak memory of a GPU, and what ``watch`` saw. Each run has a folder ``out_dir/logs/from_step_N``, with
    ``metrics.csv`` and TensorBoard events; the axis is the step of the whole training, so
    ``tensorboard --logdir out_dir/logs`` shows resumed runs as one curve.

    Args:
        module: what to train.
        make_loader: a loader over the steps from the given one on, built on a `StepSampler`; in a process of several
            and with ``accumulate`` it gives the process's share of each part of a step, ``accumulate`` batches a step.
        settings: how.
        out_dir: checkpoint and logs go here; one training at a time.
        watch: how the model is judged meanwhile; None without.

    Raises:
        InputError: the checkpoint is damaged or of another network, or cannot be written.
        Interrupted: by a signal; a checkpoint is written.
    """
    import logging
    import warnings

    import pytorch_lightning as pl
    import torch
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
    from pytorch_lightning.strategies import DDPStrategy

    from harness.training.keeping import Keeper, clear_parts, load_checkpoint

    check_precision(settings.precision)
    out_dir.mkdir(parents=True, exist_ok=True)
    here = Place() if settings.alone else join()
    last = out_dir / LAST_CHECKPOINT
    first_step = load_checkpoint(last, module) if last.exists() else 0
    keeper = Keeper(settings, out_dir, first_step, watch)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    has_gpu = torch.cuda.is_available()
    trainer = pl.Trainer(
        accelerator="gpu" if has_gpu else "cpu",
        devices=here.num_local,
        num_nodes=here.num_nodes,
        strategy=DDPStrategy(gradient_as_bucket_view=True) if here.num_processes > 1 else "auto",
        plugins=[TorchElasticEnvironment() if here.num_processes > 1 else LightningEnvironment()],
        sync_batchnorm=settings.sync_batchnorm,
        precision=settings.precision,  # type: ignore[arg-type]
        max_steps=settings.num_steps,
        max_epochs=-1,
        gradient_clip_val=settings.gradient_clip,
        accumulate_grad_batches=settings.accumulate,
        logger=[
            CSVLogger(str(out_dir), "logs", f"from_step_{first_step}", flush_logs_every_n_steps=LOG_EVERY),
            TensorBoardLogger(str(out_dir), "logs", f"from_step_{first_step}"),
        ],
        log_every_n_steps=LOG_EVERY,
        callbacks=[keeper],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    with _alone_in(out_dir, here.rank), warnings.catch_warnings():
        # The loader is told its first step (StepSampler), which Lightning cannot see.
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # A resumed run that had no checkpoint writes its log anew; short runs log only their end.
        warnings.filterwarnings("ignore", message=".*Experiment logs directory.*")
        warnings.filterwarnings("ignore", message=".*is smaller than the logging interval.*")
        # Lightning 2.6.6 asks torch 2.11 for a tree in a way that torch has renamed.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        if here.rank == 0:
            clear_parts(out_dir)
        trainer.fit(module, make_loader(first_step), ckpt_path=str(last) if first_step else None, weights_only=True)
    if keeper.step < settings.num_steps and not keeper.has_enough:
        raise Interrupted(keeper.told or signal.SIGTERM, out_dir, keeper.step, settings.num_steps)
    return Fitted(first_step, keeper.step, keeper.best, keeper.data_wait_share)


@contextmanager
def _alone_in(out_dir: Path, rank: int) -> Iterator[None]:
    """Hold a model's folder while it is trained; the system lets go of it when the process dies.

    Raises:
        InputError: another command trains in it.
    """
    from filelock import FileLock, Timeout

    if rank:  # of several processes the first holds it for all
        yield
        return
    lock = FileLock(out_dir / ".training.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"{out_dir}: another command is training in this folder; wait for it, or end it") from error
    try:
        yield
    finally:
        lock.release()


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
