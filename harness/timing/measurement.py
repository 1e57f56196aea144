"""What was measured of a piece of work: its samples, what follows from them, and what it is compared with.

Percentiles are by nearest rank: p95 is the least sample that at least 95 % of the samples do not exceed. So p99 is the
largest of fewer than 100 samples, and p95 of fewer than 20. The median of an even number is the mean of the middle two.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """How long some work took, in samples of the same work.

    Attributes:
        stage: the work's name.
        unit: what the things are that it handles.
        count: of the things in a sample.
        samples_s: seconds of each sample; by CUDA events where a GPU worked, else by the clock on the wall.
        wall_samples_s: by the clock on the wall, read when the GPU has finished; None where none worked.
        device: torch's name of where it ran; None where that says nothing.
        batch_size: things that go through a network at once.
        precision: of a network's arithmetic.
        host_gib: most resident memory of this process and its children during the samples.
        host_growth_gib: how much more that is than before the first sample.
        gpu_gib: most memory of tensors on the GPU; None without.
        gpu_reserved_gib: most that torch's allocator had from the driver; None without.
        energy_j: joules a sample, on average; None where no counter can be read, or too little was taken to be told.
        energy_of: the devices that these are of, with whatever else ran on them.
        baseline: the same work done otherwise, between these samples; None where there is nothing sensible.
        note: what else one should know, in words.

    Raises:
        ValueError: no sample, nothing handled, or a time that is none.
    """

    stage: str
    unit: str
    count: int
    samples_s: tuple[float, ...]
    wall_samples_s: tuple[float, ...] | None = None
    device: str | None = None
    batch_size: int | None = None
    precision: str | None = None
    host_gib: float | None = None
    host_growth_gib: float | None = None
    gpu_gib: float | None = None
    gpu_reserved_gib: float | None = None
    energy_j: float | None = None
    energy_of: tuple[str, ...] = ()
    baseline: Measurement | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if not self.samples_s or self.count < 1:
            raise ValueError(f"{self.stage}: expected a sample of at least one thing")
        if not all(math.isfinite(one) and one >= 0 for one in self.samples_s):
            raise ValueError(f"{self.stage}: expected seconds >= 0")

    @property
    def median_s(self) -> float:
        """Of a sample."""
        return statistics.median(self.samples_s)

    @property
    def p95_s(self) -> float:
        """Of a sample; the largest of fewer than 20."""
        return percentile(self.samples_s, 95)

    @property
    def p99_s(self) -> float:
        """Of a sample; the largest of fewer than 100."""
        return percentile(self.samples_s, 99)

    @property
    def per_second(self) -> float | None:
        """Things a second, by the median; None where the clock saw no time go by."""
        return self.count / self.median_s if self.median_s > 0 else None

    @property
    def ratio(self) -> float | None:
        """How many times as long the baseline takes for a thing, by the medians; None without one."""
        if self.baseline is None or self.median_s == 0:
            return None
        return (self.baseline.median_s / self.baseline.count) / (self.median_s / self.count)

    def as_json(self) -> dict[str, Any]:
        """JSON values: the attributes, and what follows from the samples."""
        values: dict[str, Any] = {
            "stage": self.stage,
            "unit": self.unit,
            "count": self.count,
            "num_samples": len(self.samples_s),
            "median_s": self.median_s,
            "p95_s": self.p95_s,
            "p99_s": self.p99_s,
            "per_second": self.per_second,
            "clock": "wall" if self.wall_samples_s is None else "CUDA events",
            "wall_median_s": statistics.median(self.wall_samples_s or self.samples_s),
            "peak_host_gib": self.host_gib,
            "host_growth_gib": self.host_growth_gib,
            "peak_gpu_gib": self.gpu_gib,
            "peak_gpu_reserved_gib": self.gpu_reserved_gib,
            "energy_j": self.energy_j,
            "energy_of": list(self.energy_of),
            "device": self.device,
            "batch_size": self.batch_size,
            "precision": self.precision,
            "note": self.note,
            "samples_s": list(self.samples_s),
            "wall_samples_s": None if self.wall_samples_s is None else list(self.wall_samples_s),
            "baseline": None,
        }
        if self.baseline is not None:
            values["baseline"] = {**self.baseline.as_json(), "ratio": self.ratio}
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Measurement:
        """What `as_json` told.

        Raises:
            ValueError: something is missing or of another kind; the message says what.
        """
        renamed = {"host_gib": "peak_host_gib", "gpu_gib": "peak_gpu_gib", "gpu_reserved_gib": "peak_gpu_reserved_gib"}
        try:
            told = {one.name: values[renamed.get(one.name, one.name)] for one in fields(cls)}
            for name in ("samples_s", "energy_of"):
                told[name] = tuple(told[name])
            if told["wall_samples_s"] is not None:
                told["wall_samples_s"] = tuple(told["wall_samples_s"])
            if told["baseline"] is not None:
                told["baseline"] = cls.from_json(told["baseline"])
            return cls(**told)
        except (KeyError, TypeError) as error:
            raise ValueError(f"no measurement: {type(error).__name__}: {error}") from error


def percentile(samples: Sequence[float], percent: float) -> float:
    """The least of some samples that at least so many percent of them do not exceed.

    Args:
        samples: at least one.
        percent: above 0, at most 100.
    """
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered) - 1e-9) - 1)]
