"""Shards that several devices make: of this machine, or of all on which torchrun or srun started the command::

    run.py embed m0-17 --data DeepFashion2 --devices 8
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \\
        run.py embed m0-17 --data DeepFashion2
    srun --nodes 2 --ntasks-per-node 8 --gpus-per-node 8 run.py embed m0-17 --data DeepFashion2

Under a launcher the first process runs the command; the others wait in `with_helpers` for shards that it shares out,
and write them into the folder that all of them see.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.progress import Reporter
from harness.training.processes import Place, first_does, gathered, join, leave, place
from harness.types import InputError, Progress


@dataclass(frozen=True)
class Task:
    """Shards to be made, in this process or in others.

    Attributes:
        function: makes shards one after the other, a module-level function; called with ``common`` and, by keyword,
            ``shares``, ``num_threads``, ``device`` (torch's name of one; None for the best there is), ``advance`` (told
            of what is done) and ``watch`` (a folder to write the same into).
        common: its other arguments; values that pickle.
        shares: one a shard.
        num_devices: of this machine, a process each; without a GPU processes of one thread.
        num_threads: for all processes of a machine; None for the cores there are.
        device: torch's name of the one to work on where this process does; None for the best there is.
    """

    function: Callable[..., None]
    common: Mapping[str, Any]
    shares: Sequence[Any]
    num_devices: int = 1
    num_threads: int | None = None
    device: str | None = None


def share_out(task: Task, stage: str, report: Reporter) -> None:
    """Have all shards made.

    Args:
        task: the shards; nothing happens where there are none.
        stage: its name.
        report: where progress is shown; under a launcher that of the first process's shards.

    Raises:
        InputError: of one of the shards, when all devices have done theirs; or there are fewer GPUs than asked for.
    """
    from harness.workers import available_threads

    if not task.shares:
        return
    here = place()
    if here.num_processes > 1:
        if task.num_devices > 1:
            raise InputError(
                f"--devices {task.num_devices}: the launcher started {here.num_local} processes on each of "
                f"{here.num_nodes} machines; leave the option out"
            )
        first_does(lambda: task)
        _own_part(task, here, report(f"{stage} (1 of {here.num_processes})"))
    elif task.num_devices == 1:
        threads = task.num_threads or available_threads()
        advance = report(stage)
        task.function(**task.common, shares=task.shares, num_threads=threads, device=task.device, advance=advance)
    else:
        _in_processes(task, task.num_threads or available_threads(), stage, report)


def with_helpers(work: Callable[[], None]) -> None:
    """Let the first process do a command's work, and all others help it; alone, only do it.

    Args:
        work: what the command does; whatever it shares out is shared with the others.

    Raises:
        Exception: whatever the work raised, in the first; `harness.training.processes.FirstFailed` in the others.
    """
    here = join()
    if here.rank == 0:
        try:
            first_does(work)
        finally:
            leave()  # whoever ends with an error ends as Python does, which would meet threads of gloo
        return
    while True:
        task: Task | None = first_does(_nothing)
        if task is None:
            return
        _own_part(task, here, None)


def _nothing() -> Any:
    raise AssertionError("only the first process says what there is to do")


def _own_part(task: Task, here: Place, advance: Progress | None) -> None:
    """This process's shards; returns when all have done theirs."""
    import torch

    from harness.workers import available_cores

    gpus = torch.cuda.device_count()
    # torchrun sets OMP_NUM_THREADS to 1, which is no word on how many threads decode.
    threads = max(1, (task.num_threads or available_cores()) // here.num_local)
    own = task.shares[here.rank :: here.num_processes]
    device = f"cuda:{here.local_rank % gpus}" if gpus else "cpu"
    message = ""
    try:
        task.function(**task.common, shares=own, num_threads=threads, device=device, advance=advance)
    except InputError as error:
        message = str(error)
    first = next((one for one in gathered(message) if one), "")
    if first and here.rank == 0:  # the others learn of it from the first
        raise InputError(first)


def _in_processes(task: Task, threads: int, stage: str, report: Reporter) -> None:
    import torch

    from harness.workers import Job, side_by_side

    count, there = min(task.num_devices, len(task.shares)), torch.cuda.device_count()
    if there and task.num_devices > there:
        raise InputError(f"--devices {task.num_devices}: this machine has {there} GPUs; give at most as many")
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for rank in range(count):
            watch = Path(folder) / str(rank)
            watch.mkdir()
            own = {"shares": task.shares[rank::count], "num_threads": max(1, threads // count), "watch": watch}
            arguments = {**task.common, **own, "device": f"cuda:{rank}" if there else "cpu"}
            jobs.append(Job(f"{stage} ({rank + 1} of {count})", task.function, arguments, watch))
        side_by_side(jobs, count, report)
