"""What `run.py bench` does: the stages of an ensemble timed on a sample of photos, each beside its baseline."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.jobs.bench_answers import answer_stages, end_to_end
from harness.jobs.bench_photos import photo_stages
from harness.jobs.bench_ranking import ranking_stages, searched
from harness.jobs.bench_settings import STAGES, Bench, BenchResult, BenchSettings
from harness.pipeline import Pipeline
from harness.progress import Reporter, silent
from harness.ranking.search import SearchOptions
from harness.shards import Resources
from harness.spec import Ensemble
from harness.timing import Measurement
from harness.types import InputError, Ints, Items, Split
from harness.workplace import Workplace

if TYPE_CHECKING:
    from leaderboard.store import Board


def bench(work: Workplace, split: Split, spec: str, settings: BenchSettings, report: Reporter = silent) -> BenchResult:
    """Time the stages of an ensemble on a sample of a split; nothing is written into the working folder.

    Args:
        work: where the models are; features of the whole split are taken from its store where it has them.
        split: the photos, with or without annotations.
        spec: the ensemble.
        settings: what is timed, and how.
        report: where progress is shown.

    Raises:
        InputError: a model is not trained here, the sample has no garment to ask for or none to find, or there is no
            such device.
    """
    import torch

    from harness.provenance import code_version, hardware

    load = load_per_core()
    device = device_of(settings.device)
    whole = _pipeline(work, split, settings, device, None)
    ensemble = whole.parse(spec)
    members = whole.members(ensemble)
    absent = [card.name for card in members if not card.has_answers(split.fingerprint)]
    if absent:
        raise InputError(f"{absent[0]}: was made elsewhere, and not for these photos, so there is nothing to time")
    some = part_of(split, sample_of(split, settings.num_photos))
    stages: list[Measurement] = []
    told: dict[str, Any] | None = None
    advance = report("bench")

    def add(found: Measurement) -> None:
        stages.append(found)
        advance(len(stages), num_stages)

    num_stages = _expected(settings, ensemble)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        sample_in = partial(_pipeline, work, some, settings, device)
        sample = sample_in(folder / "first")
        boxes = sample.boxes(ensemble.boxes)
        found = searched(sample, ensemble, boxes, whole, settings.num_queries)
        first = sample.run(ensemble)  # what is compiled and loaded only once is no part of any timing
        taking = Bench(settings, device, split.rendered)
        for one in photo_stages(taking, sample, ensemble, boxes):
            add(one)
        for one in ranking_stages(taking, found, ensemble.steps):
            add(one)
        for one in answer_stages(taking, sample, boxes, first.ranking, folder):
            add(one)
        if settings.times("end-to-end"):
            loading = [one for one in stages if one.stage.startswith("load ")]
            both, told = end_to_end(taking, sample_in, ensemble, folder, loading)
            for one in both:
                add(one)
    if not stages:
        raise InputError(
            f"{ensemble}: has none of the stages {', '.join(settings.stages)}; there are {', '.join(STAGES)}"
        )
    return BenchResult(
        spec=str(ensemble),
        split=split.name,
        fingerprint=split.fingerprint,
        rendered=split.rendered,
        num_photos=len(some.photos),
        device=device,
        stages=tuple(sorted(stages, key=_in_order)),
        hardware=hardware(),
        code_version=code_version(),
        end_to_end=told,
        sizes=found.size,
        load_per_core=load,
        num_threads=torch.get_num_threads(),
    )


def load_per_core() -> float | None:
    """Processes that wanted each core of the machine, on average over the last minute; None where nobody tells."""
    try:
        return round(os.getloadavg()[0] / (os.cpu_count() or 1), 2)
    except OSError:
        return None


def device_of(name: str | None) -> str:
    """The device that is meant: torch's name of it, the GPU where there is one and nothing was said.

    Raises:
        InputError: there is no such device here.
    """
    import torch

    if name is None:
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 0
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise InputError(f"--device {name}: expected cpu, cuda or cuda:0")
    if kind == "cuda" and int(number or 0) >= count:
        raise InputError(f"--device {name}: this machine has {count} GPUs that torch can use")
    return "cpu" if kind == "cpu" else f"cuda:{int(number or 0)}"


def sample_of(split: Split, num_photos: int) -> Ints:
    """Ids of some photos, drawn by seed 0, ascending: pairs of a consumer and a shop photo of one garment as far as
    annotations tell of such, then any, half of them consumer photos as far as there are.

    Raises:
        InputError: the split has no consumer photo, or no shop photo.
    """
    rng = np.random.default_rng(0)
    photos = split.photos
    kinds = [photos.image_ids[photos.is_consumer], photos.image_ids[~photos.is_consumer]]
    for what, ids in zip(("consumer", "shop"), kinds, strict=True):
        if not len(ids):
            raise InputError(f"{split.root / split.name}: has no {what} photo, so there is nothing to retrieve")
    chosen = _pairs(split.items, num_photos, rng) if split.items is not None else []
    taken = list(dict.fromkeys(chosen))[: num_photos - num_photos % 2]
    rest = [rng.permutation(np.setdiff1d(ids, taken)).tolist() for ids in kinds]
    while len(taken) < num_photos and any(rest):
        taken += [ids.pop() for ids in rest if ids][: num_photos - len(taken)]
    return np.sort(np.array(taken, np.int64))


def _pairs(items: Items, num_photos: int, rng: np.random.Generator) -> list[int]:
    """A consumer and a shop photo each of garments that are on both, as many as are wanted or fewer."""
    garments = np.stack([items.pair_ids, items.styles], axis=1)
    known = np.flatnonzero(items.styles > 0)
    _, codes = np.unique(garments[known], axis=0, return_inverse=True)
    codes, is_consumer = codes.reshape(-1), items.is_consumer[known]
    both = np.intersect1d(codes[is_consumer], codes[~is_consumer])
    found: list[int] = []
    for code in rng.permutation(both)[:num_photos].tolist():
        for of_kind in (is_consumer, ~is_consumer):
            found.append(int(rng.choice(items.image_ids[known[(codes == code) & of_kind]])))
    return found


def part_of(split: Split, image_ids: Ints) -> Split:
    """A split of some of its photos alone, with their annotations; it keeps the name and the fingerprint."""
    photos = split.photos.take(np.isin(split.photos.image_ids, image_ids))
    items = None if split.items is None else split.items.take(np.isin(split.items.image_ids, image_ids))
    return replace(split, photos=photos, items=items)


def _pipeline(work: Workplace, split: Split, settings: BenchSettings, device: str, store: Path | None) -> Pipeline:
    """The stages as they are timed; with a store of their own, or with that of the working folder."""
    from harness.artifacts import Store

    resources = Resources(
        batch_size=settings.batch_size,
        num_devices=settings.num_devices,
        device=device if settings.num_devices == 1 else None,
    )
    pipeline = Pipeline(
        work,
        split,
        resources=resources,
        search_options=SearchOptions(devices=(device,)),
        store=None if store is None else Store(store),
    )
    if settings.precision is not None:
        pipeline.inference, pipeline.looks = _in_precision(pipeline, settings.precision)
    return pipeline


def _in_precision(pipeline: Pipeline, precision: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """How detectors and retrievers look, as it is kept but for the precision."""
    changed = {"precision": precision}
    detectors = {
        name: pipeline.inference_settings(name).model_copy(update=changed)
        for name in pipeline.work.trained("detector")
        if not pipeline.work.model_card("detector", name).is_entered
    }
    retrievers = {
        name: pipeline.embedding_settings(name).model_copy(update=changed)
        for name in pipeline.work.trained("retriever")
        if not pipeline.retriever_card(name).is_entered
    }
    return detectors, retrievers


def _expected(settings: BenchSettings, ensemble: Ensemble) -> int:
    """About how many measurements there will be, for a bar."""
    counts = dict.fromkeys(STAGES, 1) | {
        "load": len(ensemble.boxes.detectors) + len(ensemble.members),
        "detect": len(ensemble.boxes.detectors),
        "embed": len(ensemble.members),
        "steps": len(ensemble.steps) + 1,
        "end-to-end": 2,
    }
    return sum(count for stage, count in counts.items() if settings.times(stage))


_FIRST_WORDS = ("load", "decode", "detect", "fuse", "crop", "embed")


def _in_order(one: Measurement) -> int:
    """Loading first, then the order of the flow; equals stay as they came."""
    word = one.stage.split()[0]
    return _FIRST_WORDS.index(word) if word in _FIRST_WORDS else len(_FIRST_WORDS)


def board_of(work: Workplace) -> Board | None:
    """The working folder's board, opened before anything is timed for minutes; None where there is none yet.

    Raises:
        InputError: the file is no board.
    """
    from leaderboard.store import Board

    return Board(work.board, create=False) if work.has_board else None


def attach(board: Board | None, result: BenchResult) -> BenchResult:
    """Keep a result with the latest row of its ensemble on the same data, if there is one.

    Args:
        board: of `board_of`; it is closed.
        result: what was measured.

    Returns:
        The result, with the row that carries it.
    """
    from leaderboard.timing_runs import TimingRun

    if board is None:
        return result
    try:
        rows = [
            row for row in board.rows(split=result.split, fingerprint=result.fingerprint) if row.spec == result.spec
        ]
        if not rows:
            return result
        latest = max(rows, key=lambda row: row.created)
        kept = replace(result, row_id=latest.id)
        board.add_timing(TimingRun(latest.id, kept.as_json()))
        return kept
    finally:
        board.close()
