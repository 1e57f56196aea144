"""The order of the stages: photos, boxes, fusion, embeddings, search, challenge JSON, score.

Every stage asks the store first and runs only what is missing. What decides a stage's result is in
its recipe; raise the stage's version here whenever its arithmetic changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.artifacts import Artifact, Draft, Recipe, write_half_rows, write_json
from harness.box_stages import BoxSet, BoxStages, detectors_of, digest
from harness.embedding_shards import RetrieverToRun, embed_in_shards
from harness.ranking.rows import FeatureRows, choose
from harness.ranking.search import SearchOptions
from harness.ranking_stages import Asking, Features, RankingStages
from harness.spec import GROUND_TRUTH, PAPER_MODELS, BoxSource, Ensemble, parse
from harness.steps import RERANK, TRAIN
from harness.timing import StageTime, Stopwatch, stages_of_pass
from harness.types import Embeddings, InputError, Ints, Ranking, Score, Split
from harness.workplace import ModelCard, ModelKind, Workplace
from submissions.writer import DECIMALS, rows_from_ranking, write_submission

if TYPE_CHECKING:
    from harness.retrieval.embedding_settings import EmbeddingSettings
    from harness.retrieval.entered import RowsFound

EMBED_VERSION = 1
SUBMISSION_VERSION = 1
TRUTH_VERSION = 2

FIT_PHOTOS = 40_000
"""Training photos that projections are fitted on at most: some 65,000 garments, four times 16 x 1,024 dimensions."""

_ROWS = 16_384  # of features, copied at once

HISTOGRAM = "histogram"
"""The untrained colour histogram, as a model of the ensemble language: how hard is a data set without learning?"""
HISTOGRAM_VERSION = 1


@dataclass(frozen=True, eq=False)
class Scored:
    """An ensemble's result on a split.

    Attributes:
        ensemble: what was run.
        boxes: the box set that was searched.
        ranking: 20 gallery boxes a query.
        submission: the challenge JSON in the store.
        score: by the official protocol; None for a split whose truth is not known.
        artifacts: stage -> address, for the leaderboard row.
        members: the models that took part, detectors first.
        stages: what each stage took, in order.
        num_consumer_boxes: in the box set.
    """

    ensemble: Ensemble
    boxes: BoxSet
    ranking: Ranking
    submission: Path
    score: Score | None
    artifacts: Mapping[str, str]
    members: Sequence[ModelCard]
    stages: Sequence[StageTime]
    num_consumer_boxes: int

    @property
    def every_box(self) -> bool:
        """Whether every consumer box was answered, not only those that speak for a query."""
        return len(self.ranking.query_rows) == self.num_consumer_boxes


class Pipeline(BoxStages):
    """The stages over one split of one data set in one working folder.

    Args:
        work, split, **of_boxes: see `BoxStages`.
        looks: retriever -> how it looks at crops, instead of what was kept in the working folder.
        search_options: what searches may use.
    """

    def __init__(
        self,
        work: Workplace,
        split: Split,
        *,
        looks: Mapping[str, EmbeddingSettings] | None = None,
        search_options: SearchOptions | None = None,
        **of_boxes: Any,
    ) -> None:
        super().__init__(work, split, **of_boxes)
        self.looks = looks or {}
        self.search_options = search_options or SearchOptions()
        self._entered: dict[tuple[str, str], RowsFound] = {}

    # --- embeddings ----------------------------------------------------------------------------

    def embeddings(self, names: Sequence[str], boxes: BoxSet) -> tuple[dict[str, Embeddings], dict[str, str]]:
        """The features of every named model on a box set, and their addresses; missing ones in one pass."""
        cards = {name: self.retriever_card(name) for name in names}
        recipes = {name: self.embed_recipe(card, boxes) for name, card in cards.items()}

        def make(drafts: Mapping[str, Draft]) -> dict[str, dict[str, Any]]:
            copied = {name: draft for name, draft in drafts.items() if cards[name].is_entered}
            facts = {name: self._rows_entered(cards[name], boxes).write(draft) for name, draft in copied.items()}
            taken = self._embedded_whole([cards[name] for name in drafts if name not in copied], boxes)
            facts |= {name: rows_of_whole(drafts[name], artifact, boxes) for name, artifact in taken.items()}
            rest = {name: draft for name, draft in drafts.items() if name not in facts}
            if not rest:
                return facts
            models = {name: self.retriever_to_run(name) for name in rest}
            return facts | embed_in_shards(rest, models, self.split, boxes.detections, self.report, self.resources)

        together = Stopwatch()
        with together.stage("embed") as clock:
            artifacts, made = self.store.get_many(recipes, make)
        by_stage = {f"embed {name}": artifacts[name] for name in names}
        now, count = {f"embed {name}" for name in made}, len(boxes.detections)
        self.stopwatch.stages += stages_of_pass(by_stage, now, clock.seconds, "decode and crop", "crops", count)
        embedded = {name: Embeddings(name, artifacts[name].array("vectors.npy")) for name in names}
        for name, features in embedded.items():
            if len(features) != len(boxes.detections):
                folder = artifacts[name].folder
                raise InputError(
                    f"{folder / 'vectors.npy'}: has {len(features):,} rows, the box set {len(boxes.detections):,}; "
                    f"remove the folder {folder} and run again, it will be made anew"
                )
        return embedded, {name: artifact.address for name, artifact in artifacts.items()}

    def _embedded_whole(self, cards: Sequence[ModelCard], boxes: BoxSet) -> dict[str, Artifact]:
        """Of the models whose features of all boxes are there already where a budget chose among them, those."""
        if boxes.whole is None:
            return {}
        found = {card.name: self.store.find(self.embed_recipe(card, boxes.whole)) for card in cards}
        return {name: artifact for name, artifact in found.items() if artifact is not None}

    def embed_recipe(self, card: ModelCard, boxes: BoxSet) -> Recipe:
        """What decides a model's features of a box set.

        Raises:
            InputError: the features were entered, and not those of all of the boxes; or a file is damaged.
        """
        inputs = {"boxes": boxes.address, "data": self.data_address}
        if card.is_entered:
            found = self._rows_entered(card, boxes)
            return Recipe("embed", EMBED_VERSION, {}, inputs, {card.name: found.identity})
        changes = self.embedding_settings(card.name).changes
        return Recipe("embed", EMBED_VERSION, changes, inputs, {card.name: card.identity})

    def _rows_entered(self, card: ModelCard, boxes: BoxSet) -> RowsFound:
        """Where the features of a box set are among those that were made elsewhere."""
        from harness.retrieval.entered import find_rows

        key = (card.identity, boxes.address)
        if key not in self._entered:
            self._entered[key] = find_rows(card.folder, self.split, boxes.detections, boxes.source)
        return self._entered[key]

    def retriever_to_run(self, name: str) -> RetrieverToRun:
        """A model that can embed crops, and how it looks at them.

        Raises:
            InputError: its embeddings were made elsewhere, or the file of kept settings is damaged.
        """
        card, settings = self.retriever_card(name), self.embedding_settings(name)
        if card.is_entered:
            raise InputError(
                f"{card.folder}: the embeddings of {name} were made elsewhere, so boxes that it was not given cannot "
                "be embedded; name models that are trained here"
            )
        parts = (EMBED_VERSION, sorted(settings.changes.items()), card.identity)
        identity = digest(*parts) if settings.changes else card.identity  # as it was before there were any
        return RetrieverToRun(None if name == HISTOGRAM else card.folder, settings, identity)

    def embedding_settings(self, name: str) -> EmbeddingSettings:
        """How a retriever looks at crops: as this pipeline was told, as was kept in the working folder, or plainly.

        Raises:
            InputError: the file of kept settings is damaged.
        """
        from harness.retrieval.embedding_settings import EmbeddingSettings

        if name in self.looks:
            return self.looks[name]
        try:
            return EmbeddingSettings(**self.work.kept_looks().get(name, {}))
        except ValueError as error:
            raise self.work.damaged_looks(f"{name}: {error}") from error

    def retriever_card(self, name: str) -> ModelCard:
        """The card of a retrieval model; the colour histogram needs no training and is always there."""
        if name == HISTOGRAM:
            return ModelCard(HISTOGRAM, self.work.root, f"{HISTOGRAM}-{HISTOGRAM_VERSION}", "", (), 0.0)
        return self.work.model_card("retriever", name)

    def parse(self, spec: str) -> Ensemble:
        """A spec that may name the paper's models and detectors, the histogram, and whatever is trained here."""
        return parse_in(self.work, spec)

    # --- search, challenge JSON, score ---------------------------------------------------------

    def rank(
        self, ensemble: Ensemble, boxes: BoxSet, gallery: BoxSet | None = None, *, rows: Ints | None = None
    ) -> tuple[Ranking, dict[str, str]]:
        """The 20 most similar shop boxes of every consumer box, and the addresses of what led there.

        Args:
            ensemble: its models, weights and steps.
            boxes: the box set whose consumer boxes ask.
            gallery: the box set whose shop boxes are searched, and whose rows the ranking names; None for the same.
            rows: (A,) ascending rows of consumer boxes, to answer for no others; None for all. Re-ranking counts all
                boxes as neighbours in any case.
        """
        names = [member.model for member in ensemble.members]
        searched = gallery or boxes
        features, addresses = self.embeddings(names, boxes)
        found, others = (features, addresses) if gallery is None else self.embeddings(names, gallery)
        consumer_mask = self.split.photos.consumer_mask
        every_row = np.flatnonzero(consumer_mask(boxes.detections.image_ids))
        gallery_rows = np.flatnonzero(~consumer_mask(searched.detections.image_ids))
        all_take_part = any(step.name == RERANK for step in ensemble.steps)
        query_rows = every_row if rows is None or all_take_part else rows
        answered = np.searchsorted(every_row, rows) if rows is not None and all_take_part else None
        weights = [member.weight for member in ensemble.members]
        asked = Features(
            weights=weights,
            queries=[choose(features[name].vectors_ND, query_rows) for name in names],
            gallery=[choose(found[name].vectors_ND, gallery_rows) for name in names],
            query_address=digest("rows", *(addresses[name] for name in names), _sha256(query_rows)),
            gallery_address=digest("rows", *(others[name] for name in names), _sha256(gallery_rows)),
            fitting=partial(self._fitting_features, names, found, others),
        )
        categories = boxes.detections.category_ids[query_rows], searched.detections.category_ids[gallery_rows]
        stages = RankingStages(self.store, self.stopwatch, self.report, self.search_options)
        artifact, led_there = stages.find(asked, ensemble.steps, Asking(len(query_rows), answered, categories))
        ranking = Ranking(
            every_row if rows is None else rows,
            gallery_rows[artifact.array("gallery_rows.npy")],
            artifact.array("similarities.npy"),
        )
        return ranking, addresses | led_there

    def speaking_rows(self, boxes: BoxSet, decimals: int = DECIMALS) -> Ints:
        """Rows of the consumer boxes that speak for a query officially, ascending: no other can change the score.

        Args:
            boxes: of a split whose truth is known.
            decimals: of the box coordinates in the challenge JSON, from which it is decided.
        """
        from harness.scoring.official import speaking_rows
        from harness.scoring.truth import read_truth

        found = boxes.detections
        queries, _ = read_truth(*self.truth())
        corners = np.round(found.boxes_xyxy, decimals)
        speaking = speaking_rows(found.image_ids, corners, found.scores, found.category_ids, queries)
        return np.unique(speaking[speaking >= 0])

    def _fitting_features(
        self, names: Sequence[str], features: Mapping[str, Embeddings], addresses: Mapping[str, str], fit_on: str
    ) -> tuple[Sequence[FeatureRows], str]:
        """The same models on all boxes of the split, as given, or on the annotated boxes of training photos."""
        if fit_on == TRAIN:
            stages = self.of_training_photos()
            features, addresses = stages.embeddings(names, stages.boxes(BoxSource(GROUND_TRUTH)))
        return [features[name].vectors_ND for name in names], digest(*(addresses[name] for name in names))

    def of_training_photos(self) -> Pipeline:
        """The same stages over the training photos that projections are fitted on."""
        from harness.data.deepfashion2 import read_split

        split = read_split(self.split.root, "train")
        image_ids = split.photos.image_ids
        if len(image_ids) > FIT_PHOTOS:
            image_ids = np.random.default_rng(0).choice(image_ids, FIT_PHOTOS, replace=False)
        kept: dict[str, Any] = {"looks": self.looks, "resources": self.resources, "store": self.store}
        return Pipeline(self.work, split, image_ids=image_ids, report=self.report, stopwatch=self.stopwatch, **kept)

    def submission(
        self, boxes: BoxSet, ranking: Ranking, search_address: str, decimals: int = DECIMALS
    ) -> tuple[Path, str]:
        """The challenge JSON of a ranking, in the store, and its address."""
        inputs = {"search": search_address, "boxes": boxes.address}
        recipe = Recipe("submission", SUBMISSION_VERSION, {"decimals": decimals}, inputs)

        def make(draft: Draft) -> dict[str, Any]:
            def write(path: Path) -> None:
                write_submission(path, rows_from_ranking(boxes.detections, ranking), decimals)

            draft.write("results.json", write)
            return {"rows": len(ranking.query_rows)}

        with self.stopwatch.stage("write JSON", "rows") as clock:
            artifact, made = self.store.get(recipe, make)
            clock.note([artifact], made, len(ranking.query_rows))
        return artifact.path("results.json"), artifact.address

    def truth(self) -> tuple[Path, Path]:
        """The split's ground truth as the challenge's query and gallery files."""
        from harness.data.exports import gallery_records, query_records

        def make(draft: Draft) -> dict[str, Any]:
            queries, gallery = query_records(self.split), gallery_records(self.split)
            draft.write("query.json", partial(write_json, value=queries))
            draft.write("gallery.json", partial(write_json, value=gallery))
            return {"queries": len(queries), "gallery": len(gallery)}

        artifact, _ = self.store.get(Recipe("truth", TRUTH_VERSION, {}, {"data": self.data_address}), make)
        return artifact.path("query.json"), artifact.path("gallery.json")

    def members(self, ensemble: Ensemble) -> list[ModelCard]:
        """The cards of all models that an ensemble needs, detectors first.

        Raises:
            InputError: models are missing; all of them are named.
        """
        wanted: dict[ModelKind, list[str]] = {
            "detector": list(ensemble.boxes.detectors),
            "retriever": [member.model for member in ensemble.members if member.model != HISTOGRAM],
        }
        for kind, names in wanted.items():
            missing = [name for name in names if name not in self.work.trained(kind)]
            if missing:
                have = ", ".join(self.work.trained(kind)) or "none"
                raise InputError(
                    f"{self.work.root}: {', '.join(missing)} not trained here ({kind}s trained: {have}); "
                    f"train with: run.py train {kind} {missing[0]} --data DIR --work {self.work.root}"
                )
        cards = [self.work.model_card("detector", name) for name in wanted["detector"]]
        return cards + [self.retriever_card(member.model) for member in ensemble.members]

    def run(self, ensemble: Ensemble | str, decimals: int = DECIMALS, *, every_box: bool = True) -> Scored:
        """All stages of an ensemble; scored where the truth of the split is known.

        Args:
            ensemble: what to run.
            decimals: of the box coordinates in the challenge JSON, which is what is scored.
            every_box: answer for every consumer box, as a submission has to; otherwise, where the truth is known, only
                for those that speak for a query. The official score is the same.
        """
        if isinstance(ensemble, str):
            ensemble = self.parse(ensemble)
        members = self.members(ensemble)  # before anything runs for hours: is every model there?
        before = len(self.stopwatch.stages)
        boxes = self.boxes(ensemble.boxes)
        known = self.split.items is not None
        rows = None if every_box or not known else self.speaking_rows(boxes, decimals)
        ranking, addresses = self.rank(ensemble, boxes, rows=rows)
        submission, address = self.submission(boxes, ranking, addresses["search"], decimals)
        score = None
        if known:
            from harness.scoring.official import evaluate_files

            with self.stopwatch.stage("score", "queries") as clock:
                score = evaluate_files(submission, *self.truth())
                clock.count = score.num_queries
        return Scored(
            ensemble,
            boxes,
            ranking,
            submission,
            score,
            addresses | {"boxes": boxes.address, "submission": address},
            members,
            tuple(self.stopwatch.stages[before:]),
            int(self.split.photos.consumer_mask(boxes.detections.image_ids).sum()),
        )


def parse_in(work: Workplace, spec: str) -> Ensemble:
    """A spec that may name the paper's models and detectors, the histogram, and whatever a working folder has."""
    models = dict.fromkeys((*PAPER_MODELS, *work.trained("retriever"), HISTOGRAM))
    return parse(spec, models=tuple(models), detectors=detectors_of(work))


def _sha256(rows: Ints) -> str:
    return hashlib.sha256(rows.tobytes()).hexdigest()


def rows_of_whole(draft: Draft, artifact: Artifact, boxes: BoxSet) -> dict[str, Any]:
    """Take the features of a budget's boxes from those of all boxes; an embedding depends on nothing but its crop.

    Args:
        draft: where to.
        artifact: features of ``boxes.whole``.
        boxes: the budget's.

    Returns:
        Facts for the manifest.
    """
    from harness.scoring.overlap import common_codes

    assert boxes.whole is not None
    some, every = (
        (one.image_ids, *np.ascontiguousarray(one.boxes_xyxy.T).view(np.int64))
        for one in (boxes.detections, boxes.whole.detections)
    )
    wanted, there = common_codes(some, every)
    place = np.zeros(there.max(initial=-1) + 1, np.int64)
    place[there] = np.arange(len(there))
    rows, vectors = place[wanted], artifact.array("vectors.npy")
    shape = len(rows), vectors.shape[1]
    starts = range(0, len(rows), _ROWS)
    chunks = (vectors[rows[start : start + _ROWS]] for start in starts)
    draft.write("vectors.npy", partial(write_half_rows, shape=shape, chunks=chunks))
    share = len(rows) / max(1, len(vectors))
    return {
        "rows": shape[0],
        "dimensions": shape[1],
        "of": artifact.address,
        "seconds_before": artifact.seconds * share,
        "made_on": artifact.made_on,
    }
