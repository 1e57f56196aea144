"""How long stages take, and how much memory.

Wall-clock seconds around a stage; when the stage ran on a GPU the clock is read after the device
has finished, since its work is asynchronous.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


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
    """

    stage: str
    seconds: float
    count: int | None = None
    unit: str = ""
    from_store: bool = False
    cost_seconds: float | None = None

    def note(self, costs: Sequence[float], made: bool, count: int) -> None:
        """Write down what the stage handled.

        Args:
            costs: seconds that making each of its results took, whenever that was.
            made: whether one was made now.
            count: things it handled.
        """
        self.count, self.from_store, self.cost_seconds = count, not made, sum(costs)

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


def _wait_for_gpu() -> None:
    torch = sys.modules.get("torch")  # a run that never imported torch has nothing on a GPU
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


class MemoryWatch:
    """Samples the resident memory of this process and all of its children, added up, while a block runs.

    Shared pages count in every process that maps them, so the sum is an upper bound.
    """

    def __init__(self, every_s: float = 0.5) -> None:
        self.every_s = every_s
        self.peak_gib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        import psutil

        own = psutil.Process()
        while True:
            total = 0
            for process in (own, *own.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue  # it ended between the listing and the reading
            self.peak_gib = max(self.peak_gib, total / 2**30)
            if self._stop.wait(self.every_s):
                return
