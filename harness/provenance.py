"""What made a result: the machine, the versions of the libraries, and the code itself."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import harness

_VERSIONS_OF = ("torch", "torchvision", "pytorch-lightning", "mmdet", "timm", "faiss-gpu", "faiss-cpu", "numpy")


@functools.cache
def code_version() -> str:
    """The harness's version, with the commit (and ``+changes``) where it runs from a git checkout."""
    root = Path(harness.__file__).parent.parent
    if not (root / ".git").exists():
        return harness.__version__
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty=+changes", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):  # no git, or not its own checkout
        return harness.__version__
    return f"{harness.__version__}-{described.stdout.strip()}"


def hardware() -> dict[str, Any]:
    """The machine and the versions that a timing belongs to: CPU, cores, memory, GPUs, Python, libraries."""
    return {**_host(), "gpus": _gpu_names()}


def machine() -> str:
    """The machine in a few words: processor, cores that may be used, GPUs if there are any."""
    facts, gpus = _host(), _gpu_names()
    several = [f"{gpus.count(name)} x {name}" if gpus.count(name) > 1 else name for name in dict.fromkeys(gpus)]
    return ", ".join([f"{facts['cpu']}, {facts['cores']} cores", *several])


@functools.cache
def _host() -> dict[str, Any]:
    """What does not change while the process runs; GPUs are known only once torch is there."""
    import psutil

    facts: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    versions = {}
    for name in _VERSIONS_OF:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return facts | {"versions": versions}


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _gpu_names() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
