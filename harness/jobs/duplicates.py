"""Look for copies among everything that a team trains on, and of the validation split in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.data.deepfashion2 import read_split
from harness.data.duplicates import DuplicateReport, deduplicate
from harness.data.garments import Garments, garments_of
from harness.data.sources import read_source
from harness.progress import Reporter, silent
from harness.types import SplitName
from harness.workers import available_cores

CACHE = "duplicates"
"""Folder below the working folder that keeps what was seen of every crop."""


def find_duplicates(
    data: Path,
    sources: Mapping[str, Path],
    work: Path,
    *,
    leave_out_guarded: bool = False,
    workers: int | None = None,
    report: Reporter = silent,
) -> DuplicateReport:
    """De-duplicate DeepFashion2's training split and further sources, with its validation split as the guard.

    Args:
        data: a DeepFashion2 folder; its validation split may be missing.
        sources: name -> folder or CSV file, as for `harness.data.sources.read_source`; in this order.
        work: the working folder; what was seen of the photos is kept in it.
        leave_out_guarded: count the copies of validation crops among what is taken out.
        workers: processes that look at photos; None for one a core.
        report: is told of progress.

    Raises:
        InputError: a source cannot be read.
    """
    parts = [_split(data, "train"), *(read_source(name, path) for name, path in sources.items())]
    guard = [_split(data, "validation")] if (data / "validation").is_dir() else []
    _, found = deduplicate(
        parts,
        work / CACHE,
        guard=guard,
        leave_out_guarded=leave_out_guarded,
        workers=available_cores() if workers is None else workers,
        report=report,
    )
    return found


def _split(data: Path, name: SplitName) -> Garments:
    split = read_split(data, name)
    return garments_of(split, split.photos.image_ids)
