"""Progress bars with rate and time left, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness.types import Progress

if TYPE_CHECKING:
    from rich.progress import Task

Reporter = Callable[[str], Progress]
"""Called with a stage's name when the stage begins; returns what the stage reports its progress to."""


def silent(_stage: str) -> Progress:
    """A reporter that shows nothing."""
    return lambda _done, _total: None


@contextmanager
def bars() -> Iterator[Reporter]:
    """Show a bar for every stage that reports while the block runs; the finished ones stay on the screen."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:6.1f}/s" if speed else "", style="cyan")

    class TimeLeftColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            if task.finished or task.time_remaining is None:
                return Text("")
            minutes, seconds = divmod(int(task.time_remaining), 60)
            return Text(f"{minutes}:{seconds:02d} left", style="yellow")

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeLeftColumn(),
    )
    shown = Bars(*columns, console=console, refresh_per_second=4)

    def report(stage: str) -> Progress:
        shown.start()  # not before there is a bar: an empty display would print an empty line
        task = shown.add_task(stage, total=None)

        def advance(done: int, total: int) -> None:
            shown.update(task, completed=done, total=total)

        return advance

    try:
        yield report
    finally:
        if shown.tasks:
            shown.stop()
