"""What an ensemble costs, and on which machine: seconds of different machines are never compared.

Seconds are those that making everything took, whenever that was (cold): a row that found its boxes in the store costs
as much as the row that made them. Training is no part of it. A row names the machine that made the row; what it found
in a store that another machine filled took that machine's seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from leaderboard.rows import Row
    from leaderboard.standings import Entry

CostName = Literal["total", "per 1,000 queries"]
COSTS: tuple[CostName, ...] = ("total", "per 1,000 queries")
"""``total``: seconds to make everything, cold; ``per 1,000 queries``: the same for as many queries, to be held against
data of another size. Boxes and embeddings of shop photos are in it, so it is not what one query more would cost."""

UNKNOWN_HARDWARE = "unknown hardware"

_NOISE = re.compile(r"\((?:R|TM|C)\)|®|™|\b(?:CPU|Processor)\b|@\s*[\d.]+\s*[GM]Hz|\b\d+-Core\b", re.IGNORECASE)


PARTS = ("decode", "detect", "fuse", "embed", "search", "steps", "write", "score")
"""What the stages of a row are parts of, in the order of the flow: an ensemble of 17 models has 25 stages."""


def part_of(stage: str) -> str:
    """The part of `PARTS` that a stage belongs to; a name that begins with none of them is a post-processing step."""
    word = stage.split(" ", 1)[0]
    return word if word in PARTS else "steps"


def seconds_of_parts(row: Row) -> dict[str, float]:
    """Part -> seconds of its stages together, in the order of the flow; parts that no stage is of are left out."""
    seconds: dict[str, float] = {}
    for stage in row.stages:
        part = part_of(stage.stage)
        seconds[part] = seconds.get(part, 0.0) + stage.seconds
    return {part: seconds[part] for part in PARTS if part in seconds}


def cost(row: Row, name: CostName = "total") -> float | None:
    """Seconds of a row; None where no stage was timed.

    Args:
        row: a row.
        name: which cost, see `COSTS`.

    Raises:
        ValueError: another name; lists the names.
    """
    if name not in COSTS:
        raise ValueError(f"cost: expected one of {', '.join(COSTS)}, got {name!r}")
    seconds = row.total_seconds
    if seconds is None or name == "total":
        return seconds
    return 1000 * seconds / row.score.num_queries


def hardware_label(hardware: Mapping[str, Any]) -> str:
    """A machine in a few words: ``NVIDIA H100 80GB HBM3, 16 cores``, ``2 × NVIDIA L4, 8 cores``, ``AMD EPYC, 2 cores``.

    Args:
        hardware: `harness.provenance.hardware`, or any JSON values; what is missing is left out.
    """
    gpus = hardware.get("gpus") or hardware.get("gpu") or []
    names = [str(name) for name in ([gpus] if isinstance(gpus, str) else gpus if isinstance(gpus, list) else [])]
    parts = [name if names.count(name) == 1 else f"{names.count(name)} × {name}" for name in dict.fromkeys(names)]
    if not parts and hardware.get("cpu"):
        parts = [" ".join(_NOISE.sub(" ", str(hardware["cpu"])).split()) or str(hardware["cpu"])]
    cores = hardware.get("cores")
    if cores:
        parts.append(f"{cores} {'core' if cores == 1 else 'cores'}")
    return ", ".join(parts) or UNKNOWN_HARDWARE


def pareto(entries: Sequence[Entry], name: CostName = "total") -> dict[str, tuple[int, ...]]:
    """The entries that no other one of the same machine beats: none is at once as cheap and better, or cheaper and as
    good.

    Args:
        entries: of one section.
        name: which cost, see `COSTS`.

    Returns:
        Machine -> places in ``entries``, the cheapest first; equals in both stand there together. Entries that were
        not timed are on no front; a machine on which nothing was timed is left out.
    """
    machines: dict[str, list[tuple[float, float, int]]] = {}
    for place, entry in enumerate(entries):
        seconds = cost(entry.row, name)
        if seconds is not None:
            machines.setdefault(entry.hardware_label, []).append((seconds, -entry.row.score.acc[10], place))
    fronts: dict[str, tuple[int, ...]] = {}
    for machine, found in machines.items():
        front: list[tuple[float, float, int]] = []
        for seconds, lost, place in sorted(found):
            if not front or lost < front[-1][1] or (seconds, lost) == front[-1][:2]:
                front.append((seconds, lost, place))
        fronts[machine] = tuple(place for _, _, place in front)
    return fronts
