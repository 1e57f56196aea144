"""What people ask of the pipeline: a leaderboard row, a file to hand in, fitted fusion, the paper's tables."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.artifacts import Draft, Recipe
from harness.fitting import step_seed
from harness.pipeline import BoxSet, Pipeline, Scored, detectors_of
from harness.spec import PAPER_DETECTORS, BoxSource, Ensemble, parse
from harness.types import BoxAP, InputError, Ints, Split
from submissions.writer import DECIMALS, is_zip, rows_from_ranking, size_warning, write_submission

if TYPE_CHECKING:
    from leaderboard.rows import Row
    from leaderboard.tables import PaperTable

FIT_FUSION_VERSION = 1

HELD_OUT_SHARE = 0.1
"""Of the training pairs, for whatever is fitted on pairs that no model was trained on."""


def held_out_pairs(split: Split) -> tuple[Ints, Ints]:
    """Photos of a training split in two parts that share no pair.

    Args:
        split: an annotated split.

    Returns:
        Ids of the photos to train on, and of the held-out ones (`HELD_OUT_SHARE` of the pairs, at least one). The same
        split is always parted in the same way, so that models of different seeds leave out the same photos.

    Raises:
        InputError: the split has no annotations, or fewer than two pairs.
    """
    folder = split.root / split.name
    if split.items is None:
        raise InputError(f"{folder}: has no annotations, so there is nothing to train on")
    pairs = np.unique(split.items.pair_ids)
    if len(pairs) < 2:
        raise InputError(f"{folder}: has {len(pairs)} pairs, at least 2 are needed to hold one out")
    count = max(1, round(HELD_OUT_SHARE * len(pairs)))
    held = step_seed(0, 0x4E1D).permutation(pairs)[:count]
    held_ids = np.unique(split.items.image_ids[np.isin(split.items.pair_ids, held)])
    return np.setdiff1d(split.photos.image_ids, held_ids), held_ids


def training_ids(split: Split, hold_out: bool) -> Ints:
    """Photos of a split to train on: all, or those that `held_out_pairs` leaves."""
    return held_out_pairs(split)[0] if hold_out else split.photos.image_ids


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
    known = [(card.saw(split.name, split.fingerprint), card.name) for card in scored.members]
    reasons = [f"{how} {split.name}: {name}" for how, name in known if how]
    count = scored.ensemble.boxes.num_fused
    fitted = pipeline.work.fitted_fusion(count) if count is not None else None
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


def fit_fusion(
    held: Pipeline, *, num_trials: int, seed: int, max_per_image: int | None = None
) -> dict[str, dict[str, Any]]:
    """Fit the settings of ``WBF_n`` for AP50 on photos that no detector was trained on, and keep them.

    Args:
        held: over held-out photos of a training split. Every n is fitted for which the detectors are trained.
        num_trials: settings to try for each n.
        seed: of the search.
        max_per_image: the most fused boxes a photo, put into the settings; None for no limit.

    Returns:
        For each ``WBF_n`` its settings, its AP50 and that of its members on those photos, and what it was fitted on.

    Raises:
        InputError: the split has no annotations, or a detector was trained on one of the photos.
    """
    from harness.detection.fusion_study import fit_fusion as study
    from harness.scoring.boxes import ap50

    items = held.split.items
    if items is None:
        raise InputError(f"{held.split.root / held.split.name}: has no annotations, so nothing can be fitted on it")
    ready = held.work.trained("detector")
    members = list(takewhile(lambda name: name in ready, PAPER_DETECTORS)) or PAPER_DETECTORS[:1]
    for name in members:
        _refuse_if_seen(held, name)
    counts = range(1, len(members) + 1)
    truth = items.take(np.isin(items.image_ids, held.image_ids))
    sizes = held.photo_sizes()
    fitted: dict[str, Any] = {}
    advance = held.report("fit fusion")
    for done, count in enumerate(counts):
        parts = [held.detections(name) for name in PAPER_DETECTORS[:count]]
        recipe = Recipe(
            "fit-fusion",
            FIT_FUSION_VERSION,
            {"num_trials": num_trials, "seed": seed, "max_per_image": max_per_image},
            {f"detector {index}": part.address for index, part in enumerate(parts)},
        )

        def make(draft: Draft, done: int = done, parts: Sequence[BoxSet] = parts) -> dict[str, Any]:
            found = study(
                [part.detections for part in parts],
                sizes,
                partial(ap50, truth),
                seed=seed,
                num_trials=num_trials,
                max_per_image=max_per_image,
                progress=lambda trial, _: advance(done * num_trials + trial, len(counts) * num_trials),
            )
            return {
                "settings": found.settings.model_dump(mode="json"),
                "ap50": found.ap50,
                "member_ap50s": list(found.member_ap50s),
                "num_trials": found.num_trials,
                "num_photos": len(held.image_ids),
            }

        artifact, _ = held.store.get(recipe, make)
        fitted_on = {"split": held.split.name, "fingerprint": held.split.fingerprint}
        fitted[f"WBF_{count}"] = dict(artifact.facts) | {"fitted_on": fitted_on}
        advance((done + 1) * num_trials, len(counts) * num_trials)
    part = held.work.fusion.with_suffix(".part")
    part.write_text(json.dumps(fitted, indent=1))
    part.replace(held.work.fusion)
    return fitted


def _refuse_if_seen(held: Pipeline, name: str) -> None:
    card = held.work.model_card("detector", name)
    if card.saw_any(held.split.name, held.split.fingerprint, held.image_ids, held.split.photos.image_ids):
        raise InputError(
            f"{card.folder}: {name} may have been trained on the photos that fusion would be fitted on, or its weights "
            f"were chosen by them; train it without them: run.py train detector {name} --hold-out --force, and with "
            "--patience only where it is judged --evaluate-on validation"
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


def box_ap_of(pipeline: Pipeline, source: str) -> BoxAP | None:
    """Box AP of a detector or a ``WBF_n``; None where the split has no annotations."""
    from harness.scoring.boxes import box_ap

    if pipeline.split.items is None:
        return None
    return box_ap(pipeline.split.items, pipeline.boxes(BoxSource(source)).detections, pipeline.image_ids)


def tables(pipeline: Pipeline) -> list[PaperTable]:
    """The paper's tables beside what was measured on this split by detectors trained here and by rows of the board."""
    from leaderboard.store import Board
    from leaderboard.tables import paper_tables

    split = pipeline.split
    measured: dict[int, dict[str, dict[str, float | None]]] = {number: {} for number in (2, 3, 5, 6, 7)}
    ready = set(pipeline.work.trained("detector"))
    for title, name in zip(_TITLES, PAPER_DETECTORS, strict=True):
        ap = box_ap_of(pipeline, name) if name in ready else None
        if ap is not None:
            values = (ap.ap, ap.ap50, ap.ap75, ap.ap_small, ap.ap_medium, ap.ap_large)
            measured[2][title] = dict(zip(("AP", "AP50", "AP75", "APS", "APM", "APL"), values, strict=True))
    for count in range(1, len(PAPER_DETECTORS) + 1):
        ap = box_ap_of(pipeline, f"WBF_{count}") if ready.issuperset(PAPER_DETECTORS[:count]) else None
        if ap is not None:
            measured[5][f"WBF_{count}"] = {"AP50": ap.ap50}
    if pipeline.work.board.exists():
        for row in Board(pipeline.work.board).rows(split=split.name, fingerprint=split.fingerprint):
            if not row.counts or not _is_of_today(pipeline, row):
                continue
            for number, name in _PLACES.get(row.spec, ()):
                accuracies: dict[str, float | None] = {"Acc@1": row.score.acc[1], "Acc@10": row.score.acc[10]}
                if number == 3:
                    del accuracies["Acc@1"]
                if number == 6:
                    accuracies = {f"{split.name} Acc@10": row.score.acc[10]}
                measured[number][name] = accuracies
    return paper_tables(measured, split.rendered, f"{split.name} {split.fingerprint[:8]}")


def _is_of_today(pipeline: Pipeline, row: Row) -> bool:
    """Whether a row was made by the models and the fusion that are in the working folder now."""
    ensemble = pipeline.parse(row.spec)
    try:
        cards = pipeline.members(ensemble)[len(detectors_of(ensemble.boxes)) :]
    except InputError:
        return False  # a model is gone, or the row was scored by steps that this version cannot run
    boxes = pipeline.boxes(ensemble.boxes)
    wanted = {f"{card.name}:{pipeline.embed_recipe(card, boxes).address}" for card in cards}
    return wanted <= set(row.artifacts)


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
    """Canonical spec -> the table and row where the paper has that ensemble."""
    named = [(f"m{n} + GT", 3, f"m{n}") for n in range(18)]
    named += [(f"{name} with WBF_5", 6, name) for name in _TABLE_6]
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
