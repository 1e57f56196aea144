"""The whole job on rendered data, on a CPU, in minutes: render, train, fuse, embed, search, score, compare.

Nothing is chosen by looking at the validation photos: models train on the train split without a
held-out part of its pairs, and the fusion settings are fitted on that part.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.jobs.boxes import box_ap_of
from harness.jobs.fusion_lab import fit_fusion
from harness.jobs.results import score
from harness.pipeline import HISTOGRAM, Pipeline, Scored
from harness.progress import Reporter
from harness.spec import GROUND_TRUTH, PAPER_DETECTORS, BoxSource, Ensemble, Member
from harness.timing import MemoryWatch, Stopwatch
from harness.training.fitting import write_progress
from harness.training.pairs import held_out_pairs
from harness.types import BoxAP, Ints, Score, Split, SplitName
from harness.workers import Job, side_by_side
from harness.workplace import ModelKind, Workplace

if TYPE_CHECKING:
    from leaderboard.rows import Row

ENSEMBLE = "ensemble"
"""The key of all models together in the results."""


FIT_BOXES_PER_PHOTO = 8
"""Of each detector, as many boxes a photo take part in the search for the fusion's settings."""


@dataclass(frozen=True)
class QuickstartSettings:
    """What the quickstart does; the defaults are the documented run.

    Attributes:
        seed: of data, weights and data order.
        retrievers: the models it trains, at ``tiny`` scale.
        num_train, num_validation, num_test: photos to render.
        detector_steps, retriever_steps: optimiser steps; None for the recipes'.
        fusion_trials: of the study that fits each ``WBF_n``.
        boxes_per_photo: the most boxes that fusion leaves of a photo.
        num_workers: single-thread processes side by side.
    """

    seed: int = 0
    retrievers: tuple[str, ...] = ("m4", "m9", "m12", "m17")
    num_train: int | None = None
    num_validation: int | None = None
    num_test: int | None = None
    detector_steps: int | None = None
    retriever_steps: int | None = None
    fusion_trials: int = 30
    boxes_per_photo: int = 10
    num_workers: int = 2


@dataclass
class QuickstartResult:
    """What the run measured; every figure comes from this run or from the store that it filled.

    Attributes:
        data: the rendered data set.
        num_queries, num_gallery: of its validation split.
        chance: Acc@10 of a random ranking of the ground-truth gallery boxes.
        histogram: the untrained colour histogram on ground-truth boxes.
        box_ap: detector or ``WBF_n`` -> box AP on validation.
        num_boxes: detector or ``WBF_n`` -> boxes found on validation.
        on_truth, on_fused: model or ``ensemble`` -> score with ground-truth and with ``WBF_5`` boxes.
        training_seconds: model -> seconds of one thread.
        ensemble: all models together on ``WBF_5`` boxes.
        ensemble_row: their row of the leaderboard.
        stopwatch: stages of this process.
        seconds: wall-clock time of the run.
        peak_gib: resident memory of all processes together, at most.
    """

    data: Path
    num_queries: int = 0
    num_gallery: int = 0
    chance: float = 0.0
    histogram: Score | None = None
    box_ap: dict[str, BoxAP] = field(default_factory=dict)
    num_boxes: dict[str, int] = field(default_factory=dict)
    on_truth: dict[str, Score] = field(default_factory=dict)
    on_fused: dict[str, Score] = field(default_factory=dict)
    training_seconds: dict[str, float] = field(default_factory=dict)
    ensemble: Scored | None = None
    ensemble_row: Row | None = None
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    seconds: float = 0.0
    peak_gib: float = 0.0


def quickstart(work: Workplace, settings: QuickstartSettings, report: Reporter) -> QuickstartResult:
    """Run the whole job; started again after an interruption, it goes on where it was.

    Args:
        work: where data, models and results go.
        settings: what to do.
        report: where progress is shown.
    """
    began = time.perf_counter()
    data = work.root / "data"
    result = QuickstartResult(data)
    watch = result.stopwatch
    with MemoryWatch() as memory:
        _render(data, settings, report, watch)
        from harness.data.deepfashion2 import read_split

        train, validation = read_split(data, "train"), read_split(data, "validation")
        training_ids, held_ids = held_out_pairs(train)
        with watch.stage("train", "models") as clock:
            jobs = _training_jobs(work, data, training_ids, settings)
            result.training_seconds = side_by_side(jobs, settings.num_workers, report)
            clock.count = len(jobs)
        _detect_side_by_side(work, train, held_ids, validation, settings, report, watch)
        held = Pipeline(work, train, image_ids=held_ids, report=report, stopwatch=watch)
        with watch.stage("fit fusion", "trials") as clock:
            fitted = fit_fusion(
                held,
                num_trials=settings.fusion_trials,
                seed=settings.seed,
                boxes_per_photo=FIT_BOXES_PER_PHOTO,
                max_per_image=settings.boxes_per_photo,
            )
            clock.count = settings.fusion_trials * len(fitted)
        pipeline = Pipeline(work, validation, report=report, stopwatch=watch)
        _measure_boxes(pipeline, result)
        _measure_retrieval(pipeline, settings, result)
    result.peak_gib = memory.peak_gib
    result.seconds = time.perf_counter() - began
    return result


def train_job(
    kind: ModelKind, name: str, data: Path, image_ids: Ints, out_dir: Path, seed: int, num_steps: int | None
) -> float:
    """Train a model at ``tiny`` scale in a worker, on DeepFashion2's train split alone; returns its card's seconds."""
    from harness.data.deepfashion2 import read_split

    split = read_split(data, "train")
    if kind == "detector":
        from harness.detection.recipes import recipe_named
        from harness.detection.training import train as train_detector

        recipe = recipe_named(name)
        return train_detector(recipe, "tiny", split, image_ids, out_dir, seed=seed, num_steps=num_steps).seconds
    from harness.data.garments import garments_of
    from harness.retrieval.recipes import load_recipes
    from harness.retrieval.training import train as train_retriever

    return train_retriever(
        name,
        load_recipes()[name],
        "tiny",
        [garments_of(split, image_ids)],
        out_dir,
        seed=seed,
        num_steps=num_steps,
        deepfashion2_only=True,
    ).seconds


def detect_job(work: Workplace, data: Path, split: SplitName, image_ids: Ints, name: str, watch: Path) -> None:
    """Run one detector over photos of a split in a worker; the boxes go to the store."""
    from harness.data.deepfashion2 import read_split

    began = time.perf_counter()

    def tell(done: int, total: int) -> None:
        watch.mkdir(parents=True, exist_ok=True)
        write_progress(watch, done, total, done / max(time.perf_counter() - began, 1e-9))

    Pipeline(work, read_split(data, split), image_ids=image_ids, report=lambda _: tell).detections(name)


def _render(data: Path, settings: QuickstartSettings, report: Reporter, watch: Stopwatch) -> None:
    from harness.data.rendered import RenderSettings, render

    sizes = {
        name: getattr(settings, name)
        for name in ("num_train", "num_validation", "num_test")
        if getattr(settings, name) is not None
    }
    with watch.stage("render", "photos") as clock:
        wanted = RenderSettings(seed=settings.seed, **sizes)
        clock.count = wanted.num_train + wanted.num_validation + wanted.num_test
        render(data, wanted, workers=settings.num_workers, progress=report("render photos"))


def _training_jobs(work: Workplace, data: Path, image_ids: Ints, settings: QuickstartSettings) -> list[Job]:
    jobs = []
    plans: list[tuple[ModelKind, str, int | None]] = [
        *(("detector", name, settings.detector_steps) for name in PAPER_DETECTORS),
        *(("retriever", name, settings.retriever_steps) for name in settings.retrievers),
    ]
    # Two workers take the jobs in this order: retrieval models first beside the first detector, which trains the
    # backbone that the other detectors wait for; then the longest first.
    first = ("ATSS", *settings.retrievers[:2], "CascadeMaskRCNN")
    plans.sort(key=lambda plan: first.index(plan[1]) if plan[1] in first else len(first))
    for kind, name, num_steps in plans:
        folder = work.model_folder(kind, name)
        arguments = {
            "kind": kind,
            "name": name,
            "data": data,
            "image_ids": image_ids,
            "out_dir": folder,
            "seed": settings.seed,
            "num_steps": num_steps,
        }
        jobs.append(Job(f"train {name}", train_job, arguments, folder))
    return jobs


def _detect_side_by_side(
    work: Workplace,
    train: Split,
    held_ids: Ints,
    validation: Split,
    settings: QuickstartSettings,
    report: Reporter,
    watch: Stopwatch,
) -> None:
    with watch.stage("detect", "photos") as clock:
        jobs = []
        for split, image_ids in ((train, held_ids), (validation, validation.photos.image_ids)):
            for name in PAPER_DETECTORS:
                folder = work.root / "progress" / split.name / name
                arguments = {
                    "work": work,
                    "data": split.root,
                    "split": split.name,
                    "image_ids": image_ids,
                    "name": name,
                }
                jobs.append(Job(f"detect {name} ({split.name})", detect_job, arguments | {"watch": folder}, folder))
        side_by_side(jobs, settings.num_workers, report)
        clock.count = (len(held_ids) + len(validation.photos)) * len(PAPER_DETECTORS)


def _measure_boxes(pipeline: Pipeline, result: QuickstartResult) -> None:
    sources = [*PAPER_DETECTORS, *(f"WBF_{n}" for n in range(1, len(PAPER_DETECTORS) + 1))]
    for name in sources:
        ap = box_ap_of(pipeline, BoxSource(name))
        assert ap is not None, "a rendered validation split has annotations"
        result.box_ap[name] = ap
        result.num_boxes[name] = len(pipeline.boxes(BoxSource(name)).detections)


def _measure_retrieval(pipeline: Pipeline, settings: QuickstartSettings, result: QuickstartResult) -> None:
    from harness.scoring.significance import chance
    from harness.scoring.truth import Gallery, Queries

    query_file, gallery_file = pipeline.truth()
    queries, gallery = Queries.from_json(query_file), Gallery.from_json(gallery_file)
    result.num_queries, result.num_gallery = len(queries.asked_rows), len(gallery)
    result.chance = chance(queries, gallery)
    result.histogram = score(pipeline, f"{HISTOGRAM} + {GROUND_TRUTH}")[1].score
    members = tuple(Member(name) for name in settings.retrievers)
    for source, scores in (
        (BoxSource(GROUND_TRUTH), result.on_truth),
        (BoxSource(f"WBF_{len(PAPER_DETECTORS)}"), result.on_fused),
    ):
        pipeline.embeddings(settings.retrievers, pipeline.boxes(source))  # all models in one pass over the photos
        for name, chosen in [*((member.model, (member,)) for member in members), (ENSEMBLE, members)]:
            scored, row = score(pipeline, Ensemble(chosen, source), every_box=True)
            scores[name] = row.score
            result.ensemble, result.ensemble_row = scored, row
