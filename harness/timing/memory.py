"""The resident memory of this process and its children, looked at from a thread."""

from __future__ import annotations

import threading
import time
from typing import Any

_LIST_CHILDREN_S = 1.0  # to list them reads the table of all processes: milliseconds


class MemoryWatch:
    """Samples the resident memory of this process and all of its children, added up, while a block runs.

    Shared pages count in every process that maps them, so the sum is an upper bound. What is taken and given back
    between two looks is missed, and a child of less than a second may be.

    Args:
        every_s: seconds between two looks.

    Attributes:
        before_gib: what was resident when the block began.
        peak_gib: the most that was seen.
    """

    def __init__(self, every_s: float = 0.5) -> None:
        self.every_s = every_s
        self.before_gib = 0.0
        self.peak_gib = 0.0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._own: Any = None
        self._children: list[Any] = []
        self._listed = -_LIST_CHILDREN_S

    def __enter__(self) -> MemoryWatch:
        import psutil

        self._own = psutil.Process()
        self.before_gib = self.peak_gib = self._resident_gib()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def growth_gib(self) -> float:
        """How much more the peak is than what was resident before; 0 where it is less."""
        return max(0.0, self.peak_gib - self.before_gib)

    def look(self) -> None:
        """Look now, too."""
        self.peak_gib = max(self.peak_gib, self._resident_gib())

    def _sample(self) -> None:
        while not self._stop.wait(self.every_s):
            self.look()

    def _resident_gib(self) -> float:
        import psutil

        with self._lock:
            if time.perf_counter() - self._listed >= _LIST_CHILDREN_S:
                self._children = self._own.children(recursive=True)
                self._listed = time.perf_counter()
            total = 0
            for process in (self._own, *self._children):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue  # it ended since they were listed
            return float(total / 2**30)
