"""The gallery of a leaderboard row, an ensemble or a result file, as one page of pictures."""

from __future__ import annotations

import string
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.jobs.gallery_queries import Judged, show_some
from harness.progress import Reporter, silent
from harness.scoring.hearing import Hearing
from harness.scoring.ledger import Fate, GalleryBoxes
from harness.scoring.official import PROTOCOL
from harness.types import InputError, SplitName

if TYPE_CHECKING:
    from harness.pipeline import Pipeline
    from harness.workplace import Workplace
    from leaderboard.pages.gallery_page import ShownResult
    from leaderboard.rows import Row
    from leaderboard.store import Board

NUM_QUERIES = 200

_SHORTEST_PREFIX = 4
"""Of a row's id: shorter texts are taken for specs."""


def write_gallery(
    what: str,
    data: Path,
    work: Workplace,
    *,
    board: Path | str | None = None,
    split: SplitName = "validation",
    query: Path | None = None,
    gallery: Path | None = None,
    num_queries: int = NUM_QUERIES,
    out: Path | None = None,
    report: Reporter = silent,
) -> Path:
    """Write the gallery of a leaderboard row, of an ensemble, or of a result file.

    Args:
        what: a challenge JSON; or a row's id, or its beginning of four characters or more; or a spec.
        data: the data set's folder.
        work: the working folder that rows and specs are of.
        board: the board; that of the working folder if not given.
        split: of a spec or a file; a row has its own.
        query: ``val_query.json``, for a file.
        gallery: ``val_gallery.json``, for a file.
        num_queries: to show at most.
        out: the page; if not given, in the folder of the board's pages for a row, and beside the file or in the
            working folder for others.
        report: where progress is shown.

    Returns:
        The page.

    Raises:
        InputError: ``what`` is none of these, files are missing or unfit, or the row's result cannot be had again.
    """
    from leaderboard.pages.gallery_page import write_gallery as write_page

    if num_queries < 1:
        raise InputError(f"queries: expected a number of at least 1, got {num_queries}")
    file = Path(what)
    if file.suffix.lower() in (".json", ".zip") or file.is_file() or query is not None or gallery is not None:
        if query is None or gallery is None:
            raise InputError(
                f"{file}: a result file is shown beside the truth; give both --query val_query.json and "
                "--gallery val_gallery.json (run.py data export writes them)"
            )
        target = out or file.with_name(f"{file.stem}-gallery.html")
        return write_page(target, of_file(file, query, gallery, data, split, num_queries=num_queries, report=report))
    row = _find_row(what, work, board)
    if row is not None:
        from leaderboard.pages.links import gallery_path

        shown = of_row(_pipeline(work, data, row.split, report), row, num_queries=num_queries, report=report)
        return write_page(out or work.pages / gallery_path(row), shown, in_site=out is None)
    shown = of_spec(_pipeline(work, data, split, report), what, num_queries=num_queries, report=report)
    return write_page(out or work.root / "gallery.html", shown)


def of_row(pipeline: Pipeline, row: Row, *, num_queries: int = NUM_QUERIES, report: Reporter = silent) -> ShownResult:
    """The gallery of a leaderboard row, from the results in the store.

    Args:
        pipeline: over the row's split.
        row: by the official protocol.
        num_queries: to show at most.
        report: where progress is shown.

    Raises:
        InputError: the data is other data, the protocol another, or the models, settings or code have changed so that
            the row's outcome is no more to be had.
    """
    split = pipeline.split
    if split.fingerprint != row.fingerprint:
        raise InputError(
            f"{split.root / split.name}: is not the data of row {row.id[:12]} (fingerprint {split.fingerprint[:12]}, "
            f"the row's {row.fingerprint[:12]}); give the folder that it was scored on"
        )
    if row.score.protocol != PROTOCOL:
        raise InputError(
            f"row {row.id[:12]} is of the {row.score.protocol} protocol; a gallery can be made of {PROTOCOL} ones"
        )
    every_box = row.losses is not None and not row.losses.untold
    judged = _run(pipeline, row.spec, every_box=every_box)
    if not np.array_equal(judged.outcome.score.hit_ranks, row.score.hit_ranks):
        same = int((judged.outcome.score.hit_ranks == row.score.hit_ranks).sum())
        raise InputError(
            f"{pipeline.work.root}: {row.spec} no longer gives what row {row.id[:12]} says ({same:,} of "
            f"{row.score.num_queries:,} queries have the same rank): models, settings or code have changed since; "
            "score it again, or give the spec to see what it gives now"
        )
    shown = show_some(judged, split.photo_path, num_queries, report)
    return replace(
        shown,
        name=row.name,
        source=row.spec,
        split=row.split,
        rendered=row.rendered,
        row=row,
        contamination=row.contamination,
        hedged=row.hedged,
    )


def of_spec(pipeline: Pipeline, spec: str, *, num_queries: int = NUM_QUERIES, report: Reporter = silent) -> ShownResult:
    """The gallery of an ensemble; what is not in the store yet is run.

    Args:
        pipeline: over an annotated split.
        spec: the ensemble.
        num_queries: to show at most.
        report: where progress is shown.

    Raises:
        InputError: the split has no annotations, the spec is none, or a model is missing.
    """
    split = pipeline.split
    if split.items is None:
        raise InputError(f"{split.root / split.name}: has no annotations, so nobody knows what is right there")
    ensemble = str(pipeline.parse(spec))
    shown = show_some(_run(pipeline, spec, every_box=False), split.photo_path, num_queries, report)
    return replace(shown, name=ensemble, source=ensemble, split=split.name, rendered=split.rendered)


def of_file(
    file: Path,
    query: Path,
    gallery: Path,
    data: Path,
    split: SplitName = "validation",
    *,
    searched: GalleryBoxes | None = None,
    num_queries: int = NUM_QUERIES,
    report: Reporter = silent,
) -> ShownResult:
    """The gallery of anyone's result file.

    Args:
        file: the challenge JSON.
        query: ``val_query.json``.
        gallery: ``val_gallery.json``.
        data: the data set's folder, for the photos.
        split: whose photos.
        searched: the boxes that were searched; without them "not in gallery" cannot be told.
        num_queries: to show at most.
        report: where progress is shown.

    Raises:
        InputError: a file cannot be read or is wrong, or there is no such folder of photos.
    """
    from harness.data.layout import is_rendered
    from harness.scoring.results import Results
    from harness.scoring.truth import read_truth

    photos = data / split / "image"
    if not photos.is_dir():
        raise InputError(f"{photos}: no such folder; give the data set's folder, which holds {split}/image")
    truth = read_truth(query, gallery)
    hearing = Hearing.of(Results.from_json(file), *truth)
    judged = Judged.of(hearing, searched, None, () if searched is not None else (str(Fate.NOT_IN_GALLERY),))
    shown = show_some(judged, lambda image_id: photos / f"{image_id:06d}.jpg", num_queries, report)
    rendered = truth[0].is_rendered or is_rendered(data, split)
    return replace(shown, name=file.name, source=str(file), split=split, rendered=rendered)


def _find_row(what: str, work: Workplace, board: Path | str | None) -> Row | None:
    """The row that a text names; None where it can only be a spec."""
    if len(what) < _SHORTEST_PREFIX or not set(what) <= set(string.hexdigits):
        return None
    from leaderboard.store import Board

    rows: Board = Board(board or work.board, create=False)
    try:
        return rows.row(what.lower())
    finally:
        rows.close()


def _pipeline(work: Workplace, data: Path, split: SplitName, report: Reporter) -> Pipeline:
    from harness.data.deepfashion2 import read_split
    from harness.pipeline import Pipeline

    return Pipeline(work, read_split(data, split), report=report)


def _run(pipeline: Pipeline, spec: str, *, every_box: bool) -> Judged:
    from harness.jobs.evidence import hear
    from harness.jobs.planning import plan
    from submissions.writer import DECIMALS

    plan(pipeline, spec, every_box=every_box).require()
    scored = pipeline.run(spec, every_box=every_box)
    hearing = hear(pipeline, scored)
    boxes, ranking = scored.boxes.detections, scored.ranking
    is_consumer = pipeline.split.photos.consumer_mask(boxes.image_ids)
    shop = boxes.take(~is_consumer)
    searched = GalleryBoxes(shop.image_ids, np.round(shop.boxes_xyxy, DECIMALS))
    similarities = np.full(hearing.results.gallery_image_ids_RK.shape, np.nan)
    answered = np.searchsorted(np.flatnonzero(is_consumer), ranking.query_rows)
    similarities[answered, : ranking.similarities_QK.shape[1]] = ranking.similarities_QK
    return Judged.of(hearing, searched, similarities, () if scored.every_box else (str(Fate.DISPLACED),))
