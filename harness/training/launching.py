"""How several processes that train one model together are started, and how they end.

On one machine `launch` starts them. On several, start the command by torchrun or srun on each of them, over a
folder that all of them see::

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \\
        run.py train detector ATSS --data DeepFashion2
    srun --nodes 2 --ntasks-per-node 8 --gpus-per-node 8 run.py train detector ATSS --data DeepFashion2
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from harness.training.processes import FirstFailed, Interrupted, place
from harness.types import InputError

_PARENT = "HARNESS_LAUNCHER_PID"
_FAILURE = "HARNESS_FIRST_FAILURE"
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_GRACE_S = 10.0
"""How long the other processes may take to end by themselves after one has failed."""


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
            _end(_status(error))
        if place().num_processes > 1:  # told on Python's way out; after that it goes the way of the others, see below
            atexit.register(_end, _status(error))
        raise
    if place().num_processes > 1:
        # Python's own way out now and then meets a thread of gloo ("terminate called without an active exception").
        _end(0)


def _status(error: Exception) -> int:
    return 128 + error.signal_number if isinstance(error, Interrupted) else 1


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
