"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.types import RANKS, BoxAP

if TYPE_CHECKING:
    from harness.scoring.ladder import Rung


def ladder_table(rungs: Sequence[Rung]) -> Any:
    """The rungs of an oracle ladder, and what is left for the ranking."""
    table = plain_table(["perfect from here on", *(f"Acc@{k}" for k in RANKS), "gain at 10"])
    for number, rung in enumerate(rungs):
        gained = f"{rung.gained[10]:+.4f}" if number else ""
        table.add_row(f"{'+ ' if number else ''}{rung.name}", *figures(rung.acc, 4), gained)
    left = 1 - rungs[-1].acc[10]
    table.add_row("+ ranking", *figures(dict.fromkeys(RANKS, 1.0), 4), f"{left:+.4f}")
    return table


def ap_table(found: Mapping[str, BoxAP], what: str) -> Any:
    """Box AP of detectors and fusions on a split, also by the annotated garments' size (COCO's limits)."""
    table = plain_table([f"boxes of {what}", "AP", "AP50", "AP75", "small", "medium", "large"])
    for name, ap in found.items():
        values = (ap.ap, ap.ap50, ap.ap75, ap.ap_small, ap.ap_medium, ap.ap_large)
        table.add_row(name, *("" if value is None else f"{value:.3f}" for value in values))
    return table


def figures(acc: Mapping[int, float], digits: int) -> list[str]:
    """Acc@k of every k with so many digits."""
    return [f"{acc[k]:.{digits}f}" for k in RANKS]


def plain_table(headings: Sequence[str], first_width: int = 0) -> Any:
    """A table without a frame: texts in the first column, numbers in the others."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), collapse_padding=True, header_style="bold"
    )
    for number, heading in enumerate(headings):
        table.add_column(
            heading, justify="right" if number else "left", no_wrap=True, min_width=0 if number else first_width
        )
    return table
