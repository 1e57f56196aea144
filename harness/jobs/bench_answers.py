"""Timings of the challenge JSON and its score, and of the whole way from photos to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from harness.box_stages import BoxSet
from harness.jobs.bench_settings import Bench
from harness.pipeline import Pipeline
from harness.spec import Ensemble
from harness.timing import Baseline, Measurement
from harness.types import Ranking
from submissions.writer import rows_from_ranking, write_submission


def answer_stages(
    bench: Bench, sample: Pipeline, boxes: BoxSet, ranking: Ranking, folder: Path
) -> Iterator[Measurement]:
    """Writing and scoring the answers of the sample.

    Args:
        bench: takes the measurements.
        sample: over the photos of the sample.
        boxes: that were searched.
        ranking: what was found.
        folder: to write into.
    """
    ours, theirs = folder / "ours.json", folder / "theirs.json"

    def write() -> None:
        write_submission(ours, rows_from_ranking(boxes.detections, ranking))

    if bench.settings.times("write"):
        baseline = Baseline("json.dump", partial(_dump, theirs, boxes, ranking))
        yield bench.time("write JSON", "rows", len(ranking.query_rows), write, baseline=baseline)
    if bench.settings.times("score") and sample.split.items is not None:
        from harness.scoring.official import evaluate_files

        write()
        files = (ours, *sample.truth())
        num_queries = evaluate_files(*files).num_queries
        baseline = Baseline("json.load of the files alone", partial(_load, *files))
        yield bench.time("score", "queries", num_queries, partial(evaluate_files, *files), baseline=baseline)


def end_to_end(
    bench: Bench, sample: Callable[[Path], Pipeline], ensemble: Ensemble, folder: Path, loading: list[Measurement]
) -> tuple[list[Measurement], dict[str, Any]]:
    """Photos to the challenge JSON, and its score where the truth is known, with an empty store and with a full one.

    Libraries are loaded, compiled kernels are there, and the photos may lie in the system's cache. Models are loaded
    anew wherever something is to be made.

    Args:
        bench: takes the measurements.
        sample: makes the pipeline over the sample with a store in a folder.
        ensemble: what is run.
        folder: for the stores; each is in a folder of its own.
        loading: the models' loading, timed apart; empty where that was not asked for.

    Returns:
        The two measurements, and what else is to be told: seconds of every stage of the last cold run, and of loading.
    """
    stores: list[Path] = []

    def begin() -> None:
        stores.append(folder / f"store-{len(stores)}")

    pipelines: list[Pipeline] = []

    def run() -> None:
        pipelines.append(sample(stores[-1]))
        pipelines[-1].run(ensemble)

    num_photos = len(sample(folder / "none").image_ids)
    on_gpu = bench.device if bench.settings.num_devices == 1 else None
    more: dict[str, Any] = {"device": on_gpu, "batch_size": bench.settings.batch_size, "warmup": 0}
    more["precision"] = bench.settings.precision
    note = "photos to the score; models are loaded in it"
    cold = bench.time("end to end, cold store", "photos", num_photos, run, before=begin, note=note, **more)
    stages = [
        {"stage": one.stage, "seconds": one.seconds, "count": one.count, "unit": one.unit}
        for one in pipelines[-1].stopwatch.stages
    ]
    note = "all is read from the store, and scored again"
    warm = bench.time("end to end, warm store", "photos", num_photos, run, note=note, **more)
    seconds = sum(one.median_s for one in loading) if loading else None
    return [cold, warm], {
        "photos": num_photos,
        "cold_s": cold.median_s,
        "warm_s": warm.median_s,
        "model_loading_s": seconds,
        "cold_without_loading_s": None if seconds is None else max(0.0, cold.median_s - seconds),
        "cold_stages": stages,
        "num_devices": bench.settings.num_devices,
    }


def _dump(path: Path, boxes: BoxSet, ranking: Ranking) -> None:
    rows = [
        {
            "query_image_id": row.query_image_id,
            "query_bbox": row.query_bbox.tolist(),
            "query_cls": row.query_cls,
            "query_score": row.query_score,
            "gallery_image_id": row.gallery_image_id.tolist(),
            "gallery_bbox": row.gallery_bbox.tolist(),
        }
        for row in rows_from_ranking(boxes.detections, ranking)
    ]
    with path.open("w") as file:
        json.dump(rows, file)


def _load(*paths: Path) -> None:
    for path in paths:
        json.loads(path.read_bytes())
