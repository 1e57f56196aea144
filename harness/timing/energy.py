"""Joules, where the hardware counts them: NVIDIA GPUs by their driver, processors by the kernel's powercap files.

A counter tells what its whole device took, with whatever else runs on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

POWERCAP = Path("/sys/class/powercap")
"""Where Linux keeps the counters of processors (Intel's RAPL, and AMD's by the same name)."""


class EnergyCounter(Protocol):
    """Counts the energy of one device."""

    @property
    def name(self) -> str:
        """Of the device: ``GPU``, ``CPU package-0``."""

    def read(self) -> int | None:
        """What it stands at, in units of its own; None where it cannot be read any more."""

    def joules(self, before: int, after: int) -> float:
        """Between two readings."""


@dataclass(frozen=True)
class GpuCounter:
    """The energy that a GPU's board has taken since its driver was loaded, by NVML.

    Attributes:
        name: of the device.
        nvml: the module ``pynvml``, initialised.
        handle: of the device.
    """

    name: str
    nvml: Any
    handle: Any

    def read(self) -> int | None:
        """Millijoules."""
        try:
            return int(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle))
        except self.nvml.NVMLError:
            return None

    def joules(self, before: int, after: int) -> float:
        """Between two readings; the counter has 64 bits and does not wrap around."""
        return (after - before) / 1e3


@dataclass(frozen=True)
class PackageCounter:
    """The energy of a processor package, by powercap.

    Attributes:
        name: of the device.
        file: ``energy_uj``.
        range_uj: where the counter begins again at 0: after minutes on a large processor.
    """

    name: str
    file: Path
    range_uj: int

    def read(self) -> int | None:
        """Microjoules."""
        try:
            return int(self.file.read_text())
        except (OSError, ValueError):
            return None

    def joules(self, before: int, after: int) -> float:
        """Between two readings, at most one turn of the counter apart."""
        taken = after - before
        return (taken + self.range_uj if taken < 0 else taken) / 1e6


def energy_counters(device: str | None = None, powercap: Path = POWERCAP) -> list[EnergyCounter]:
    """The counters that can be read here; none is no error: many machines keep them from users.

    Args:
        device: torch's name of a GPU that works; None or ``cpu`` for none.
        powercap: folder of the processors' counters.
    """
    found: list[EnergyCounter] = []
    gpu = _gpu_counter(device) if device is not None and device.startswith("cuda") else None
    if gpu is not None:
        found.append(gpu)
    for folder in sorted(powercap.glob("intel-rapl:*")):
        if folder.name.count(":") > 1:
            continue  # cores and memory, which the package counts too
        try:
            name, most = (folder / "name").read_text().strip(), int((folder / "max_energy_range_uj").read_text())
        except (OSError, ValueError):
            continue
        counter = PackageCounter(f"CPU {name}", folder / "energy_uj", most)
        # "psys" is the whole platform, its packages included.
        if name.startswith("package") and counter.read() is not None:
            found.append(counter)
    return found


def _gpu_counter(device: str) -> GpuCounter | None:
    try:
        import pynvml  # type: ignore[import-untyped]
    except ImportError:
        return None
    import torch

    try:
        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(torch.device(device)).uuid
        counter = GpuCounter("GPU", pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
    except (pynvml.NVMLError, AttributeError, AssertionError, RuntimeError):
        return None  # no driver, or a device that it does not know: part of a GPU, say
    return counter if counter.read() is not None else None
