"""The paper's tables beside what was measured here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from harness.jobs.boxes import box_ap_of
from harness.jobs.results import score
from harness.pipeline import HISTOGRAM, Pipeline
from harness.spec import GROUND_TRUTH, PAPER_DETECTORS, BoxSource, SpecError, parse
from harness.types import InputError

if TYPE_CHECKING:
    from harness.data.garments import Garments
    from leaderboard.entered import EnteredScore
    from leaderboard.rows import Row
    from leaderboard.tables import PaperTable


def score_missing(pipeline: Pipeline) -> list[str]:
    """Score every row of the paper's Tables 3, 6 and 7 whose models are all trained here and that has no row of today.

    Args:
        pipeline: over an annotated split.

    Returns:
        Specs that were scored.

    Raises:
        InputError: as `score`.
    """
    from leaderboard.store import Board

    split, trained = pipeline.split, set(pipeline.work.trained("retriever"))
    detectors = set(_with_boxes(pipeline))
    missing = [f"{name}{_ON_TRUTH}" for name in pipeline.work.trained("retriever")]
    for spec in _PLACES:
        ensemble = parse(spec)
        models = {member.model for member in ensemble.members}
        if models <= trained and detectors.issuperset(ensemble.boxes.detectors):
            missing.append(spec)
    if pipeline.work.has_board:
        with Board(pipeline.work.board, create=False) as board:
            rows = board.rows(split=split.name, fingerprint=split.fingerprint, protocol="official")
        for row in rows:
            if row.spec in missing and _is_of_today(pipeline, row):
                missing.remove(row.spec)
    for spec in missing:
        score(pipeline, spec)
    return missing


def tables(pipeline: Pipeline, at_hand: Sequence[Garments] = ()) -> list[PaperTable]:
    """The paper's tables 1 to 8 beside what was measured on this split by detectors trained here and by rows of the
    board of the official protocol, and beside the scores that were entered on it.

    Args:
        pipeline: over the split.
        at_hand: data sets to count for Table 1.

    Returns:
        All eight, in order.
    """
    from harness.data.garments import count_sources
    from harness.jobs.settings_table import table_4
    from leaderboard.store import Board
    from leaderboard.tables import final_results, paper_tables, sources_table

    split = pipeline.split
    measured: dict[int, dict[str, dict[str, float | None]]] = {number: {} for number in (2, 3, 5, 6, 7)}
    apart: dict[tuple[int, str], str] = {}
    beware: dict[int, list[str]] = {2: [], 5: []}
    models = {*pipeline.work.trained("retriever"), HISTOGRAM}
    trained = _with_boxes(pipeline)
    titles = dict(zip(PAPER_DETECTORS, _TITLES, strict=True))
    of_paper = [name for name in PAPER_DETECTORS if name in trained]
    for name in (*of_paper, *(name for name in trained if name not in titles)):
        ap = box_ap_of(pipeline, BoxSource(name))
        if ap is not None:
            values = (ap.ap, ap.ap50, ap.ap75, ap.ap_small, ap.ap_medium, ap.ap_large)
            cells = dict(zip(("AP", "AP50", "AP75", "APS", "APM", "APL"), values, strict=True))
            measured[2][titles.get(name, name)] = {**cells}
            how = pipeline.work.model_card("detector", name).saw(split.fingerprint)
            if how is not None:
                beware[2].append(f"{titles.get(name, name)} was {how} {split.name}, so its figure promises too much.")
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
            entry = pipeline.work.fitted_fusion(source.name) or {}
            if entry.get("fitted_on", {}).get("fingerprint") == split.fingerprint:
                beware[5].append(f"{source.name} was fitted on {split.name}, so its figure promises too much.")
    entered: list[EnteredScore] = []
    if pipeline.work.has_board:
        with Board(pipeline.work.board, create=False) as board:
            entered = board.entered()
            rows = board.rows(split=split.name, fingerprint=split.fingerprint, protocol="official")
        for row in rows:
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
                    # The paper's other column is the test split's, whose truth only the challenge's server has.
                    accuracies = {"validation Acc@10": row.score.acc[10]} if split.name == "validation" else {}
                measured[number][name] = accuracies
    notes = {table: [why for (number, _), why in apart.items() if number == table] for table in measured}
    for number, notices in beware.items():
        notes[number] += notices
    notes[7] += _uncut(pipeline, measured[7])
    found = paper_tables(
        measured,
        split.rendered,
        f"{split.name} {split.fingerprint[:8]}",
        notes,
        entered={6: _told(entered)},
        not_judged=_not_judged(pipeline),
    )
    counts = {name: (one.identities, one.images, one.rendered) for name, one in count_sources(at_hand).items()}
    every_table = [sources_table(counts), *found, table_4(), final_results(entered)]
    return sorted(every_table, key=lambda table: table.number)


def _told(entered: Sequence[EnteredScore]) -> dict[str, EnteredScore]:
    """Rows of Table 6 and the newest test score of photographs that was entered for each."""
    told: dict[str, EnteredScore] = {}
    for one in sorted(entered, key=lambda one: one.created):
        if one.split == "test" and not one.rendered:
            told |= {name: one for number, name in _PLACES.get(_canonical(one.spec), ()) if number == 6}
    return told


def _canonical(spec: str) -> str:
    """A spec of the paper's models in its canonical form; any other as it is."""
    try:
        return str(parse(spec))
    except SpecError:
        return spec


def _not_judged(pipeline: Pipeline) -> str | None:
    """Why figures of this data cannot say whether the paper's are reproduced; None where they can."""
    from leaderboard.published import published

    split, photos = pipeline.split, published().released["validation"]
    if split.name == "validation" and len(split.photos) == photos:
        return None
    return (
        f"Measured on {len(split.photos):,} photos of {split.name}, the paper's figures on the {photos:,} of "
        "DeepFashion2's validation: no figure measured here says whether they are reproduced."
    )


_ON_TRUTH = f" + {GROUND_TRUTH}"
"""After a model by itself in a canonical spec: the rows of Table 3."""


def _with_boxes(pipeline: Pipeline) -> list[str]:
    """Detectors that are trained here, and those whose boxes of this split were entered."""
    cards = [pipeline.work.model_card("detector", name) for name in pipeline.work.trained("detector")]
    return [card.name for card in cards if card.has_answers(pipeline.split.fingerprint)]


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


def _uncut(pipeline: Pipeline, measured: Iterable[str]) -> list[str]:
    """What to know of Table 7 where the split has no more boxes than its budget: its rows differ by nothing then."""
    if not any("126k" in name for name in measured):
        return []
    count = len(pipeline.boxes(BoxSource("WBF_5")).detections)
    if count > _BUDGET:
        return []
    return [f"Ours has {count:,} boxes of WBF_5 in all, so a budget of {_BUDGET:,} takes none away."]


def _is_fitted(pipeline: Pipeline, source: BoxSource) -> bool:
    """Whether the settings of a fusion are of use: none of its detectors was trained anew since they were fitted."""
    try:
        pipeline.fusion_settings(source)
    except InputError:
        return False
    return True


_TITLES = ("ATSS", "Cascade Mask R-CNN", "CenterNet", "RetinaNet-R101-FPN", "RetinaNet-X101-FPN")
"""The detectors as Table 2 names them."""


_BUDGET = 126_000
"""Boxes that Table 7's re-ranking was run on."""

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
        (f"m4 + WBF_5@{_BUDGET}", 7, "WBF_5 (126k) | NN"),
        (f"m4 + WBF_5@{_BUDGET} | rerank", 7, "WBF_5 (126k) | NN + re-ranking"),
    ]
    places: dict[str, list[tuple[int, str]]] = {}
    for spec, number, name in named:
        places.setdefault(str(parse(spec)), []).append((number, name))
    return places


_PLACES = _places()
