"""The kernels' benchmarks of a checkout, run by pytest-benchmark, each beside the baseline of its group."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import harness
from harness.timing import percentile
from harness.types import InputError

FOLDER = Path("tests") / "benchmarks"

_PARAMETERS = re.compile(r"\[(.*)\]$")


@dataclass(frozen=True)
class KernelTiming:
    """One benchmark of the suite.

    Attributes:
        group: what is compared with one another.
        name: of the benchmark.
        num_samples: rounds.
        median_s, p95_s, p99_s: seconds of a round, of the same rounds; by nearest rank, so p99 is the largest of fewer
            than 100.
        things: that a round handles, where rounds of a group differ; None where it compares with none of them.
        ratio: how many times as long the group's baseline takes for a thing; None for the baseline itself, and where
            there is none.
        is_baseline: whether it is the baseline.
    """

    group: str
    name: str
    num_samples: int
    median_s: float
    p95_s: float
    p99_s: float
    things: float | None
    ratio: float | None
    is_baseline: bool

    def as_json(self) -> dict[str, Any]:
        """The timing as plain JSON values."""
        return asdict(self)


def run_kernels(chosen: str | None = None, out: Path | None = None) -> list[KernelTiming]:
    """Run the suite of this checkout; what it prints goes to standard error.

    Args:
        chosen: benchmarks whose names match pytest's ``-k``; None for all.
        out: where to keep what pytest-benchmark writes, with every sample; None to keep nothing.

    Raises:
        InputError: the harness does not run from a checkout, or benchmarks failed, or none was chosen.
    """
    root = Path(harness.__file__).parent.parent
    if not (root / FOLDER).is_dir():
        raise InputError(f"{root / FOLDER}: no such folder; --kernels runs the benchmarks of a checkout of the code")
    with tempfile.TemporaryDirectory(prefix="kernels-") as folder:
        told = out.absolute() if out is not None else Path(folder) / "kernels.json"
        told.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pytest", str(FOLDER), "-q", "-o", "addopts=--import-mode=importlib"]
        command += [
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "--benchmark-only",
            "--benchmark-columns=median,iqr,rounds",
        ]
        command += [f"--benchmark-json={told}", f"--benchmark-storage=file://{folder}/saved", "--benchmark-save-data"]
        command += ["--benchmark-save=kernels", *(["-k", chosen] if chosen else [])]
        paths = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
        # Settings of a test run that this may be a part of are not those of the benchmarks.
        others = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment = {**others, "PYTHONPATH": paths}
        done = subprocess.run(command, cwd=root, env=environment, stdout=sys.stderr.fileno(), check=False)
        if done.returncode == 5:
            raise InputError(f"--only {chosen}: no benchmark of {FOLDER} has such a name")
        if done.returncode != 0 or not told.is_file():
            raise InputError(f"{root / FOLDER}: benchmarks failed (pytest ended with {done.returncode}); see above")
        try:
            return read_kernels(json.loads(told.read_bytes()))
        except ValueError as error:
            raise InputError(f"{told}: is not what pytest-benchmark writes ({error})") from error


def read_kernels(document: Mapping[str, Any]) -> list[KernelTiming]:
    """Each benchmark of what pytest-benchmark wrote, beside the baseline of its group.

    The baseline is the benchmark of the group whose name has ``baseline`` in it; of several the one of the same
    parameters.

    Raises:
        ValueError: it is no such document.
    """
    try:
        entries = [one for one in document["benchmarks"] if one["stats"]["median"] is not None]
        return [_timing(one, entries) for one in entries]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _timing(entry: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> KernelTiming:
    group, samples = str(entry["group"] or ""), entry["stats"].get("data") or [entry["stats"]["median"]]
    is_baseline = "baseline" in entry["name"]
    of_group = [one for one in entries if (one["group"] or "") == group and "baseline" in one["name"]]
    alike = [one for one in of_group if _parameters(one["name"]) == _parameters(entry["name"])]
    baselines = alike or (of_group if len(of_group) == 1 else [])
    things, ratio = _things(entry), None
    if not is_baseline and baselines and things is not None:
        theirs = _things(baselines[0])
        if theirs is not None:
            ratio = (baselines[0]["stats"]["median"] / theirs) / (entry["stats"]["median"] / things)
    return KernelTiming(
        group=group,
        name=str(entry["name"]),
        num_samples=len(samples),
        median_s=statistics.median(samples),
        p95_s=percentile(samples, 95),
        p99_s=percentile(samples, 99),
        things=things,
        ratio=ratio,
        is_baseline=is_baseline,
    )


def _parameters(name: str) -> str:
    found = _PARAMETERS.search(name)
    return found.group(1) if found else ""


def _things(entry: Mapping[str, Any]) -> float | None:
    things = entry.get("extra_info", {}).get("things", 1)
    return None if things is None else float(things)
