"""Timings of the stages from photos to embeddings, each beside its baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.box_stages import BoxSet
from harness.jobs.bench_settings import Bench, every
from harness.pipeline import HISTOGRAM, Pipeline
from harness.spec import Ensemble
from harness.timing import Baseline, Measurement
from harness.types import Detections

if TYPE_CHECKING:
    from harness.detection.inference import Detector
    from harness.retrieval.embedding import Embedder, Retriever

MOST_CROPS = 256
"""Crops that networks are timed with: four of their batches."""

Photo = NDArray[np.uint8]


def photo_stages(bench: Bench, sample: Pipeline, ensemble: Ensemble, boxes: BoxSet) -> Iterator[Measurement]:
    """Loading, decoding, detection, fusion, cropping and embedding.

    Args:
        bench: takes the measurements.
        sample: over the photos of the sample, all of whose results are in its store.
        ensemble: whose stages these are.
        boxes: its boxes of the sample.
    """
    paths = [sample.split.photo_path(image_id) for image_id in sample.image_ids.tolist()]
    if bench.settings.times("decode"):
        yield _decode(bench, paths)
    yield from _detect(bench, sample, ensemble, paths)
    if bench.settings.times("fuse") and ensemble.boxes.fused is not None:
        yield _fuse(bench, sample, ensemble)
    yield from _embed(bench, sample, ensemble, boxes.detections)


def _decode(bench: Bench, paths: Sequence[Path]) -> Measurement:
    from harness.data.photos import decode_rgb

    def ours() -> None:
        for path in paths:
            decode_rgb(path)

    def by_pillow() -> None:
        from PIL import Image

        for path in paths:
            with Image.open(path) as photo:
                np.asarray(photo.convert("RGB"))

    baseline = Baseline("Pillow", by_pillow)
    return bench.time("decode", "photos", len(paths), ours, baseline=baseline, note="one thread")


def _detect(bench: Bench, sample: Pipeline, ensemble: Ensemble, paths: Sequence[Path]) -> Iterator[Measurement]:
    from harness.data.photos import decode_rgb
    from harness.detection.inference import Detector

    wanted = [name for name in ensemble.boxes.detectors if not sample.work.model_card("detector", name).is_entered]
    if not wanted or not (bench.settings.times("detect") or bench.settings.times("load")):
        return
    photos = [decode_rgb(path) for path in paths]
    for name in wanted:
        folder = sample.work.model_card("detector", name).folder
        load = partial(Detector.load, folder, bench.device, sample.inference_settings(name))
        if bench.settings.times("load"):
            yield bench.time(f"load {name}", "models", 1, load, device=bench.device)
        if not bench.settings.times("detect"):
            continue
        detector = load()
        size = bench.settings.batch_size or detector.card.recipe.detect_batch_size
        yield bench.time(
            f"detect {name}",
            "photos",
            len(photos),
            partial(_look, detector, photos, size),
            baseline=Baseline("a photo at a time", partial(_look, detector, photos, 1)),
            device=bench.device,
            batch_size=size,
            precision=detector.settings.precision,
            note="fitting, network and post-processing; photos are decoded",
        )


def _look(detector: Detector, photos: Sequence[Photo], size: int) -> None:
    # `predict` looks at photos of one canvas together, so photos are put in order of their shape first.
    ordered = sorted(photos, key=lambda photo: photo.shape[1] / photo.shape[0])
    for start in range(0, len(ordered), size):
        detector.predict(ordered[start : start + size])


def _fuse(bench: Bench, sample: Pipeline, ensemble: Ensemble) -> Measurement:
    from harness.detection.fusion import fuse
    from harness.detection.fusion_baseline import fuse_by_ensemble_boxes, photo_lists

    source = ensemble.boxes
    parts = [one.detections for one in sample.detections_of(source.detectors).values()]
    settings, sizes = sample.fusion_settings(source), sample.photo_sizes()
    baseline = None
    if settings.method == "wbf" and any(len(part) for part in parts):
        lists = photo_lists(parts, sizes)
        baseline = Baseline("ensemble-boxes", partial(fuse_by_ensemble_boxes, lists, settings))
    return bench.time(
        f"fuse {source.name}",
        "photos",
        len(sizes),
        partial(fuse, parts, sizes, settings),
        baseline=baseline,
        note=f"{sum(map(len, parts)):,} boxes of {len(parts)} detectors",
    )


def _embed(bench: Bench, sample: Pipeline, ensemble: Ensemble, boxes: Detections) -> Iterator[Measurement]:
    cards = [sample.retriever_card(member.model) for member in ensemble.members]
    names = [card.name for card in cards if not card.is_entered]
    asked = [stage for stage in ("load", "crop", "embed") if bench.settings.times(stage)]
    if not names or not asked:
        return
    models: dict[str, Embedder] = {}
    for name in names:
        load = partial(sample.retriever_to_run(name).load, bench.device)
        if bench.settings.times("load") and name != HISTOGRAM:
            yield bench.time(f"load {name}", "models", 1, load, device=bench.device)
        models[name] = load()
    if asked == ["load"]:
        return
    some = boxes.take(np.array(every(len(boxes), MOST_CROPS), np.int64))
    photos = _decoded(sample, some)
    sizes = dict.fromkeys((model.input_wh, model.margin) for model in models.values())
    cut = {size: _crops(photos, some, *size) for size in sizes}
    if bench.settings.times("crop"):
        for (width, height), margin in sizes:
            ours = partial(_crops, photos, some, (width, height), margin)
            baseline = Baseline("Pillow, bilinear", partial(_crops_by_pillow, photos, some, (width, height), margin))
            name = f"crop to {width} x {height}" + (f", margin {margin:g}" if margin else "")
            yield bench.time(name, "crops", len(some), ours, baseline=baseline, note="one thread; photos are decoded")
    if bench.settings.times("embed"):
        for name, model in models.items():
            yield _embed_by(bench, sample, name, model, cut[model.input_wh, model.margin])


def _embed_by(bench: Bench, sample: Pipeline, name: str, model: Embedder, crops: Photo) -> Measurement:
    from harness.retrieval.embedding import CHUNK, Retriever

    more: dict[str, Any] = {"note": f"{model.dimensions} dimensions"}
    if isinstance(model, Retriever):
        precision = sample.embedding_settings(name).precision
        more |= {"device": bench.device, "batch_size": CHUNK, "precision": precision}
        more |= _beside(model, precision, crops)
    return bench.time(f"embed {name}", "crops", len(crops), partial(model.embed, crops), **more)


def _beside(model: Retriever, precision: Any, crops: Photo) -> dict[str, Any]:
    """Where less than single precision is asked for, single precision; else a crop at a time."""
    if precision == "32":
        few = crops[:64]
        return {"baseline": Baseline("a crop at a time", partial(model.embed_one_by_one, few), count=len(few))}
    as_asked, in_single = partial(model.compute_in, precision), partial(model.compute_in, "32")
    return {"baseline": Baseline("in 32 bits", partial(model.embed, crops), before=in_single), "before": as_asked}


def _decoded(sample: Pipeline, boxes: Detections) -> dict[int, Photo]:
    from harness.data.photos import decode_rgb

    return {image_id: decode_rgb(sample.split.photo_path(image_id)) for image_id in np.unique(boxes.image_ids).tolist()}


def _crops(photos: dict[int, Photo], boxes: Detections, size_wh: tuple[int, int], margin: float) -> Photo:
    from harness.data.crops import crop

    places = zip(boxes.image_ids.tolist(), boxes.boxes_xyxy, strict=True)
    return np.stack([crop(photos[image_id], box, size_wh, margin) for image_id, box in places])


def _crops_by_pillow(photos: dict[int, Photo], boxes: Detections, size_wh: tuple[int, int], margin: float) -> Photo:
    from PIL import Image

    from harness.data.crops import window

    found = []
    for image_id, box in zip(boxes.image_ids.tolist(), boxes.boxes_xyxy, strict=True):
        photo = photos[image_id]
        part = Image.fromarray(photo).crop(window(box, (photo.shape[1], photo.shape[0]), margin))
        found.append(np.asarray(part.resize(size_wh, Image.Resampling.BILINEAR)))
    return np.stack(found)
