"""What a stage will take of memory and disk, held against what there is, before it starts.

Sizes are bytes; messages give them in GB of 10^9 bytes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.types import InputError


@dataclass(frozen=True)
class Room:
    """What there is; None where it cannot be known.

    Attributes:
        memory_bytes: that this process may still take.
        disk_bytes: that may still be written where a stage writes.
        gpu_bytes: that are free on the device that a stage uses.
    """

    memory_bytes: int | None = None
    disk_bytes: int | None = None
    gpu_bytes: int | None = None


Hints = Callable[[Room], Sequence[str]]
"""What would fit into the room that there is, a sentence each."""


def no_hints(_: Room) -> Sequence[str]:
    """Nothing to suggest."""
    return ()


@dataclass(frozen=True)
class Needs:
    """What a stage will take at most.

    Attributes:
        what: the stage, as people call it.
        memory_bytes: working memory, beside what the process holds already.
        disk_bytes: to be written.
        where: the folder that is written into; None where nothing is.
        gpu_bytes: memory of a GPU.
        device: torch's name of it; None where none is used.
        hints: what to do where there is too little.
    """

    what: str
    memory_bytes: int = 0
    disk_bytes: int = 0
    where: Path | None = None
    gpu_bytes: int = 0
    device: str | None = None
    hints: Hints = no_hints


def require(*needs: Needs, root: Path = Path("/")) -> None:
    """Refuse stages that cannot end, before the first of them starts.

    Stages follow one another: each has the memory by itself, and what they write on one disk adds up.

    Args:
        needs: of the stages, in their order.
        root: where ``/proc`` and ``/sys`` are.

    Raises:
        InputError: memory or disk do not suffice; says for which stage, what is needed, what there is, and what would
            fit.
    """
    memory = available_memory(root)
    written: dict[int, int] = {}
    for one in needs:
        room = Room(memory, None if one.where is None else available_disk(one.where), available_gpu(one.device))
        if one.where is not None and one.disk_bytes:
            disk = _existing(one.where).stat().st_dev
            before = written.get(disk, 0)
            written[disk] = before + one.disk_bytes
            room = Room(room.memory_bytes, max(0, (room.disk_bytes or 0) - before), room.gpu_bytes)
            if room.disk_bytes is not None and one.disk_bytes > room.disk_bytes:
                earlier = f" after the stages before it ({gigabytes(before)})" if before else ""
                _refuse(one, room, f"{gigabytes(one.disk_bytes)} of disk in {one.where}", room.disk_bytes, earlier)
        if room.memory_bytes is not None and one.memory_bytes > room.memory_bytes:
            _refuse(one, room, f"{gigabytes(one.memory_bytes)} of memory", room.memory_bytes)
        if room.gpu_bytes is not None and one.gpu_bytes > room.gpu_bytes:
            _refuse(one, room, f"{gigabytes(one.gpu_bytes)} of memory on {one.device}", room.gpu_bytes)


def _refuse(one: Needs, room: Room, needed: str, there: int, earlier: str = "") -> None:
    fits = "; ".join(one.hints(room))
    raise InputError(
        f"{one.what}: needs about {needed}, but {gigabytes(there)} are free there{earlier}; nothing was started"
        + (f". What would fit: {fits}" if fits else "")
    )


def gigabytes(count: int) -> str:
    """Bytes in GB, with as many decimals as are of use."""
    value = count / 1e9
    if 0 < value < 0.001:
        return "<0.001 GB"
    return f"{value:,.0f} GB" if value >= 100 else f"{value:,.1f} GB" if value >= 1 else f"{value:.3f} GB"


# --- memory ----------------------------------------------------------------------------------------


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes of memory that this process may still take: of the machine, its control group, its own limit.

    Args:
        root: where ``/proc`` and ``/sys`` are.

    Returns:
        The least of them; None where none is known.
    """
    limits = [_machine(root), _group(root), _own_limit(root)]
    return min((one for one in limits if one is not None), default=None)


def _machine(root: Path) -> int | None:
    """What can be taken without swapping."""
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return 1024 * int(value.split()[0])
    if root != Path("/"):
        return None
    import psutil

    return int(psutil.virtual_memory().available)


def _group(root: Path) -> int | None:
    """What the control groups above this process leave, version 1 or 2; pages of files count as free."""
    left: list[int] = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = base / path.strip("/")
        # A container may see its own group as the root, whatever the path says.
        for group in (folder, *(one for one in folder.parents if one == base or base in one.parents)):
            limit, used = _number(group / names[0]), _number(group / names[1])
            if limit is not None and used is not None:
                left.append(max(0, limit - used + _statistic(group / "memory.stat", names[2])))
    return min(left, default=None)


def _own_limit(root: Path) -> int | None:
    """What ``ulimit -v`` leaves."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = _read(root / "proc/self/statm").split()
    if limit == resource.RLIM_INFINITY or not pages:
        return None
    return max(0, limit - int(pages[0]) * os.sysconf("SC_PAGESIZE"))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None  # "max" is no limit


def _statistic(path: Path, name: str) -> int:
    for line in _read(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


# --- disk and GPUs ---------------------------------------------------------------------------------


def available_disk(folder: Path) -> int:
    """Bytes that may still be written into a folder, which need not exist yet; quotas as far as the system tells."""
    found = os.statvfs(_existing(folder))
    return found.f_bavail * found.f_frsize


def _existing(folder: Path) -> Path:
    return next(one for one in (folder, *folder.absolute().parents) if one.exists())


def available_gpu(device: str | None) -> int | None:
    """Free bytes of a GPU, where torch is loaded already and the device is one; else None."""
    torch = sys.modules.get("torch")
    if device is None or torch is None or not device.startswith("cuda") or not torch.cuda.is_available():
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int(free)
