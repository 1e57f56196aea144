"""What `run.py bench` is asked, and what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.timing import Measurement, measure
from harness.types import InputError

Precision = Literal["32", "16", "bf16"]

STAGES = {
    "load": "models from their files onto the device",
    "decode": "photos from their files",
    "detect": "each detector: fitting, network, post-processing, by batches",
    "fuse": "the detectors' boxes of a photo",
    "crop": "boxes cut out of decoded photos, for each input size of the retrievers",
    "embed": "each retriever's network, by batches",
    "search": "the 20 best of the gallery by all retrievers, without steps",
    "steps": "each post-processing step of the ensemble",
    "write": "the challenge JSON",
    "score": "the challenge JSON from its file, official protocol",
    "end-to-end": "photos to the challenge JSON and its score: store empty, then store full",
}
"""What can be timed, in the order of the flow."""


@dataclass(frozen=True)
class BenchSettings:
    """What is timed, and how.

    Attributes:
        num_photos: of the sample, half of them consumer photos, drawn by seed 0.
        num_queries: that search and steps are timed with, at most.
        repeats: samples of each stage; None for as many as take ``min_seconds``, at least 5.
        min_seconds: see ``repeats``.
        max_seconds: after which a stage gets no more samples.
        batch_size: photos that detectors look at at once; None takes the recipes'.
        precision: of the networks; None as they are kept in the working folder.
        device: torch's name of one; None for the GPU where there is one.
        num_devices: of the end-to-end runs: GPUs, a process each; without a GPU processes of one thread.
        stages: names of `STAGES`; empty for all.
        baselines: whether each stage is timed beside its baseline.

    Raises:
        InputError: an unknown stage, too few photos, or devices that cannot be.
    """

    num_photos: int = 64
    num_queries: int = 256
    repeats: int | None = None
    min_seconds: float = 1.0
    max_seconds: float = 30.0
    batch_size: int | None = None
    precision: Precision | None = None
    device: str | None = None
    num_devices: int = 1
    stages: tuple[str, ...] = ()
    baselines: bool = True

    def __post_init__(self) -> None:
        unknown = [name for name in self.stages if name not in STAGES]
        if unknown:
            raise InputError(f"--stage {unknown[0]}: there is none of this name; there are {', '.join(STAGES)}")
        if self.num_photos < 2:
            raise InputError(f"--photos {self.num_photos}: a consumer and a shop photo are needed, so 2 at least")
        if self.device is not None and self.num_devices > 1:
            raise InputError(f"--device {self.device}: names one device; leave it out, or --devices")

    def times(self, stage: str) -> bool:
        """Whether a stage is asked for."""
        return not self.stages or stage in self.stages


@dataclass(frozen=True)
class Bench:
    """Takes the measurements of a run, all in the same way.

    Attributes:
        settings: what was asked.
        device: torch's name of where networks run.
        rendered: whether the photos are RENDERED ones.
    """

    settings: BenchSettings
    device: str
    rendered: bool

    def time(self, stage: str, unit: str, count: int, work: Any, **more: Any) -> Measurement:
        """A measurement by `harness.timing.measure` with what the settings say."""
        told = self.settings
        if not told.baselines:
            more["baseline"] = None
        how: dict[str, Any] = {"repeats": told.repeats, "min_seconds": told.min_seconds}
        how |= {"max_seconds": told.max_seconds}
        return measure(work, stage=stage, unit=unit, count=count, **{**how, **more})


@dataclass(frozen=True)
class BenchResult:
    """What was measured.

    Attributes:
        spec: canonical form of the ensemble.
        split: the split's name.
        fingerprint: of its data.
        rendered: whether it is RENDERED.
        num_photos: of the sample.
        device: torch's name of where networks ran.
        stages: in the order of the flow.
        end_to_end: what `harness.jobs.bench_end_to_end` told; None where it was not asked for.
        sizes: what search and steps were timed with.
        hardware: fingerprint of the machine.
        code_version: of the harness.
        row_id: of the leaderboard row that carries the result; None for none.
        load_per_core: processes that wanted each core of the machine, on average over the minute before; None where
            the system does not tell.
        num_threads: that networks used on the CPU.
    """

    spec: str
    split: str
    fingerprint: str
    rendered: bool
    num_photos: int
    device: str
    stages: Sequence[Measurement]
    hardware: Mapping[str, Any]
    code_version: str
    end_to_end: Mapping[str, Any] | None = None
    sizes: Mapping[str, Any] = field(default_factory=dict)
    row_id: str | None = None
    load_per_core: float | None = None
    num_threads: int | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON values; what `leaderboard.timing_runs.TimingRun` holds as its result, and ``row``."""
        return {
            "spec": self.spec,
            "split": self.split,
            "fingerprint": self.fingerprint,
            "rendered": self.rendered,
            "num_photos": self.num_photos,
            "device": self.device,
            "sizes": dict(self.sizes),
            "stages": [stage.as_json() for stage in self.stages],
            "end_to_end": None if self.end_to_end is None else dict(self.end_to_end),
            "hardware": dict(self.hardware),
            "code_version": self.code_version,
            "row": self.row_id,
            "load_per_core": self.load_per_core,
            "num_threads": self.num_threads,
        }


def every(count: int, wanted: int) -> list[int]:
    """Of so many rows at most the wanted number, spread evenly; ascending."""
    if count <= wanted:
        return list(range(count))
    return [index * count // wanted for index in range(wanted)]
