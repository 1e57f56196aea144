"""What people ask of the pipeline: a leaderboard row, a file to hand in."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.artifacts import named_when_full, write_whole
from harness.jobs.evidence import command_of, losses_of, settings_of
from harness.jobs.planning import plan
from harness.pipeline import Pipeline, Scored
from harness.spec import Ensemble, SpecError
from harness.types import InputError
from submissions.writer import DECIMALS, is_zip, rows_from_ranking, size_warning, write_submission

if TYPE_CHECKING:
    from harness.scoring.questions import Questions
    from leaderboard.rows import Row


def score(
    pipeline: Pipeline, spec: Ensemble | str, name: str | None = None, *, every_box: bool = False
) -> tuple[Scored, Row]:
    """Run what is missing of an ensemble, score it, and add the row to the working folder's leaderboard.

    Args:
        pipeline: over an annotated split.
        spec: the ensemble.
        name: what people call it; None for its canonical spec.
        every_box: search for every consumer box, not only for those that speak for a query.

    Raises:
        InputError: the split has no annotations, a model is missing, or memory or disk will not do; before anything
            runs.
    """
    from leaderboard.store import Board

    split = pipeline.split
    if split.items is None:
        raise InputError(
            f"{split.root / split.name}: has no annotations, so nothing can be scored; "
            "write the challenge JSON instead: run.py submit"
        )
    plan(pipeline, spec, every_box=every_box).require()
    pipeline.work.root.mkdir(parents=True, exist_ok=True)
    board = Board(pipeline.work.board)  # before anything runs for hours: can it take the row?
    try:
        scored = pipeline.run(spec, every_box=every_box)
        row, questions = leaderboard_row(pipeline, scored, name)
        board.add(row, questions)
    finally:
        board.close()
    return scored, row


def leaderboard_row(pipeline: Pipeline, scored: Scored, name: str | None = None) -> tuple[Row, Questions]:
    """The leaderboard row of a scored ensemble, with everything that made it, and what is known of its queries.

    Args:
        pipeline: that ran it.
        scored: what `Pipeline.run` returned, with a score.
        name: what people call the ensemble; None for its canonical spec.
    """
    from harness.provenance import code_version, hardware, machine
    from harness.scoring.hedging import class_hedging
    from leaderboard.rows import Row, StageRecord

    split = pipeline.split
    assert scored.score is not None
    known = [(card.saw(split.fingerprint), card.name) for card in scored.members]
    reasons = [f"{how} {split.name}: {name}" for how, name in known if how]
    source = scored.ensemble.boxes
    fitted = pipeline.work.fitted_fusion(source.name) if source.fused is not None else None
    if fitted is not None and fitted.get("fitted_on", {}).get("fingerprint") == split.fingerprint:
        reasons.append(f"fusion fitted on {split.name}")
    chosen_here = _was_chosen_on(pipeline, scored.ensemble)
    if chosen_here and set(_shares(scored.ensemble).values()) != {1.0}:
        reasons.append(f"weights fitted on {split.name}")
    stages = tuple(
        StageRecord(
            stage.stage,
            stage.seconds if stage.cost_seconds is None else stage.cost_seconds,
            run_seconds=stage.seconds,
            from_store=stage.from_store,
            count=stage.count,
            unit=stage.unit,
            made_on=None if stage.made_on == machine() else stage.made_on,
        )
        for stage in scored.stages
    )
    queries = scored.boxes.detections.take(split.photos.consumer_mask(scored.boxes.detections.image_ids))
    losses, questions = losses_of(pipeline, scored)
    row = Row(
        spec=str(scored.ensemble),
        name=name or str(scored.ensemble),
        split=split.name,
        fingerprint=split.fingerprint,
        rendered=split.rendered,
        artifacts=(
            *(f"{stage}:{address}" for stage, address in scored.artifacts.items()),
            *(f"{card.name} is {card.summary}" for card in scored.members if card.summary),
            *([f"models chosen on a half of {split.name}"] if chosen_here else []),
        ),
        code_version=code_version(),
        hardware=hardware(),
        stages=stages,
        score=scored.score,
        contamination="; ".join(reasons) or None,
        hedged=class_hedging(queries.image_ids, queries.boxes_xyxy, queries.category_ids).is_hedged,
        losses=losses,
        questions_id=questions.id,
        settings=settings_of(pipeline, scored),
        command=command_of(pipeline, scored),
    )
    return row, questions


def _was_chosen_on(pipeline: Pipeline, ensemble: Ensemble) -> bool:
    """Whether `run.py select` took these models and weights for these photos, whatever boxes and steps follow."""
    for spec, entries in pipeline.work.every_selection().items():
        if any(entry["fingerprint"] == pipeline.split.fingerprint for entry in entries):
            try:
                chosen = pipeline.parse(spec.partition(" + ")[0])
            except SpecError:
                continue  # a model of it is gone, so these are others
            if _shares(chosen) == _shares(ensemble):
                return True
    return False


def _shares(ensemble: Ensemble) -> dict[str, float]:
    """Model -> its weight in parts of the largest, which alone decides what is found."""
    largest = max(member.weight for member in ensemble.members)
    return {member.model: round(member.weight / largest, 9) for member in ensemble.members}


def hand_in(
    pipeline: Pipeline,
    spec: str,
    out: Path,
    decimals: int = DECIMALS,
    warn: Callable[[str], None] = lambda _: None,
) -> tuple[Path, int]:
    """Write the challenge JSON of an ensemble.

    Args:
        pipeline: over the split to answer for.
        spec: the ensemble.
        out: the file; an old one is replaced when the new one is whole. A name in ``.zip`` makes a zip.
        decimals: of box coordinates, 0–9.
        warn: is told if the file will be so large that the server might refuse it, as soon as the boxes are known and
            before anything is embedded or searched.

    Returns:
        The file and its size in bytes.
    """
    ensemble = pipeline.parse(spec)
    pipeline.members(ensemble)
    boxes = pipeline.boxes(ensemble.boxes).detections
    num_rows = int(pipeline.split.photos.consumer_mask(boxes.image_ids).sum())
    warning = size_warning(num_rows, decimals, boxes, is_zip(out))
    if warning is not None:
        warn(f"{out}: {warning}")
    plan(pipeline, ensemble, decimals=decimals).require()
    scored = pipeline.run(ensemble, decimals)
    if is_zip(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with named_when_full(out):
            write_submission(out, rows_from_ranking(scored.boxes.detections, scored.ranking), decimals)
    else:
        copy_whole(scored.submission, out)
    return out, out.stat().st_size


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file so that the target is whole or as it was.

    Raises:
        InputError: the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)

    def copy(parts: Sequence[Path]) -> None:
        shutil.copyfile(source, parts[0])

    write_whole([target], copy)
