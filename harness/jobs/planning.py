"""What `score` and `submit` would do: which stages are in the store, and what the others will take.

Legend: N boxes, Q queries, G gallery boxes, D dimensions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from harness.embedding_shards import embedding_bytes, embedding_hints
from harness.jobs.dry_run import DryPipeline
from harness.pipeline import HISTOGRAM, Pipeline
from harness.preflight import Hints, Needs, Room, available_disk, available_memory, no_hints, require
from harness.ranking.search import working_bytes
from harness.shards import PHOTOS_A_SHARD
from harness.spec import GROUND_TRUTH, BoxSource, Ensemble
from harness.steps import GALLERY, OF_FEATURES, RERANK, SAME_CATEGORY, TRAIN, Step
from harness.types import GALLERY_LENGTH, InputError
from submissions.writer import DECIMALS, estimate_bytes

BOXES_A_PHOTO = 18.4
"""Of the paper's WBF_5, 590k boxes in 32,153 photos: the guess where boxes are still to be made."""

_BOX_BYTES = 64
_ANSWER_BYTES = 12
_VALUE_BYTES = 2
_MOST_BOXES_A_PHOTO = 100
_NEIGHBOUR_BYTES = 28
"""Of a neighbour in the lists of re-ranking: as the search gives it, and as it is kept."""
_ENTRY_BYTES = 24
"""Of an entry of a row's encoding, while the rows are filed; there are some k1 * k2 / 2 a row, more in crowds."""


@dataclass(frozen=True)
class PlannedStage:
    """A stage of an ensemble.

    Attributes:
        name: as in the table of times.
        is_there: whether its result is in the store.
        rows: photos, boxes or queries that it handles.
        memory_bytes: working memory that it takes; 0 where it is little.
        disk_bytes: that it writes at most.
        is_guessed: whether that rests on a guess of how many boxes there will be.
        hints: what to do where there is too little room.
    """

    name: str
    is_there: bool
    rows: int
    memory_bytes: int = 0
    disk_bytes: int = 0
    is_guessed: bool = False
    hints: Hints = no_hints

    def as_json(self) -> dict[str, Any]:
        """The stage as plain JSON values."""
        names = ("name", "is_there", "rows", "memory_bytes", "disk_bytes", "is_guessed")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Plan:
    """What an ensemble would take on a split.

    Attributes:
        ensemble: its canonical spec.
        where: the store.
        stages: in their order.
        room: what there is.
    """

    ensemble: str
    where: Path
    stages: Sequence[PlannedStage]
    room: Room

    @property
    def missing(self) -> list[PlannedStage]:
        """Stages that would run."""
        return [stage for stage in self.stages if not stage.is_there]

    @property
    def disk_bytes(self) -> int:
        """Of all missing stages together."""
        return sum(stage.disk_bytes for stage in self.missing)

    @property
    def memory_bytes(self) -> int:
        """Of the missing stage that takes most."""
        return max((stage.memory_bytes for stage in self.missing), default=0)

    @property
    def fits(self) -> bool:
        """Whether all of it fits into the room that there is."""
        memory, disk = self.room.memory_bytes, self.room.disk_bytes
        return (memory is None or self.memory_bytes <= memory) and (disk is None or self.disk_bytes <= disk)

    def require(self) -> None:
        """Refuse what cannot end, before anything starts; what is guessed refuses nothing.

        Raises:
            InputError: memory or disk do not suffice.
        """
        sure = [stage for stage in self.missing if not stage.is_guessed]
        require(*(Needs(one.name, one.memory_bytes, one.disk_bytes, self.where, hints=one.hints) for one in sure))

    def as_json(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        return {
            "ensemble": self.ensemble,
            "store": str(self.where),
            "stages": [stage.as_json() for stage in self.stages],
            "needed": {"memory_bytes": self.memory_bytes, "disk_bytes": self.disk_bytes},
            "available": {"memory_bytes": self.room.memory_bytes, "disk_bytes": self.room.disk_bytes},
            "fits": self.fits,
        }


def plan(pipeline: Pipeline, ensemble: Ensemble | str, *, every_box: bool = True, decimals: int = DECIMALS) -> Plan:
    """Look what an ensemble would take; nothing is run, and nothing is written but the split's truth.

    Args:
        pipeline: over the split.
        ensemble: what would be run.
        every_box: as for `Pipeline.run`.
        decimals: of the box coordinates in the challenge JSON.

    Raises:
        InputError: a model is missing, what was entered is not of these photos or boxes, the store is damaged, or a
            projection asks for more dimensions than there are.
    """
    if isinstance(ensemble, str):
        ensemble = pipeline.parse(ensemble)
    pipeline.members(ensemble)
    dry = DryPipeline(pipeline)
    names = [member.model for member in ensemble.members]
    dimensions = {name: _dimensions(dry, name) for name in names}
    boxes = dry.boxes_if_there(ensemble.boxes)
    rows = None
    if boxes is None:
        num_boxes = round(BOXES_A_PHOTO * len(dry.image_ids))
        num_boxes = min(num_boxes, ensemble.boxes.budget or num_boxes)
        num_queries = round(num_boxes * dry.split.photos.consumer_mask(dry.image_ids).mean()) if num_boxes else 0
        there: set[str] = set()
    else:
        num_boxes = len(boxes.detections)
        num_queries = int(dry.split.photos.consumer_mask(boxes.detections.image_ids).sum())
        there = {name for name in names if dry.has_embeddings(name, boxes)}
        if not every_box and dry.split.items is not None:
            rows = dry.speaking_rows(boxes, decimals)
        if len(there) == len(names):
            dry.look_at_answers(ensemble, boxes, decimals, rows)
    num_asking = num_queries if rows is None else len(rows)
    stages = list(_box_stages(dry, ensemble.boxes, num_boxes))
    stages += _embedding_stages(names, there, dimensions, num_boxes, len(dry.image_ids))
    if any(step.get("fit") == TRAIN for step in ensemble.steps):
        stages += _training_stages(dry, dimensions)
    counts = num_queries, num_boxes - num_queries, num_asking
    stages += _answer_stages(dry, ensemble, list(dimensions.values()), counts)
    known = None if boxes is None else boxes.detections
    json_bytes = estimate_bytes(num_asking, decimals, known)
    stages.append(PlannedStage("write JSON", dry.seen["submission"] > 0, num_asking, 0, json_bytes))
    if boxes is None:
        stages = [replace(stage, is_guessed=not stage.is_there) for stage in stages]
    root = dry.store.root
    return Plan(str(ensemble), root, stages, Room(available_memory(), available_disk(root)))


def _box_stages(dry: DryPipeline, source: BoxSource, num_boxes: int) -> Iterator[PlannedStage]:
    photos = len(dry.image_ids)
    for name in source.detectors:
        size = 2 * _BOX_BYTES * _MOST_BOXES_A_PHOTO * photos  # shards, and the whole
        yield PlannedStage(f"detect {name}", name in dry.there, photos, 0, size)
    if source.fused is not None:
        held = 4 * _BOX_BYTES * num_boxes * len(source.detectors)
        yield PlannedStage(f"fuse {source.name}", dry.seen["fuse"] > 0, photos, held, _BOX_BYTES * num_boxes)


def _embedding_stages(
    names: Sequence[str], there: set[str], dimensions: Mapping[str, int], num_boxes: int, num_photos: int
) -> Iterator[PlannedStage]:
    for name in names:
        if name in there:
            yield PlannedStage(f"embed {name}", True, num_boxes)
    missing = {name: dimensions[name] for name in names if name not in there}
    if missing:
        a_shard = num_boxes * min(1.0, PHOTOS_A_SHARD / max(1, num_photos))
        yield PlannedStage(
            f"embed {','.join(missing)}",
            False,
            num_boxes,
            round(_VALUE_BYTES * a_shard * sum(missing.values())),
            embedding_bytes(missing, num_boxes),
            hints=partial(embedding_hints, missing, num_boxes),
        )


def _training_stages(dry: DryPipeline, dimensions: Mapping[str, int]) -> Iterator[PlannedStage]:
    """Features of training photos, which a projection is fitted on."""
    training = dry.of_training_photos()
    boxes = training.boxes(BoxSource(GROUND_TRUTH))
    there = {name for name in dimensions if training.has_embeddings(name, boxes)}
    for stage in _embedding_stages(list(dimensions), there, dimensions, len(boxes.detections), len(training.image_ids)):
        yield replace(stage, name=f"{stage.name} of training photos")


def _answer_stages(
    dry: DryPipeline, ensemble: Ensemble, widths: list[int], counts: tuple[int, int, int]
) -> Iterator[PlannedStage]:
    """Steps, and the search or the re-ranking."""
    num_queries, num_gallery, num_asking = counts
    reranks = any(step.name == RERANK for step in ensemble.steps)
    taking_part = num_queries if reranks else num_asking
    left, answers = Counter(dry.seen), min(GALLERY_LENGTH, num_gallery)

    def is_there(stages: Mapping[str, int]) -> bool:
        found = all(left[stage] >= count for stage, count in stages.items())
        left.subtract(stages)
        return found

    def searched(asking: int, answering: int) -> int:
        working = working_bytes(asking, answering, widths, max(1, answers), dry.search_options)
        return working + _ANSWER_BYTES * asking * answers

    for step in ensemble.steps:
        if step.name in OF_FEATURES:
            widths, memory = _projected(dry, step, widths, num_queries, num_gallery)
            size = _VALUE_BYTES * (taking_part + num_gallery) * sum(widths)
            found = is_there({"fit-projection": 1, "project": 2})
            yield PlannedStage(str(step), found, taking_part + num_gallery, memory, size)
        elif step.name not in (RERANK, SAME_CATEGORY):
            rows = num_gallery if step.name == "dba" else taking_part
            size = _VALUE_BYTES * rows * sum(widths)
            yield PlannedStage(str(step), is_there({step.name: 1}), rows, searched(rows, num_gallery), size)
    size = _ANSWER_BYTES * num_asking * answers
    last = next((step for step in ensemble.steps if step.name == RERANK), None)
    if last is None:
        yield PlannedStage("search", is_there({"search": 1}), num_asking, searched(num_asking, num_gallery), size)
        return
    rows = num_queries + num_gallery
    k1, k2 = min(int(last["k1"]), rows), min(int(last["k2"]), rows)
    encoding = rows * (_NEIGHBOUR_BYTES * max(k1 + 1, k2) + _ENTRY_BYTES * min(k1 * k2 // 2, rows))
    yield PlannedStage(str(last), is_there({RERANK: 1}), num_asking, searched(rows, rows) + encoding, size)


def _projected(
    dry: DryPipeline, step: Step, widths: Sequence[int], num_queries: int, num_gallery: int
) -> tuple[list[int], int]:
    """Dimensions after a projection, and the memory that has to be free for fitting it.

    Raises:
        InputError: it asks for more components than there are dimensions.
    """
    from harness.ranking.whitening import fit_bytes

    num_rows = num_gallery if step["fit"] == GALLERY else num_queries + num_gallery
    if step["fit"] == TRAIN:
        num_rows = len(dry.of_training_photos().boxes(BoxSource(GROUND_TRUTH)).detections)
    wanted = step.get("dimensions")
    if wanted is not None and int(wanted) > sum(widths):
        raise InputError(f"{step}: there are {sum(widths)} dimensions before it; ask for as many at most")
    most = max(1, min(sum(widths), num_rows - 1))
    dimensions = most if wanted is None else min(int(wanted), most)
    needed, given = fit_bytes(max(2, num_rows), widths, dimensions), dry.search_options.memory_bytes
    return [dimensions], 2 * needed if given is None else needed  # of what is free it takes half


def _dimensions(pipeline: Pipeline, name: str) -> int:
    if name == HISTOGRAM or not pipeline.retriever_card(name).is_entered:
        return pipeline.retriever_to_run(name).dimensions
    from harness.retrieval.entered import read_card

    return read_card(pipeline.retriever_card(name).folder).dimensions
