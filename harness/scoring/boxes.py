"""COCO average precision of boxes: the one door to faster-coco-eval and pycocotools.

faster-coco-eval gives pycocotools' figures 3.6 times faster (108k boxes: 3.0 s against 10.9 s).
"""

from __future__ import annotations

from collections.abc import Mapping
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


def per_category(
    truth: Items, detections: Detections, image_ids: Ints | None = None, engine: Engine = "faster"
) -> dict[int, BoxAP]:
    """The averages of each category 1–13 alone; arguments as for `box_ap`.

    Returns:
        For every category id its averages; None where the category has no item of that size.
    """
    precision = _precision(truth, detections, image_ids, engine)
    return {category: _summary(precision, slice(category - 1, category)) for category in range(1, len(CATEGORIES) + 1)}


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
    annotations = _annotations(truth.as_detections())
    for annotation in annotations:
        annotation["iscrowd"] = 0
    data = {
        "info": {},
        "images": [{"id": photo} for photo in photos.tolist()],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CATEGORIES, 1)],
        "annotations": annotations,
    }
    found = {**data, "annotations": _annotations(detections)}
    evaluation = _evaluation(engine, data, found)
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.params.areaRng = [list(limits) for limits in _AREAS_PX.values()]
    evaluation.params.areaRngLbl = list(_AREAS_PX)
    with _silence(engine):
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


def _evaluation(engine: Engine, data: dict[str, Any], found: dict[str, Any]) -> Any:
    if engine == "faster":
        from faster_coco_eval import COCO, COCOeval_faster

        return COCOeval_faster(COCO(data), COCO(found), iouType="bbox", print_function=_no_message)
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with _silence(engine):
        truth, results = COCO(), COCO()
        truth.dataset, results.dataset = data, found
        truth.createIndex()
        results.createIndex()
        return COCOeval(truth, results, iouType="bbox")


def _no_message(*_: Any) -> None:
    """Takes the place of the engine's own messages."""


def _silence(engine: Engine) -> Any:
    """pycocotools prints; standard output belongs to the command line."""
    import contextlib
    import io

    return contextlib.redirect_stdout(io.StringIO()) if engine == "pycocotools" else contextlib.nullcontext()


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
