"""Time a piece of work again and again: seconds, memory and energy of the same samples, beside a baseline's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.timing.energy import EnergyCounter, energy_counters
from harness.timing.measurement import Measurement
from harness.timing.memory import MemoryWatch

LEAST_SAMPLES, MOST_SAMPLES = 5, 200
LEAST_S, MOST_S = 1.0, 30.0
"""Where the number of samples is not given: seconds that they take together, at least and at most."""

LEAST_ENERGY_S = 0.5
"""Counters of energy move every 1 to 100 ms: what took less, all samples together, cannot be told."""

_LOOK_S = 0.01

Work = Callable[[], object]


@dataclass(frozen=True)
class Baseline:
    """What a piece of work is compared with, in the same run.

    Attributes:
        name: what does it.
        work: the same, done by that.
        count: things that it handles, where those are not as many as ours.
        before: called before each of its samples, untimed.
    """

    name: str
    work: Work
    count: int | None = None
    before: Work | None = None


def measure(
    work: Work,
    *,
    stage: str,
    unit: str,
    count: int,
    warmup: int = 1,
    repeats: int | None = None,
    min_seconds: float = LEAST_S,
    max_seconds: float = MOST_S,
    device: str | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    baseline: Baseline | None = None,
    before: Work | None = None,
    note: str = "",
    counters: Sequence[EnergyCounter] | None = None,
) -> Measurement:
    """Time some work.

    A sample of the work and one of the baseline take turns, the order changing every time, so that what else the
    machine does meets both. On a GPU every sample begins and ends with all of it finished.

    Args:
        work: does the same whenever it is called.
        stage: its name.
        unit: what the things are that it handles.
        count: of the things, at least 1.
        warmup: calls before the first sample, of the baseline too: compiling, allocating and tuning is no part of it.
        repeats: samples; None for at least 5, as many as take ``min_seconds``, and no more once they have taken
            ``max_seconds`` together with those of the baseline; then even one will do.
        min_seconds, max_seconds: see ``repeats``.
        device: torch's name of where it runs; None for what has nothing to do with it.
        batch_size, precision: for the record.
        baseline: the same done otherwise.
        before: called before each sample, untimed.
        note: for the record.
        counters: of energy; None for those of the device and of the processors.

    Raises:
        ValueError: there is nothing to do, no sample, or no such GPU.
    """
    if count < 1 or warmup < 0 or (repeats is not None and repeats < 1):
        raise ValueError(
            f"{stage}: expected count and repeats of at least 1 and warmup of at least 0, "
            f"got {count}, {repeats} and {warmup}"
        )
    on_gpu = device is not None and device.startswith("cuda")
    meters = list(energy_counters(device)) if counters is None else list(counters)
    samplers = [_Sampler(work, device if on_gpu else None, meters, before or _nothing)]
    if baseline is not None:
        samplers.append(_Sampler(baseline.work, device if on_gpu else None, meters, baseline.before or _nothing))
    for sampler in samplers:
        for _ in range(warmup):
            sampler.warm()
    own = samplers[0]
    began = time.perf_counter()
    while not _enough(own.wall_s, time.perf_counter() - began, repeats, min_seconds, max_seconds):
        for sampler in samplers if len(own.wall_s) % 2 == 0 else samplers[::-1]:
            sampler.sample()
    for_the_record: dict[str, Any] = {"unit": unit, "device": device}
    beside = None
    if baseline is not None:
        beside = samplers[1].told(stage=baseline.name, count=baseline.count or count, **for_the_record)
    return own.told(
        stage=stage, count=count, batch_size=batch_size, precision=precision, note=note, baseline=beside,
        **for_the_record,
    )  # fmt: skip


def _enough(taken_s: Sequence[float], spent_s: float, repeats: int | None, min_s: float, max_s: float) -> bool:
    """Whether there are samples enough, after so many seconds with the baseline's."""
    if repeats is not None or not taken_s:
        return len(taken_s) == repeats
    if spent_s >= max_s or len(taken_s) >= MOST_SAMPLES:
        return True
    return len(taken_s) >= LEAST_SAMPLES and sum(taken_s) >= min_s


def _nothing() -> None:
    return None


@dataclass
class _Sampler:
    """Collects samples of one piece of work; ``gpu`` is torch's name of one that works, or None."""

    work: Work
    gpu: str | None
    meters: Sequence[EnergyCounter]
    before: Work
    wall_s: list[float] = field(default_factory=list)
    events_s: list[float] = field(default_factory=list)
    joules: dict[str, float] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    gpu_bytes: int = 0
    reserved_bytes: int = 0
    host_before_gib: float | None = None
    host_gib: float = 0.0

    def warm(self) -> None:
        self.before()
        self.work()
        self._finish()

    def sample(self) -> None:
        self.before()
        self._finish()
        with MemoryWatch(_LOOK_S) as watch:
            counted = [meter.read() for meter in self.meters]
            if self.gpu is None:
                began = time.perf_counter()
                self.work()
                self.wall_s.append(time.perf_counter() - began)
            else:
                self._sample_gpu(self.gpu)
            for meter, first in zip(self.meters, counted, strict=True):
                last = meter.read()
                if first is None or last is None:
                    self.lost.add(meter.name)
                else:
                    self.joules[meter.name] = self.joules.get(meter.name, 0.0) + meter.joules(first, last)
            watch.look()
        if self.host_before_gib is None:
            self.host_before_gib = watch.before_gib
        self.host_gib = max(self.host_gib, watch.peak_gib)

    def _sample_gpu(self, gpu: str) -> None:
        import torch

        with torch.cuda.device(gpu):
            torch.cuda.reset_peak_memory_stats()
            events: Any = torch.cuda.Event
            first, last = events(enable_timing=True), events(enable_timing=True)
            began = time.perf_counter()
            first.record()
            self.work()
            last.record()
            torch.cuda.synchronize()
            self.wall_s.append(time.perf_counter() - began)
            self.events_s.append(first.elapsed_time(last) / 1e3)
            self.gpu_bytes = max(self.gpu_bytes, torch.cuda.max_memory_allocated())
            self.reserved_bytes = max(self.reserved_bytes, torch.cuda.max_memory_reserved())

    def _finish(self) -> None:
        if self.gpu is not None:
            import torch

            torch.cuda.synchronize(self.gpu)

    def told(self, **for_the_record: Any) -> Measurement:
        known = {name: taken for name, taken in self.joules.items() if name not in self.lost}
        told_apart = bool(known) and sum(self.wall_s) >= LEAST_ENERGY_S and sum(known.values()) > 0
        before = self.host_before_gib or 0.0
        return Measurement(
            samples_s=tuple(self.events_s or self.wall_s),
            wall_samples_s=tuple(self.wall_s) if self.events_s else None,
            host_gib=self.host_gib,
            host_growth_gib=max(0.0, self.host_gib - before),
            gpu_gib=None if self.gpu is None else self.gpu_bytes / 2**30,
            gpu_reserved_gib=None if self.gpu is None else self.reserved_bytes / 2**30,
            energy_j=sum(known.values()) / len(self.wall_s) if told_apart else None,
            energy_of=tuple(known) if told_apart else (),
            **for_the_record,
        )
