"""What people ask of the pipeline: a leaderboard row, a file to hand in, the paper's tables."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.pipeline import HISTOGRAM, Pipeline, Scored
from harness.spec import GROUND_TRUTH, PAPER_DETECTORS, BoxSource, Ensemble, parse
from harness.types import BoxAP, InputError
from submissions.writer import DECIMALS, is_zip, rows_from_ranking, size_warning, write_submission

if TYPE_CHECKING:
    from harness.data.garments import Garments
    from leaderboard.rows import Row
    from leaderboard.tables import PaperTable


def score(pipeline: Pipeline, spec: Ensemble | str, name: str | None = None) -> tuple[Scored, Row]:
    """Run what is missing of an ensemble, score it, and add the row to the working folder's leaderboard.

    Args:
        pipeline: over an annotated split.
        spec: the ensemble.
        name: what people call it; None for its canonical spec.

    Raises:
        InputError: the split has no annotations, or a model is missing; before anything runs.
    """
    from leaderboard.store import Board

    split = pipeline.split
    if split.items is None:
        raise InputError(
            f"{split.root / split.name}: has no annotations, so nothing can be scored; "
            "write the challenge JSON instead: run.py submit"
        )
    scored = pipeline.run(spec)
    row = leaderboard_row(pipeline, scored, name)
    board = Board(pipeline.work.board)
    board.add(row)
    board.close()
    return scored, row


def leaderboard_row(pipeline: Pipeline, scored: Scored, name: str | None = None) -> Row:
    """The leaderboard row of a scored ensemble, with everything that made it.

    Args:
        pipeline: that ran it.
        scored: what `Pipeline.run` returned, with a score.
        name: what people call the ensemble; None for its canonical spec.
    """
    from harness.provenance import code_version, hardware
    from harness.scoring.hedging import class_hedging
    from leaderboard.rows import Row

    split = pipeline.split
    assert scored.score is not None
    known = [(card.saw(split.fingerprint), card.name) for card in scored.members]
    reasons = [f"{how} {split.name}: {name}" for how, name in known if how]
    source = scored.ensemble.boxes
    fitted = pipeline.work.fitted_fusion(source.name) if source.fused is not None else None
    if fitted is not None and fitted.get("fitted_on", {}).get("fingerprint") == split.fingerprint:
        reasons.append(f"fusion fitted on {split.name}")
    seconds = {
        # The spec says which models; so that the same stage bears the same name in all rows.
        "embed" if stage.stage.startswith("embed ") else stage.stage: (
            stage.seconds if stage.cost_seconds is None else stage.cost_seconds
        )
        for stage in scored.stages
    }
    queries = scored.boxes.detections.take(scored.ranking.query_rows)
    return Row(
        spec=str(scored.ensemble),
        name=name or str(scored.ensemble),
        split=split.name,
        fingerprint=split.fingerprint,
        rendered=split.rendered,
        artifacts=(
            *(f"{stage}:{address}" for stage, address in scored.artifacts.items()),
            *(f"{card.name} is {card.summary}" for card in scored.members if card.summary),
        ),
        code_version=code_version(),
        hardware=hardware(),
        stage_seconds=seconds,
        score=scored.score,
        contamination="; ".join(reasons) or None,
        hedged=class_hedging(queries.image_ids, queries.boxes_xyxy, queries.category_ids).is_hedged,
    )


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
    scored = pipeline.run(ensemble, decimals)
    if is_zip(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_submission(out, rows_from_ranking(scored.boxes.detections, scored.ranking), decimals)
    else:
        copy_whole(scored.submission, out)
    return out, out.stat().st_size


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file so that the target is whole or as it was."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    shutil.copyfile(source, part)
    part.replace(target)


def box_ap_of(pipeline: Pipeline, source: BoxSource) -> BoxAP | None:
    """Box AP of a box source; None where the split has no annotations."""
    from harness.scoring.boxes import box_ap

    if pipeline.split.items is None:
        return None
    return box_ap(pipeline.split.items, pipeline.boxes(source).detections, pipeline.image_ids)


def score_missing_models(pipeline: Pipeline) -> list[str]:
    """Score on ground-truth boxes, as the paper's Table 3, every retrieval model that has no row of today.

    Args:
        pipeline: over an annotated split.

    Returns:
        Names of the models that were scored.

    Raises:
        InputError: as `score`.
    """
    from leaderboard.store import Board

    split = pipeline.split
    missing = {f"{name}{_ON_TRUTH}": name for name in pipeline.work.trained("retriever")}
    if pipeline.work.board.exists():
        for row in Board(pipeline.work.board).rows(split=split.name, fingerprint=split.fingerprint):
            if row.spec in missing and _is_of_today(pipeline, row):
                del missing[row.spec]
    for spec in missing:
        score(pipeline, spec)
    return list(missing.values())


def tables(pipeline: Pipeline, at_hand: Sequence[Garments] = ()) -> list[PaperTable]:
    """The paper's tables beside what was measured on this split by detectors trained here and by rows of the board.

    Args:
        pipeline: over the split.
        at_hand: data sets to count for Table 1.
    """
    from harness.data.garments import count_sources
    from harness.jobs.settings_table import table_4
    from leaderboard.store import Board
    from leaderboard.tables import paper_tables, sources_table

    split = pipeline.split
    measured: dict[int, dict[str, dict[str, float | None]]] = {number: {} for number in (2, 3, 5, 6, 7)}
    apart: dict[tuple[int, str], str] = {}
    models = {*pipeline.work.trained("retriever"), HISTOGRAM}
    trained = pipeline.work.trained("detector")
    titles = dict(zip(PAPER_DETECTORS, _TITLES, strict=True))
    of_paper = [name for name in PAPER_DETECTORS if name in trained]
    for name in (*of_paper, *(name for name in trained if name not in titles)):
        ap = box_ap_of(pipeline, BoxSource(name))
        if ap is not None:
            values = (ap.ap, ap.ap50, ap.ap75, ap.ap_small, ap.ap_medium, ap.ap_large)
            cells = dict(zip(("AP", "AP50", "AP75", "APS", "APM", "APL"), values, strict=True))
            measured[2][titles.get(name, name)] = {**cells}
    every = [BoxSource(f"WBF_{count}") for count in range(1, len(PAPER_DETECTORS) + 1)]
    every += [source for source in map(BoxSource, pipeline.work.every_fitted_fusion()) if source not in every]
    for source in every:
        ap = (
            box_ap_of(pipeline, source)
            if set(source.detectors) <= set(trained) and _is_fitted(pipeline, source)
            else None
        )
        if ap is not None:
            measured[5][source.name] = {"AP50": ap.ap50}
    if pipeline.work.board.exists():
        for row in Board(pipeline.work.board).rows(split=split.name, fingerprint=split.fingerprint):
            by_itself = row.spec.removesuffix(_ON_TRUTH)
            places = [(3, by_itself)] if by_itself in models and by_itself != row.spec else _PLACES.get(row.spec, ())
            # Rows without a place are not looked into: their detectors may be gone, or would look at all photos anew.
            if not places or not _is_of_today(pipeline, row):
                continue
            for number, name in places:
                if not row.counts:
                    why = row.contamination or "class hedging"
                    apart[number, name] = f"{name} has a row that is ranked apart: {why}."
                    continue
                apart.pop((number, name), None)
                accuracies: dict[str, float | None] = {"Acc@1": row.score.acc[1], "Acc@10": row.score.acc[10]}
                if number == 3:
                    del accuracies["Acc@1"]
                if number == 6:
                    accuracies = {f"{split.name} Acc@10": row.score.acc[10]}
                measured[number][name] = accuracies
    notes = {table: [why for (number, _), why in apart.items() if number == table] for table in measured}
    found = paper_tables(measured, split.rendered, f"{split.name} {split.fingerprint[:8]}", notes)
    counts = {name: (one.identities, one.images, one.rendered) for name, one in count_sources(at_hand).items()}
    return sorted([sources_table(counts), *found, table_4()], key=lambda table: table.number)


_ON_TRUTH = f" + {GROUND_TRUTH}"
"""After a model by itself in a canonical spec: the rows of Table 3."""


def _is_of_today(pipeline: Pipeline, row: Row) -> bool:
    """Whether a row was made by the models and the fusion that are in the working folder now."""
    ensemble = pipeline.parse(row.spec)
    try:
        cards = pipeline.members(ensemble)[len(ensemble.boxes.detectors) :]
    except InputError:
        return False  # a model is gone, or the row was scored by steps that this version cannot run
    if ensemble.boxes.fused is not None and not _is_fitted(pipeline, ensemble.boxes):
        return False
    boxes = pipeline.boxes(ensemble.boxes)
    try:
        wanted = {f"{card.name}:{pipeline.embed_recipe(card, boxes).address}" for card in cards}
    except InputError:
        return False  # other embeddings were entered since, not of all these boxes
    return wanted <= set(row.artifacts)


def _is_fitted(pipeline: Pipeline, source: BoxSource) -> bool:
    """Whether the settings of a fusion are of use: none of its detectors was trained anew since they were fitted."""
    try:
        pipeline.fusion_settings(source)
    except InputError:
        return False
    return True


_TITLES = ("ATSS", "Cascade Mask R-CNN", "CenterNet", "RetinaNet-R101-FPN", "RetinaNet-X101-FPN")
"""The detectors as Table 2 names them."""


_TABLE_6 = (
    "m4",
    "m0-13 (w/o m6-9)",
    "m0-13 (w/o m6-7)",
    "m0-16 (w/o m7)",
    "m1-16 (w/o m7)",
    "m0-17 (w/o m7)",
    "m1-16",
    "m1-17",
)


def _places() -> dict[str, list[tuple[int, str]]]:
    """Canonical spec -> the table and row where the paper has that ensemble; Table 3 has any model by itself."""
    named = [(f"{name} with WBF_5", 6, name) for name in _TABLE_6]
    named += [
        ("m4 + WBF_5", 7, "WBF_5 (590k) | NN"),
        ("m4 + WBF_5@126k", 7, "WBF_5 (126k) | NN"),
        ("m4 + WBF_5@126k | rerank", 7, "WBF_5 (126k) | NN + re-ranking"),
    ]
    places: dict[str, list[tuple[int, str]]] = {}
    for spec, number, name in named:
        places.setdefault(str(parse(spec)), []).append((number, name))
    return places


_PLACES = _places()
