"""Several processes that train one model together: who this one is, and what they tell one another.

A training on more than one device runs one process a device, all of the same command, told apart by
the environment variables of torchrun (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, …) or of srun;
`harness.training.launching` starts and ends them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from harness.types import InputError

Value = TypeVar("Value")

_TIMEOUT = timedelta(hours=2)
"""Longest wait for another process: the first may look at a whole split, or train a backbone, meanwhile."""


@dataclass(frozen=True)
class Place:
    """Which of the processes this one is.

    Attributes:
        rank: from 0, over all machines.
        num_processes: on all machines.
        local_rank: from 0, on this machine.
        num_local: on this machine.
    """

    rank: int = 0
    num_processes: int = 1
    local_rank: int = 0
    num_local: int = 1

    @property
    def num_nodes(self) -> int:
        """Machines."""
        return self.num_processes // self.num_local


def place() -> Place:
    """Where this process stands, by its environment; alone where nothing is said there."""
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env:
        world = int(env["WORLD_SIZE"])
        rank, local = int(env["RANK"]), int(env.get("LOCAL_RANK", env["RANK"]))
        return Place(rank, world, local, int(env.get("LOCAL_WORLD_SIZE", world)))
    world = int(env.get("SLURM_STEP_NUM_TASKS", 1))  # of srun; a script of sbatch has no step and runs once
    if world > 1:
        nodes = int(env.get("SLURM_STEP_NUM_NODES", 1))
        return Place(int(env["SLURM_PROCID"]), world, int(env["SLURM_LOCALID"]), world // nodes)
    return Place()


def share_of_step(batch_size: int, num_processes: int, accumulate: int = 1, what: str = "photos") -> int:
    """Photos, or ``what`` else, that a process takes at once: those of a step over processes and parts of a step.

    Raises:
        InputError: they cannot be shared out evenly.
    """
    parts = num_processes * accumulate
    if batch_size % parts:
        good = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
        raise InputError(
            f"a step's {batch_size} {what} cannot be shared out evenly over {num_processes} processes in "
            f"{accumulate} parts each; choose --devices, --nodes and --accumulate so that their product is one of "
            f"{', '.join(map(str, good))}"
        )
    return batch_size // parts


def join() -> Place:
    """Meet the other processes; nothing happens where this one is alone, or has met them already."""
    now = place()
    if now.num_processes == 1:
        return now
    import torch
    import torch.distributed as distributed

    if not distributed.is_initialized():
        _as_torchrun_has_it(now)
        on_gpu = torch.cuda.is_available()
        if on_gpu:
            torch.cuda.set_device(now.local_rank)
        # What is said besides gradients goes from memory to memory and waits for no GPU.
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        distributed.init_process_group(backend, rank=now.rank, world_size=now.num_processes, timeout=_TIMEOUT)
    return now


def _as_torchrun_has_it(now: Place) -> None:
    """Complete the environment for Lightning and torch where srun started the processes."""
    env = os.environ
    if "RANK" in env:
        env.setdefault("NODE_RANK", env.get("GROUP_RANK", "0"))
        return
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

    env.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(env["SLURM_STEP_NODELIST"]))
    env.setdefault("MASTER_PORT", str(15000 + int(env["SLURM_JOB_ID"]) % 10000))
    node = env["SLURM_NODEID"]
    env.update(RANK=str(now.rank), WORLD_SIZE=str(now.num_processes), LOCAL_RANK=str(now.local_rank), NODE_RANK=node)
    env["LOCAL_WORLD_SIZE"] = str(now.num_local)


def _is_joined() -> bool:
    if "torch" not in sys.modules:
        return False
    import torch.distributed as distributed

    return distributed.is_available() and distributed.is_initialized()


def leave() -> None:
    """Part from the other processes, if they were met."""
    if _is_joined():
        import torch.distributed as distributed

        distributed.destroy_process_group()


def first_does(work: Callable[[], Value]) -> Value:
    """What the first process makes of it, handed to all; the others wait.

    Raises:
        Exception: whatever the first raised, there; `FirstFailed` in the others.
    """
    if not _is_joined():
        return work()
    import torch.distributed as distributed

    message: list[Any] = [None, False]
    if distributed.get_rank() == 0:
        try:
            message = [work(), True]
        finally:
            distributed.broadcast_object_list(message, src=0)
    else:
        distributed.broadcast_object_list(message, src=0)
        if not message[1]:
            raise FirstFailed
    result: Value = message[0]
    return result


class FirstFailed(Exception):
    """The first process failed, and says why."""


def any_of(here: bool) -> bool:
    """Whether it is so in any of the processes."""
    if not _is_joined():
        return here
    import torch
    import torch.distributed as distributed

    count = torch.tensor(int(here))
    distributed.all_reduce(count)
    return bool(count)


def gathered(value: Value) -> list[Value]:
    """The values of all processes, by rank, in each of them."""
    if not _is_joined():
        return [value]
    import torch.distributed as distributed

    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


class Interrupted(Exception):
    """A training was stopped by a signal; what it has is kept.

    Attributes:
        signal_number: which signal.
    """

    def __init__(self, signal_number: int, out_dir: Path, step: int, num_steps: int) -> None:
        super().__init__(
            f"{out_dir}: stopped at step {step:,} of {num_steps:,}, which is kept; the same command goes on from there"
        )
        self.signal_number = signal_number
