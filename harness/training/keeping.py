"""What is kept of a training while it runs: progress, checkpoints, and the best weights that were seen.

A file is written under a temporary name and then renamed, so it is whole or as it was.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from harness.training.fitting import LAST_CHECKPOINT, LOG_EVERY, FitSettings, Watch, write_progress
from harness.training.processes import any_of, first_does
from harness.training.waiting import Waiting
from harness.types import InputError

_PART = ".part"


@dataclass(frozen=True)
class Best:
    """The best that was seen of a model while it was trained.

    Attributes:
        step: after how many steps.
        figures: what `Watch.look` said of it.
        weights: the file that holds it.
    """

    step: int
    figures: Mapping[str, float]
    weights: Path


def write_whole(path: Path, write: Callable[[Path], None], num_bytes: int, remedy: str) -> None:
    """Write a large file so that it is whole or as it was, and nothing else is left.

    Args:
        path: of the file.
        write: writes to the path that it is given.
        num_bytes: about how many; for the message.
        remedy: how to go on, for the message.

    Raises:
        InputError: it cannot be written.
    """
    part = path.with_name(path.name + _PART)
    try:
        write(part)
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch's own writer says a full disk by a RuntimeError
        part.unlink(missing_ok=True)
        why = (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0]
        raise InputError(
            f"{path}: cannot be written ({why}): it takes about {num_bytes / 1e6:,.1f} MB, and "
            f"{shutil.disk_usage(path.parent).free / 1e6:,.1f} MB are free there; {remedy}"
        ) from error


def clear_parts(folder: Path) -> None:
    """Remove what a process that was killed while it wrote left in a model's folder."""
    for part in folder.glob(f"*{_PART}"):
        part.unlink(missing_ok=True)


def read_best(path: Path) -> dict[str, Tensor]:
    """The best weights that a training has seen.

    Raises:
        InputError: the file is missing or damaged.
    """
    if not path.is_file():
        raise InputError(f"{path}: the best weights of the training are missing; train again with --force")
    try:
        weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything at all
        raise InputError(f"{path}: the best weights of the training are damaged; train again with --force") from error
    return weights


def clear_best(folder: Path) -> None:
    """Remove the best weights that a finished training leaves: that of the last checkpoint may be there as well."""
    for seen in folder.glob("best_*.pt"):
        seen.unlink()


def load_checkpoint(path: Path, module: pl.LightningModule) -> int:
    """The step of a checkpoint that fits the module.

    Raises:
        InputError: it is damaged, or of another network.
    """
    anew = "put a copy of it back, or begin anew with --force"
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        step, state = int(loaded["global_step"]), loaded["state_dict"]
        there = {name: tuple(value.shape) for name, value in state.items()}
    # A damaged pickle can raise anything at all.
    except Exception as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: the checkpoint is damaged ({why}); {anew}") from error
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    wrong = next((name for name in {**own, **there} if own.get(name) != there.get(name)), None)
    if wrong is not None:
        raise InputError(
            f"{path}: the checkpoint is of another network: {wrong} is {_shape(there, wrong)} there and "
            f"{_shape(own, wrong)} in this one; {anew}"
        )
    return step


def _shape(shapes: Mapping[str, tuple[int, ...]], name: str) -> str:
    return str(shapes[name]) if name in shapes else "missing"


class Keeper(Callback):
    """Writes progress, log figures, checkpoints and the best weights; ends a training that was told to.

    Args:
        settings: of the training.
        out_dir: the model's folder.
        first_step: where this run begins.
        watch: how the model is judged while it is trained; None without.
    """

    def __init__(self, settings: FitSettings, out_dir: Path, first_step: int, watch: Watch | None) -> None:
        self.settings, self.out_dir, self.first_step, self.watch = settings, out_dir, first_step, watch
        self.last = out_dir / LAST_CHECKPOINT
        self.best: Best | None = None
        self.num_worse = 0
        self.told: int | None = None
        self.saved_at = first_step
        self.step = first_step
        self.began = self.logged = time.perf_counter()
        self.logged_step = first_step
        self.wrote = 0.0
        self.waiting = Waiting()

    @property
    def has_enough(self) -> bool:
        """Whether the model has not become better for as long as the patience lasts."""
        return self.watch is not None and 0 < self.watch.patience <= self.num_worse

    @property
    def data_wait_share(self) -> float:
        """Share of the time in training so far that went by waiting for data."""
        self.waiting.take()
        return self.waiting.share

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint: the best so far and the patience that was used up."""
        best = None
        if self.best is not None:
            # Plain numbers: a checkpoint is read without running what else a pickle may hold.
            figures = {name: float(value) for name, value in self.best.figures.items()}
            best = (self.best.step, figures, self.best.weights.name)
        return {"best": best, "num_worse": self.num_worse}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        if state_dict["best"] is not None and self.watch is not None:
            step, figures, name = state_dict["best"]
            self.best, self.num_worse = Best(step, figures, self.out_dir / name), state_dict["num_worse"]

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Count the batches of this run: it may part its steps otherwise than the one that wrote the checkpoint."""
        counts = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        batches = checkpoint["global_step"] * self.settings.accumulate
        for kind in ("current", "total"):
            counts[kind].update(ready=batches, started=batches, processed=batches, completed=batches - 1)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Listen for Ctrl-C and SIGTERM; Lightning puts the handlers back."""
        self.began = self.logged = time.perf_counter()
        if self.has_enough:
            trainer.should_stop = True
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, self._be_told)

    def _be_told(self, number: int, _: Any) -> None:
        if self.told is not None and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: at once
        self.told = number

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Log the step's learning rate, and the gradient's norm before it is clipped."""
        if trainer.global_step % LOG_EVERY == LOG_EVERY - 1:
            module.log("learning_rate", float(max(group["lr"] for group in optimizer.param_groups)))
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            module.log("gradient_norm", torch.nn.utils.get_total_norm(gradients))

    def on_train_batch_start(self, *_: Any) -> None:
        """The data of a batch, or of a part of a step, are there."""
        self.waiting.begins()

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """After each step: what is due."""
        self.waiting.ends()
        if trainer.global_step != self.step:  # else only a part of a step
            self._after_step(trainer, module)
        self.waiting.resumes()

    def _after_step(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        step = self.step = trainer.global_step
        if step % LOG_EVERY == 0:
            self._log(trainer, module)
        at_end = step == self.settings.num_steps
        told = self.told is not None
        if not self.settings.alone:
            told = any_of(told)
        looked = self.watch is not None and (at_end or step % self.watch.every == 0)
        if looked:
            self._look(trainer)
        if not at_end and (looked or told or step % self.settings.checkpoint_every == 0):
            self.save(trainer, module)
        if told or self.has_enough:
            trainer.should_stop = True
        now = time.perf_counter()
        if trainer.is_global_zero and (now - self.wrote > 0.5 or at_end):
            self.wrote = now
            write_progress(
                self.out_dir, step, self.settings.num_steps, (step - self.first_step) / max(now - self.began, 1e-9)
            )

    def _log(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        now = time.perf_counter()
        rate = (self.step - self.logged_step) / max(now - self.logged, 1e-9)
        self.logged, self.logged_step = now, self.step
        module.log("steps_per_s", rate)
        module.log("data_wait_share", self.waiting.take())
        if self.settings.photos_per_step is not None:
            module.log(f"{self.settings.seen}_per_s", rate * self.settings.photos_per_step)
        if torch.cuda.is_available():
            module.log("peak_gpu_gib", torch.cuda.max_memory_allocated() / 2**30)

    def _look(self, trainer: pl.Trainer) -> None:
        assert self.watch is not None
        began = time.perf_counter()
        figures = self.watch.look()
        for logger in trainer.loggers:
            logger.log_metrics({f"val/{name}": value for name, value in figures.items()}, self.step)
        if self.best is None or figures[self.watch.figure] > self.best.figures[self.watch.figure]:
            self.best = Best(self.step, figures, self.out_dir / f"best_{self.step:07d}.pt")
            self.num_worse = 0
            if self.watch.patience:  # else nobody takes them
                first_does(lambda: self._write_best(self.watch.weights()))  # type: ignore[union-attr]
        else:
            self.num_worse += 1
        # Rates are of training alone.
        self.logged += time.perf_counter() - began

    def _write_best(self, weights: Mapping[str, Tensor]) -> None:
        assert self.best is not None
        kept = {name: value.detach().cpu() for name, value in weights.items()}
        write_whole(self.best.weights, lambda part: torch.save(kept, part), _num_bytes(kept), self._remedy())

    def save(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write the checkpoint from which a run that was interrupted goes on; every process calls it."""
        held = [*module.state_dict().values()]
        held += [value for one in trainer.optimizers for state in one.state.values() for value in state.values()]
        num_bytes = sum(value.nbytes for value in held if isinstance(value, Tensor))

        def write(part: Path) -> None:
            trainer.save_checkpoint(part, weights_only=False)

        if trainer.is_global_zero:
            write_whole(self.last, write, num_bytes, self._remedy())
        else:
            write(self.last)  # only the first writes; the others take part
        self.saved_at = self.step
        if trainer.is_global_zero:
            for old in self.out_dir.glob("best_*.pt"):
                if self.best is None or old != self.best.weights:
                    old.unlink()

    def _remedy(self) -> str:
        kept = f"goes on from step {self.saved_at:,}" if self.saved_at else "begins at step 0"
        return f"make room and give the same command again: the training {kept}"


def _num_bytes(weights: Mapping[str, Tensor]) -> int:
    return sum(value.nbytes for value in weights.values())
