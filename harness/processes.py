"""Several processes that train one model together: who this one is, how they are started, how they end.

A training on more than one device runs one process a device, all of the same command, told apart by
the environment variables of torchrun (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, …). On one machine
`launch` starts them. On several, start the command by torchrun or srun on each of them, over a
folder that all of them see::

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \\
        run.py train detector ATSS --data DeepFashion2
    srun --nodes 2 --ntasks-per-node 8 --gpus-per-node 8 run.py train detector ATSS --data DeepFashion2
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from harness.types import InputError

Value = TypeVar("Value")

_PARENT = "HARNESS_LAUNCHER_PID"
_FAILURE = "HARNESS_FIRST_FAILURE"
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_GRACE_S = 10.0
"""How long the other processes may take to end by themselves after one has failed."""

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


def share_of_step(batch_size: int, num_processes: int, accumulate: int = 1) -> int:
    """Photos that a process takes at once: a step's photos over processes and over the parts of a step.

    Raises:
        InputError: they cannot be shared out evenly.
    """
    parts = num_processes * accumulate
    if batch_size % parts:
        good = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
        raise InputError(
            f"a step's {batch_size} photos cannot be shared out evenly over {num_processes} processes in "
            f"{accumulate} parts each; choose --devices, --nodes and --accumulate so that their product is one of "
            f"{', '.join(map(str, good))}"
        )
    return batch_size // parts


def wanted_here(devices: int) -> int:
    """Processes of a machine: the devices asked for; for 0 every GPU, and one where there is none.

    Raises:
        InputError: there are fewer GPUs than were asked for.
    """
    import torch

    there = torch.cuda.device_count()
    if there and devices > there:
        raise InputError(f"--devices {devices}: this machine has {there} GPUs; ask for at most so many, or 0 for all")
    return devices or there or 1


def num_processes_wanted(devices: int, nodes: int) -> int:
    """Processes on all machines: those that there are, where a launcher started them; else those that `launch` will.

    Raises:
        InputError: there are several machines and no launcher, or the launcher started others than were asked for.
    """
    now = place()
    if now.num_processes > 1:
        if nodes not in (1, now.num_nodes) or devices not in (0, now.num_local):
            raise InputError(
                f"--devices {devices} --nodes {nodes}: the launcher started {now.num_local} processes on each of "
                f"{now.num_nodes} machines; give it the numbers, and leave the options out"
            )
        return now.num_processes
    if nodes > 1:
        raise InputError(
            f"--nodes {nodes}: several machines need a launcher that starts the command on each of them: torchrun "
            f"--nnodes {nodes} --nproc-per-node {wanted_here(devices)} --rdzv-backend c10d --rdzv-endpoint HOST:29500 "
            "run.py train …, or srun"
        )
    return wanted_here(devices)


def launch(num_processes: int, command: Sequence[str] | None = None) -> int | None:
    """Start this command once for every device of the machine and wait until all have ended.

    The first failure ends all; only its message is shown. Ctrl-C and SIGTERM reach all of them.

    Args:
        num_processes: how many.
        command: what to start; None for this process's own command line.

    Returns:
        The exit status of the first that failed, 0 if none did; None if nothing had to be started, because this
        process is one of them already, or one is enough.
    """
    if _PARENT in os.environ:
        die_with(int(os.environ[_PARENT]))
    if num_processes == 1 or place().num_processes > 1:
        return None
    command = command or [sys.executable, str(Path(sys.argv[0]).absolute()), *sys.argv[1:]]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        shared = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(num_processes),
            "LOCAL_WORLD_SIZE": str(num_processes),
            "GROUP_RANK": "0",
            _PARENT: str(os.getpid()),
            _FAILURE: str(Path(folder) / "first"),
        }
        # Each would else take every core: torch's own launcher sets the same.
        shared = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // num_processes)), **os.environ, **shared}
        children: list[subprocess.Popen[bytes]] = []
        before = {
            signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: _tell(children, signal.SIGTERM)),
            # The terminal interrupts the children as well; they say what they have kept.
            signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
        }
        try:
            for rank in map(str, range(num_processes)):
                children.append(subprocess.Popen(command, env={**shared, "RANK": rank, "LOCAL_RANK": rank}))
            return _wait(children)
        finally:
            _tell(children, signal.SIGKILL)
            for child in children:
                child.wait()
            for number, handler in before.items():
                signal.signal(number, handler)


def _tell(children: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for child in children:
        if child.poll() is None:
            child.send_signal(number)


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> int:
    first, since = 0, 0.0
    while any(child.poll() is None for child in children):
        failed = [child.returncode for child in children if child.returncode]
        if failed and not first:
            first, since = failed[0], time.monotonic()
        if first and time.monotonic() - since > _GRACE_S:
            break
        time.sleep(0.05)
    found = first or next((child.returncode for child in children if child.returncode), 0)
    return 128 - found if found < 0 else found


def die_with(parent: int) -> None:
    """Let the system kill this process as soon as its parent is dead (on Linux), so that nothing is left over."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call above
            os._exit(1)


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


@contextmanager
def ending_together() -> Iterator[None]:
    """Let a command end in all its processes: of their errors only the first is told.

    The others lost their partner, and end silently. Where there are several processes, they end with this block.
    """
    try:
        yield
    except Exception as error:
        if place().num_processes > 1 and (isinstance(error, FirstFailed) or not _fails_first()):
            # There is no other way past a collective that waits for the dead.
            _end(128 + error.signal_number if isinstance(error, Interrupted) else 1)
        raise
    if place().num_processes > 1:
        # Python's own way out now and then meets a thread of gloo ("terminate called without an active exception").
        _end(0)


def _end(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _fails_first() -> bool:
    mark = os.environ.get(_FAILURE)
    if mark is None:
        return True
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except OSError:  # another was first, or the launcher has cleared up already
        return False
    return True
