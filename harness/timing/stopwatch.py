"""How long the stages of a run take.

Wall-clock seconds around a stage; when the stage ran on a GPU the clock is read after the device
has finished, since its work is asynchronous.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol


class Made(Protocol):
    """What a stopwatch wants to know of a stage's result, such as `harness.artifacts.Artifact` tells."""

    @property
    def seconds(self) -> float:
        """That making it took."""

    @property
    def waiting_seconds(self) -> float | None:
        """Those of them that a network waited for photos; None where that is not known."""

    @property
    def made_on(self) -> str | None:
        """The machine that made it; None where that is not known."""


@dataclass
class StageTime:
    """One stage of one run.

    Attributes:
        stage: its name.
        seconds: that it took in this run.
        count: things it handled; None where nothing was counted.
        unit: what the things are.
        from_store: True if the store had the result.
        cost_seconds: that making the result took, whenever that was; None where the store does not know.
        made_on: the machine that these are of, or several; None where that is not known.
    """

    stage: str
    seconds: float
    count: int | None = None
    unit: str = ""
    from_store: bool = False
    cost_seconds: float | None = None
    made_on: str | None = None

    def note(self, results: Collection[Made], made: bool, count: int) -> None:
        """Write down what the stage handled.

        Args:
            results: of the stage, whenever they were made.
            made: whether one was made now.
            count: things it handled.
        """
        self.count, self.from_store, self.cost_seconds = count, not made, sum(one.seconds for one in results)
        machines = [one.made_on for one in results]
        known = [machine for machine in machines if machine is not None]
        self.made_on = "; ".join(dict.fromkeys(known)) if known and len(known) == len(machines) else None

    @property
    def per_second(self) -> float | None:
        """Things a second when the result was made; None where that is not known."""
        seconds = self.cost_seconds if self.cost_seconds is not None else self.seconds
        return self.count / seconds if self.count is not None and seconds > 0 else None


@dataclass
class Stopwatch:
    """Collects the times of the stages of one run, in their order."""

    stages: list[StageTime] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str, unit: str = "") -> Iterator[StageTime]:
        """Time a block as a stage; the block may set ``count`` and ``from_store``."""
        entry = StageTime(name, 0.0, unit=unit)
        _wait_for_gpu()
        began = time.perf_counter()
        try:
            yield entry
        finally:
            _wait_for_gpu()
            entry.seconds = time.perf_counter() - began
            self.stages.append(entry)


def stages_of_pass(
    results: Mapping[str, Made], made: Collection[str], seconds: float, waiting: str, unit: str, count: int
) -> list[StageTime]:
    """The stages of a pass that several networks made over the same photos: what they waited for, then each.

    Args:
        results: stage of a network -> its result.
        made: those that were made now.
        seconds: that the pass took in this run.
        waiting: the stage of decoding photos, and whatever else comes before the networks.
        unit, count: of the things that each network handled.

    Returns:
        Without the stage of waiting where it is not known of any result. Costs and seconds of this run add up to those
        of the pass; the latter are divided as the costs of what was made now are.
    """
    costs = {stage: one.seconds for stage, one in results.items() if stage in made} or dict.fromkeys(results, 1.0)
    whole = sum(costs.values()) or 1.0
    told, waited, waited_now = [], 0.0, 0.0
    for stage, one in results.items():
        entry = StageTime(stage, seconds * costs.get(stage, 0.0) / whole, unit=unit)
        entry.note([one], stage in made, count)
        if one.waiting_seconds:
            share = min(1.0, one.waiting_seconds / one.seconds) if one.seconds else 0.0
            waited += share * one.seconds
            entry.cost_seconds = (1 - share) * one.seconds
            if stage in made:
                waited_now += share * entry.seconds
                entry.seconds *= 1 - share
        told.append(entry)
    if waited > 0:
        first = StageTime(waiting, waited_now, unit=unit)
        first.note(results.values(), bool(made), count)
        first.cost_seconds = waited
        told.insert(0, first)
    return told


def _wait_for_gpu() -> None:
    torch = sys.modules.get("torch")  # a run that never imported torch has nothing on a GPU
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
