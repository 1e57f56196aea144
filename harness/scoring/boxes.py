"""COCO average precision of boxes: the one door to faster-coco-eval and pycocotools.

faster-coco-eval gives pycocotools' figures several times faster; tests/benchmarks/test_boxes.py measures both.
"""

from __future__ import annotations

import contextlib
import gc
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from harness.scoring.matching import average_precision
from harness.types import CATEGORIES, BoxAP, Detections, Ints, Items

MAX_DETECTIONS = 100
"""Boxes of one photo and category that count, best first, as COCO has it."""

Engine = Literal["faster", "pycocotools"]

_AREAS_PX: Mapping[str, tuple[float, float]] = {
    "all": (0, 1e5**2),
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, 1e5**2),
}


def box_ap(truth: Items, detections: Detections, image_ids: Ints | None = None, engine: Engine = "faster") -> BoxAP:
    """The six box averages of COCO over the 13 categories; the area of an item is width times height of its box.

    Args:
        truth: annotated items of the photos.
        detections: boxes of the same photos, any number a photo.
        image_ids: (P,) int64, the photos to evaluate; without it every photo that has an item or a detection. Boxes of
            other photos are left out.
        engine: ``pycocotools`` is the slower reference.

    Returns:
        Averages in [0, 1]; None where no item of that size exists.

    Source: T.-Y. Lin et al. 2014, COCO; IoU 0.50 to 0.95 in steps of 0.05, at most 100 boxes a photo and category.
    """
    return _summary(_precision(truth, detections, image_ids, engine), slice(None))


def box_ap_by_category(
    truth: Items, detections: Detections, image_ids: Ints | None = None, engine: Engine = "faster"
) -> tuple[BoxAP, dict[int, BoxAP]]:
    """What `box_ap` and `per_category` say, from one evaluation. Arguments as for `box_ap`."""
    precision = _precision(truth, detections, image_ids, engine)
    return _summary(precision, slice(None)), _by_category(precision)


def per_category(
    truth: Items, detections: Detections, image_ids: Ints | None = None, engine: Engine = "faster"
) -> dict[int, BoxAP]:
    """The averages of each category 1–13 alone; arguments as for `box_ap`.

    Returns:
        For every category id its averages; None where the category has no item of that size.
    """
    return _by_category(_precision(truth, detections, image_ids, engine))


def ap50(truth: Items, detections: Detections, image_ids: Ints | None = None) -> float:
    """AP at IoU 0.50 alone, for searches that ask often: it makes no object of a box. Arguments as for `box_ap`.

    Returns:
        The same number as ``box_ap(...).ap50``, to rounding.

    Raises:
        ValueError: there is no item, so the average does not exist.
    """
    if image_ids is not None:
        truth = truth.take(np.isin(truth.image_ids, image_ids))
        detections = detections.take(np.isin(detections.image_ids, image_ids))
    value = average_precision(truth, detections, 0.5, MAX_DETECTIONS)
    if value is None:
        raise ValueError("there is no annotated item in these photos, so AP50 does not exist")
    return value


def _precision(
    truth: Items,
    detections: Detections,
    image_ids: Ints | None,
    engine: Engine,
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(IoU thresholds, recall steps, categories, areas) precision; -1 where there is no item."""
    photos = np.union1d(truth.image_ids, detections.image_ids) if image_ids is None else np.unique(image_ids)
    truth = truth.take(np.isin(truth.image_ids, photos))
    detections = detections.take(np.isin(detections.image_ids, photos))
    if len(truth) == 0:
        return np.full((10, 101, len(CATEGORIES), len(_AREAS_PX)), -1.0)
    if engine == "pycocotools":
        return _evaluate(engine, photos, range(1, len(CATEGORIES) + 1), truth, detections)
    # No box of one category meets one of another, so each is evaluated alone, on just its own photos: 590,000 boxes
    # take 0.3 GB instead of 1.4 that way, and a third less time, because fresh memory costs time too.
    precision = np.full((10, 101, len(CATEGORIES), len(_AREAS_PX)), -1.0)
    for category in np.unique(truth.category_ids).tolist():
        items = truth.take(truth.category_ids == category)
        boxes = detections.take(detections.category_ids == category)
        photos = np.union1d(items.image_ids, boxes.image_ids)
        precision[:, :, category - 1] = _evaluate(engine, photos, [category], items, boxes)[:, :, 0]
    return precision


def _evaluate(
    engine: Engine, photos: Ints, categories: Sequence[int], truth: Items, detections: Detections
) -> np.ndarray[Any, np.dtype[np.float64]]:
    with _quietly(engine):
        evaluation = _evaluation(engine, photos, categories, truth, detections)
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.params.areaRng = [list(limits) for limits in _AREAS_PX.values()]
        evaluation.params.areaRngLbl = list(_AREAS_PX)
        evaluation.evaluate()
        evaluation.accumulate()
    precision: np.ndarray[Any, np.dtype[np.float64]] = np.asarray(evaluation.eval["precision"])[..., 0]
    return precision


def _annotations(boxes: Detections) -> list[dict[str, Any]]:
    """COCO annotations; ids start at 1, because 0 marks an unmatched box in both engines."""
    width_height = boxes.boxes_xyxy[:, 2:] - boxes.boxes_xyxy[:, :2]
    boxes_xywh = np.concatenate([boxes.boxes_xyxy[:, :2], width_height], axis=1)
    columns = (boxes.image_ids, boxes.category_ids, boxes.scores, boxes_xywh, width_height.prod(axis=1))
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        {"id": id_, "image_id": image_id, "category_id": category_id, "score": score, "bbox": bbox, "area": area}
        for id_, (image_id, category_id, score, bbox, area) in enumerate(rows, 1)
    ]


def _evaluation(engine: Engine, photos: Ints, categories: Sequence[int], truth: Items, detections: Detections) -> Any:
    items = _annotations(truth.as_detections())
    for item in items:
        item["iscrowd"] = 0
    frame = {
        "info": {},
        "images": [{"id": photo} for photo in photos.tolist()],
        "categories": [{"id": category} for category in categories],
    }
    documents = {**frame, "annotations": items}, {**frame, "annotations": _annotations(detections)}
    if engine == "faster":
        from faster_coco_eval import COCO as FasterCOCO
        from faster_coco_eval import COCOeval_faster

        class Chosen(FasterCOCO):  # type: ignore[misc]
            """Boxes of just the photos and categories that are evaluated, so there is nothing to search for: the
            index and two searches in it took a sixth of the time."""

            def createIndex(self) -> None:
                self.imgs = {image["id"]: image for image in self.dataset["images"]}
                self.cats = {category["id"]: category for category in self.dataset["categories"]}

            def getAnnIds(self, *_: Any, **__: Any) -> None:
                pass

            def loadAnns(self, *_: Any, **__: Any) -> list[dict[str, Any]]:
                annotations: list[dict[str, Any]] = self.dataset["annotations"]
                return annotations

        return COCOeval_faster(*map(Chosen, documents), iouType="bbox", print_function=_no_message)
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    sides = COCO(), COCO()
    for side, document in zip(sides, documents, strict=True):
        side.dataset = document
        side.createIndex()
    return COCOeval(*sides, iouType="bbox")


def _no_message(*_: Any) -> None:
    """Takes the place of the engine's own messages."""


@contextmanager
def _quietly(engine: Engine) -> Iterator[None]:
    """Without garbage collection, which would walk over the millions of new objects again and again (a quarter of the
    time), and without what pycocotools prints: standard output belongs to the command line."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        with contextlib.redirect_stdout(io.StringIO()) if engine == "pycocotools" else contextlib.nullcontext():
            yield
    finally:
        if enabled:
            gc.enable()


def _by_category(precision: np.ndarray[Any, np.dtype[np.float64]]) -> dict[int, BoxAP]:
    return {category: _summary(precision, slice(category - 1, category)) for category in range(1, len(CATEGORIES) + 1)}


def _summary(precision: np.ndarray[Any, np.dtype[np.float64]], categories: slice) -> BoxAP:
    chosen = precision[:, :, categories]
    return BoxAP(
        ap=_mean(chosen[..., 0]),
        ap50=_mean(chosen[0, ..., 0]),
        ap75=_mean(chosen[5, ..., 0]),
        ap_small=_mean(chosen[..., 1]),
        ap_medium=_mean(chosen[..., 2]),
        ap_large=_mean(chosen[..., 3]),
    )


def _mean(precision: np.ndarray[Any, np.dtype[np.float64]]) -> float | None:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None
