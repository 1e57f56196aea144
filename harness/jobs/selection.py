"""Choosing an ensemble: which models, with which weights, within which budget; chosen on some pairs, told on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.artifacts import Draft, Recipe, write_array
from harness.box_stages import BoxSet
from harness.jobs.selection_costs import budget_of, cost_of
from harness.pipeline import Pipeline
from harness.ranking.rows import FeatureRows, choose
from harness.spec import Ensemble
from harness.training.pairs import annotated
from harness.types import GALLERY_LENGTH, InputError, Ints
from harness.workplace import ModelCard
from submissions.writer import DECIMALS

if TYPE_CHECKING:
    from harness.jobs.selection_report import Selection
    from harness.ranking.selection.candidates import Candidates
    from harness.ranking.selection.searching import Method

CANDIDATES_VERSION = 1


@dataclass(frozen=True)
class Request:
    """What is to be chosen from, and how.

    Attributes:
        models: a spec of the models to choose from, without weights; None for all trained and entered ones.
        boxes: the box source; None for that of ``models``.
        k: of the Acc@k that is to become high, 1 … 20.
        method: see `harness.ranking.selection.searching.search`.
        max_models: of the ensemble.
        max_milliseconds: of embedding a crop by all of its models.
        max_gigabytes: of its features of all boxes, 1e9 bytes each.
        milliseconds: model -> what embedding a crop takes, instead of what the store measured.
        num_trials: of weights; 0 for equal weights.
        with_contaminated: choose also from models that saw the photos.
        num_halvings: how often the pairs are halved and the choice is made on either half.
        seed: of the halvings and of the search for weights.
        num_candidates: best rows of each model that are listed.
    """

    models: str | None = None
    boxes: str | None = None
    k: int = 10
    method: Method = "auto"
    max_models: int | None = None
    max_milliseconds: float | None = None
    max_gigabytes: float | None = None
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    num_trials: int = 60
    with_contaminated: bool = False
    num_halvings: int = 10
    seed: int = 0
    num_candidates: int = 60


@dataclass(frozen=True, eq=False)
class Questions:
    """The queries of a split as a box set asks them.

    Attributes:
        pair_ids: (Q,) int64, of every query.
        rows: (A,) int64, rows of the boxes that speak for the queries that can be answered.
        answerable: (A,) int64, which of the queries these are: a box speaks, and a box in the gallery is right.
        num_silent: queries for which no box speaks.
        gallery_rows: (G,) int64, rows of the shop boxes.
        right_starts, right_rows: of each answerable query the right ones of the gallery's rows 0 … G - 1.
    """

    pair_ids: Ints
    rows: Ints
    answerable: Ints
    num_silent: int
    gallery_rows: Ints
    right_starts: Ints
    right_rows: Ints


def _lacks(pipeline: Pipeline, name: str, boxes: BoxSet) -> bool:
    """Whether a model was entered, but not for all of these boxes."""
    try:
        pipeline.embed_recipe(pipeline.retriever_card(name), boxes)
    except InputError:
        return True
    return False


def select(pipeline: Pipeline, request: Request) -> Selection:
    """Choose an ensemble and measure what the choice is worth.

    Embeddings that are missing are made. The choice is kept in the working folder, so that a leaderboard row of it can
    be marked where its photos chose it.

    Args:
        pipeline: over an annotated split.
        request: what to choose from, and how.

    Raises:
        InputError: the split has no annotations, a model is not known or not trained, nothing is left to choose from,
            no model keeps within the budget, or there are too few queries or shop boxes.
    """
    from harness.jobs.choosing import Choosing

    annotated(pipeline.split, pipeline.image_ids)
    pipeline.work.every_selection()  # before anything is embedded: the choice can be laid over it
    ensemble = _choice(pipeline, request)
    cards = pipeline.members(ensemble)
    detectors, retrievers = cards[: len(ensemble.boxes.detectors)], cards[len(ensemble.boxes.detectors) :]
    left_out = {card.name: how for card in retrievers if (how := how_seen(pipeline, card)) is not None}
    doubts = [
        f"{card.name} was {how} {pipeline.split.name}, and its boxes are searched"
        for card in detectors
        if (how := how_seen(pipeline, card)) is not None
    ]
    if request.with_contaminated:
        doubts += [f"{name} was {how} {pipeline.split.name}, and may be chosen" for name, how in left_out.items()]
        left_out = {}
    names = [card.name for card in retrievers if card.name not in left_out]
    if not names:
        raise InputError(
            f"no model is left to choose from: {', '.join(f'{name} was {how}' for name, how in left_out.items())} "
            f"{pipeline.split.name}; train without it, or choose from them all the same: --with-contaminated"
        )
    unknown = [name for name in request.milliseconds if name not in names]
    if unknown:
        raise InputError(f"a cost is given for {', '.join(unknown)}; the models to choose from are {', '.join(names)}")
    boxes = pipeline.boxes(ensemble.boxes)
    if request.models is None:
        lacking = [name for name in names if _lacks(pipeline, name, boxes)]
        doubts += [f"{name} is left out: it was entered, and not for all boxes of {boxes.source}" for name in lacking]
        names = [name for name in names if name not in lacking]
        if not names:
            raise InputError(f"no model is left to choose from: {'; '.join(doubts)}; enter them for these boxes")
    questions = ask(pipeline, boxes)
    embedded, addresses = pipeline.embeddings(names, boxes)
    vectors = [embedded[name].vectors_ND for name in names]
    costs = {name: cost_of(pipeline, name, boxes, request.milliseconds.get(name)) for name in names}
    budget = budget_of(costs, request.max_models, request.max_milliseconds, request.max_gigabytes)
    queries = [choose(part, questions.rows) for part in vectors]
    gallery = [choose(part, questions.gallery_rows) for part in vectors]
    candidates = _candidates(pipeline, boxes, questions, queries, gallery, [addresses[name] for name in names], request)
    choosing = Choosing(
        pipeline=pipeline,
        request=request,
        boxes=ensemble.boxes,
        names=tuple(names),
        costs=costs,
        budget=budget,
        questions=questions,
        candidates=candidates,
        features=(queries, gallery),
        left_out=left_out,
        doubts=tuple(doubts),
    )
    selection = choosing.run()
    pipeline.work.keep_selection(selection.spec, selection.as_entry())
    return selection


def how_seen(pipeline: Pipeline, card: ModelCard) -> str | None:
    """How a model knows photos of the pipeline; None if it does not. Training on the rest of a split is none of it."""
    split = pipeline.split
    if card.saw_any(split.fingerprint, pipeline.image_ids, split.photos.image_ids):
        return "trained on"
    return replace(card, trained_on=()).saw(split.fingerprint)


def _choice(pipeline: Pipeline, request: Request) -> Ensemble:
    """The models to choose from and the boxes, as an ensemble."""
    spec = request.models
    if spec is None:
        ready = pipeline.work.trained("retriever")
        if not ready:
            raise InputError(
                f"{pipeline.work.root}: has no retrieval model to choose from; train with: run.py train retriever NAME"
                ", or enter embeddings with: run.py enter embeddings"
            )
        spec = ",".join(ready)
    ensemble = pipeline.parse(spec)
    if ensemble.steps:
        raise InputError(
            f"'{ensemble}': ensembles are chosen for plain search; leave the step '{ensemble.steps[0]}' out"
        )
    weighted = [member.model for member in ensemble.members if member.weight != 1]
    if weighted:
        raise InputError(f"'{ensemble}': the weights are what is chosen; name {', '.join(weighted)} without")
    if request.boxes is not None:
        ensemble = replace(ensemble, boxes=pipeline.parse_boxes(request.boxes))
    return ensemble


def ask(pipeline: Pipeline, boxes: BoxSet) -> Questions:
    """Which boxes speak for which queries, and which shop boxes are right.

    Raises:
        InputError: there are too few shop boxes, or queries of fewer than two pairs.
    """
    from harness.scoring.answers import right_boxes
    from harness.scoring.official import speaking_rows
    from harness.scoring.truth import refuse_unanswerable, truth_from_items

    queries, gallery = truth_from_items(annotated(pipeline.split, pipeline.image_ids))
    refuse_unanswerable(queries, gallery)
    found = boxes.detections
    corners = np.round(found.boxes_xyxy, DECIMALS)  # as the challenge JSON has them, which is what is scored
    speaking = speaking_rows(found.image_ids, corners, found.scores, found.category_ids, queries)
    gallery_rows = np.flatnonzero(~pipeline.split.photos.consumer_mask(found.image_ids))
    if len(gallery_rows) < GALLERY_LENGTH:
        raise InputError(
            f"{boxes.source}: has {len(gallery_rows)} boxes in shop photos, at least {GALLERY_LENGTH} are needed"
        )
    pair_ids = queries.pair_ids[queries.asked_rows]
    if len(np.unique(pair_ids)) < 2:
        raise InputError(
            f"{pipeline.split.root / pipeline.split.name}: has queries of {len(np.unique(pair_ids))} pair, at least 2 "
            "are needed to choose on one and to report on another"
        )
    numbers, right = right_boxes(queries, gallery, found.image_ids[gallery_rows], corners[gallery_rows])
    counts = np.bincount(numbers, minlength=len(pair_ids))
    is_answerable = (speaking >= 0) & (counts > 0)
    return Questions(
        pair_ids=pair_ids,
        rows=speaking[is_answerable],
        answerable=np.flatnonzero(is_answerable),
        num_silent=int((speaking < 0).sum()),
        gallery_rows=gallery_rows,
        right_starts=np.concatenate([[0], np.cumsum(counts[is_answerable])]),
        right_rows=right[is_answerable[numbers]],
    )


def _candidates(
    pipeline: Pipeline,
    boxes: BoxSet,
    questions: Questions,
    queries: Sequence[FeatureRows],
    gallery: Sequence[FeatureRows],
    addresses: Sequence[str],
    request: Request,
) -> Candidates:
    """The lists of candidates, from the store where they are."""
    from harness.ranking.selection.candidates import Candidates, gather

    inputs = {"boxes": boxes.address, "data": pipeline.data_address}
    inputs |= {f"model {index}": address for index, address in enumerate(addresses)}
    recipe = Recipe("candidates", CANDIDATES_VERSION, {"num_candidates": request.num_candidates}, inputs)

    def make(draft: Draft) -> dict[str, Any]:
        rights = (questions.right_starts, questions.right_rows)
        made = gather(
            queries, gallery, *rights, request.num_candidates, pipeline.report("candidates"), pipeline.search_options
        )
        for name in _COLUMNS:
            draft.write(f"{name}.npy", partial(write_array, rows=getattr(made, name)))
        return {"queries": made.num_queries, "candidates": len(made.rows)}

    with pipeline.stopwatch.stage("candidates", "queries") as clock:
        artifact, made = pipeline.store.get(recipe, make)
        clock.count, clock.from_store = len(questions.rows), not made
        clock.cost_seconds = float(artifact.manifest["seconds"])
    return Candidates(**{name: np.asarray(artifact.array(f"{name}.npy")) for name in _COLUMNS})


_COLUMNS = ("starts", "num_right", "rows", "similarities_Mn", "floors_QM", "joint_floors")
