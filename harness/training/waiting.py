"""How much of a training's time goes by without the device having anything to do but wait for data."""

from __future__ import annotations

import time
from typing import Any


class Waiting:
    """Measures the work on batches, and the gaps until the next batch is there.

    A GPU works on after it was told what to do: there both are taken on its own clock, by events between the steps.
    What a training does besides (a look at the model, a checkpoint) is neither; nor is the wait for the first batch.

    Attributes:
        waited_s: of all gaps that were taken, seconds.
        worked_s: of all work that was taken.
    """

    def __init__(self) -> None:
        import torch

        self.waited_s = self.worked_s = 0.0
        self._on_gpu = torch.cuda.is_available()
        self._began: Any = None
        self._resumed: Any = None
        self._gaps: list[tuple[Any, Any]] = []
        self._works: list[tuple[Any, Any]] = []

    def begins(self) -> None:
        """A batch is there."""
        self._began = self._now()
        if self._resumed is not None:
            self._gaps.append((self._resumed, self._began))

    def ends(self) -> None:
        """All work on it is done, or has been given to the device."""
        self._works.append((self._began, self._now()))

    def resumes(self) -> None:
        """All else is done, and the next batch is asked for."""
        self._resumed = self._now()

    def take(self) -> float:
        """The share of waiting since the last call, in [0, 1]."""
        waited, worked = self._seconds(self._gaps), self._seconds(self._works)
        self.waited_s += waited
        self.worked_s += worked
        return waited / max(waited + worked, 1e-9)

    @property
    def share(self) -> float:
        """The share of waiting in all that was taken, in [0, 1]."""
        return self.waited_s / max(self.waited_s + self.worked_s, 1e-9)

    def _seconds(self, spans: list[tuple[Any, Any]]) -> float:
        if self._on_gpu and spans:
            spans[-1][1].synchronize()
        total = 0.0
        for start, end in spans:
            total += start.elapsed_time(end) / 1000 if self._on_gpu else end - start
        spans.clear()
        return total

    def _now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event
