"""How much of a training's time goes by without the device having anything to do but wait for data."""

from __future__ import annotations

import time
from typing import Any


class Waiting:
    """Measures the gaps between the end of a batch's work and the coming of the next batch.

    A GPU works on after it was told what to do: there the gaps are taken on its own clock, by events between the steps.

    Attributes:
        total_s: of all gaps that were taken, seconds.
    """

    def __init__(self) -> None:
        import torch

        self.total_s = 0.0
        self._on_gpu = torch.cuda.is_available()
        self._ended: Any = None
        self._gaps: list[tuple[Any, Any]] = []

    def ends(self) -> None:
        """All work of a batch is done, or has been given to the device."""
        self._ended = self._now()

    def begins(self) -> None:
        """The next batch is there."""
        if self._ended is not None:
            self._gaps.append((self._ended, self._now()))
            self._ended = None

    def take(self) -> float:
        """Seconds of the gaps since the last call."""
        waited = 0.0
        if self._on_gpu and self._gaps:
            self._gaps[-1][1].synchronize()
        for start, end in self._gaps:
            waited += start.elapsed_time(end) / 1000 if self._on_gpu else end - start
        self._gaps.clear()
        self.total_s += waited
        return waited

    def _now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event
