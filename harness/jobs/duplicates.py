"""Look for copies among everything that a team trains on, and of the validation split in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.data.deepfashion2 import read_split
from harness.data.duplicates import DuplicateReport, deduplicate
from harness.data.garments import Garments, garments_of
from harness.data.sources import read_source
from harness.progress import Reporter, silent
from harness.training.cards import TrainedOn
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
    guard = guarded(data, parts)
    return without_copies(parts, guard, work, leave_out_guarded=leave_out_guarded, workers=workers, report=report)[1]


def without_copies(
    parts: Sequence[Garments],
    guard: Sequence[Garments],
    work: Path,
    *,
    leave_out_guarded: bool = False,
    workers: int | None = None,
    report: Reporter = silent,
) -> tuple[list[Garments], DuplicateReport]:
    """De-duplicate what is to be trained on.

    Args:
        parts: the sources; what an earlier one has, a later one loses.
        guard: what must not be trained on.
        work: the working folder; what was seen of the photos is kept in it.
        leave_out_guarded: take copies of guarded crops out as well.
        workers: processes that look at photos; None for one a core.
        report: is told of progress.
    """
    return deduplicate(
        parts,
        work / CACHE,
        guard=guard,
        leave_out_guarded=leave_out_guarded,
        workers=available_cores() if workers is None else workers,
        report=report,
    )


def copied_from(guard: Sequence[Garments], found: DuplicateReport) -> tuple[TrainedOn, ...]:
    """The guarded splits, if copies of their crops are left among what is trained on."""
    if all(one.num_guarded == one.num_left_out for one in found.sources):
        return ()
    return tuple(part.record for part in guard)


def guarded(data: Path, parts: Sequence[Garments]) -> list[Garments]:
    """The validation split of a DeepFashion2 folder, where it has one that is not trained on itself."""
    trained_on = any(part.source == "DeepFashion2/validation" for part in parts)
    return [] if trained_on or not (data / "validation").is_dir() else [_split(data, "validation")]


def in_words(found: DuplicateReport) -> list[str]:
    """What was taken out of each source, and what was not although it is guarded, a line each."""
    lines = []
    for one in found.sources:
        gone = {
            "unreadable": one.num_unreadable,
            "of the same item": one.num_same_item,
            "of another item": one.num_other_item,
            "of an earlier source": one.num_across,
            "of validation": one.num_left_out,
        }
        told = ", ".join(f"{count:,} {what}" for what, count in gone.items() if count)
        if told:
            num_gone = one.num_garments - one.num_kept
            lines.append(f"{one.source}: {num_gone:,} crops of {one.num_garments:,} left out as copies: {told}")
        if one.num_guarded > one.num_left_out:
            lines.append(
                f"{one.source}: {one.num_guarded - one.num_left_out:,} crops are copies of validation crops and are "
                f"trained on all the same, such as {one.examples['guarded']}; --leave-out-validation leaves them out"
            )
    return lines


def _split(data: Path, name: SplitName) -> Garments:
    split = read_split(data, name)
    return garments_of(split, split.photos.image_ids)
