"""How the seconds of a pass divide that several networks make over the same photos."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

_Item = TypeVar("_Item")


class PassClock:
    """Adds up what each network takes, and how long all of them wait for photos to be decoded, fitted and cut.

    Attributes:
        network_seconds: by the networks' names; what they give back is on the host by then, so a GPU has finished.
        waiting_seconds: together.
    """

    def __init__(self) -> None:
        self.network_seconds: dict[str, float] = {}
        self.waiting_seconds = 0.0

    def waited_for(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """The same items; the time until each comes counts as waiting."""
        waiting = iter(items)
        while True:
            began = time.perf_counter()
            try:
                item = next(waiting)
            except StopIteration:
                return
            finally:
                self.waiting_seconds += time.perf_counter() - began
            yield item

    @contextmanager
    def network(self, name: str) -> Iterator[None]:
        """Count the block for a network."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.network_seconds[name] = self.network_seconds.get(name, 0.0) + time.perf_counter() - began


def shares_of(seconds: float, told: Mapping[str, tuple[float, float] | None]) -> dict[str, tuple[float, float | None]]:
    """Divide the seconds of a pass among its results: to each its own network, and of all else equal parts.

    Args:
        seconds: of the pass, by the clock on the wall.
        told: result -> seconds of its network, and its share of the waiting; None where that is not known. They may
            be of several processes, and of earlier runs: where they are more than ``seconds`` they count in proportion.

    Returns:
        Result -> its seconds, and those of them that were waiting; equal parts and None where anything is not known.
        The parts add up to ``seconds``.
    """
    known = [one for one in told.values() if one is not None]
    if len(known) < len(told):
        return dict.fromkeys(told, (seconds / len(told), None))
    busy = sum(network + waiting for network, waiting in known)
    scale = min(1.0, seconds / busy) if busy > 0 else 0.0
    rest = (seconds - scale * busy) / max(1, len(told))
    return {
        name: (scale * (network + waiting) + rest, scale * waiting)
        for name, (network, waiting) in zip(told, known, strict=True)
    }
