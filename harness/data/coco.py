"""COCO files of anyone's: detections, and the ground truth to hold them against.

COCO boxes are ``boxes_xywh``; they become ``boxes_xyxy`` here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson

from harness.types import CATEGORIES, Detections, Floats, InputError, Ints, Items
from harness.unpacking import DAMAGED, unpacked

_RESULT_FIELDS = ("image_id", "category_id", "bbox", "score")
_ITEM_FIELDS = ("image_id", "category_id", "bbox")
_TOO_DEEP = "is nested hundreds of brackets deep; no COCO file is"

MOST_BYTES = 2_000_000_000
"""The largest file, unpacked: 20 million boxes."""

MOST_BEYOND = 0.2
"""Share of boxes that reach beyond their photo from which on they are taken for corners, x1 y1 x2 y2."""


@dataclass(frozen=True, eq=False)
class CocoTruth:
    """A COCO ground truth of boxes.

    Attributes:
        items: its annotations; what COCO does not say of an item (style, pair, …) is 0.
        image_ids: (P,) int64, ascending: all its photos, those without an item included.
        sizes_px: (P, 2) float64, width and height of each; 0 where the file has none.
        description: what the file says of itself; empty where it does not.
        warnings: what may not be meant so.
        source: the file, for messages.
    """

    items: Items
    image_ids: Ints
    sizes_px: Floats
    description: str
    warnings: tuple[str, ...]
    source: str


class _Result(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    score: float


class _Photo(msgspec.Struct, gc=False):
    id: int
    width: float = 0
    height: float = 0


class _Item(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float | None = None
    iscrowd: int = 0


class _Info(msgspec.Struct):
    description: str = ""


class _Truth(msgspec.Struct):
    images: list[_Photo]
    annotations: list[_Item]
    info: _Info = msgspec.field(default_factory=_Info)


def read_coco_results(path: Path) -> Detections:
    """Detections from a COCO results file, anyone's.

    Args:
        path: a JSON list of objects with ``image_id``, ``category_id`` 1–13, ``bbox`` [x, y, width, height]
            in pixels and ``score`` in [0, 1]; other fields are ignored.

    Returns:
        the boxes in the order of the file.

    Raises:
        InputError: the file is missing or no such list; the message names the first wrong row.
    """
    content = _content(path, "a COCO results file")
    try:
        rows = msgspec.json.decode(content, type=list[_Result])
        image_ids, categories = _ints([row.image_id for row in rows]), _ints([row.category_id for row in rows])
    except (msgspec.MsgspecError, OverflowError) as error:
        raise _first_wrong_result(path, content) from error
    except RecursionError as error:
        raise InputError(f"{path}: {_TOO_DEEP}") from error
    boxes = np.array([row.bbox for row in rows], dtype=np.float64).reshape(-1, 4)
    scores = np.array([row.score for row in rows], dtype=np.float64)
    wrong = ~_possible(image_ids, categories, boxes) | ~((scores >= 0) & (scores <= 1))
    if wrong.any():
        raise _first_wrong_result(path, content)
    boxes[:, 2:] += boxes[:, :2]
    return Detections(image_ids, boxes, scores, categories)


def read_coco_truth(path: Path) -> CocoTruth:
    """Boxes of a COCO ground truth, such as ``run.py data export`` writes.

    Args:
        path: a JSON object with ``images`` (``id``, and ``width`` and ``height`` if known) and ``annotations``
            (``image_id``, ``category_id`` 1–13, ``bbox`` [x, y, width, height] in pixels; no crowds).

    Raises:
        InputError: the file is missing or no such document; the message names the first wrong entry.
    """
    content = _content(path, "a COCO ground truth")
    try:
        document = msgspec.json.decode(content, type=_Truth)
        image_ids = _ints([photo.id for photo in document.images])
        item_images = _ints([item.image_id for item in document.annotations])
        categories = _ints([item.category_id for item in document.annotations])
    except msgspec.ValidationError as error:
        raise InputError(
            f"{path}: is no COCO ground truth: {error}; expected an object with images (id) and annotations "
            f"({', '.join(_ITEM_FIELDS)}), as run.py data export writes it"
        ) from error
    except OverflowError as error:
        raise InputError(f"{path}: an id or a category has more than 64 bits") from error
    except RecursionError as error:
        raise InputError(f"{path}: {_TOO_DEEP}") from error
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: is not JSON ({error})") from error
    if len(np.unique(image_ids)) != len(image_ids):
        values, counts = np.unique(image_ids, return_counts=True)
        raise InputError(f"{path}: images: id {values[counts > 1][0]} stands there twice; list every photo once")
    boxes = np.array([item.bbox for item in document.annotations], dtype=np.float64).reshape(-1, 4)
    crowds = np.array([item.iscrowd for item in document.annotations]) != 0
    for what, wrong in (
        (f"category_id: expected 1 to {len(CATEGORIES)}", (categories < 1) | (categories > len(CATEGORIES))),
        (
            "bbox: expected [x, y, width, height] with width and height >= 0",
            (boxes[:, 2:] < 0).any(axis=1) | _is_beyond(boxes),
        ),
        ("image_id: expected a photo that stands in images", ~np.isin(item_images, image_ids)),
        ("iscrowd: expected 0, DeepFashion2 has no crowds", crowds),
    ):
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise InputError(
                f"{path}: annotations[{row}]: {what}, got {_json(msgspec.to_builtins(document.annotations[row]))}"
            )
    order = np.argsort(image_ids)
    sizes = np.array([(photo.width, photo.height) for photo in document.images], dtype=np.float64).reshape(-1, 2)
    areas = np.array([np.nan if one.area is None else one.area for one in document.annotations], dtype=np.float64)
    other_areas = np.abs(areas - boxes[:, 2] * boxes[:, 3]) > 0.01 * boxes[:, 2] * boxes[:, 3] + 1
    warnings = []
    if other_areas.any():
        warnings.append(
            f"{path}: {other_areas.sum():,} of {len(boxes):,} annotations have an area other than width times height; "
            "small, medium and large go by width times height here"
        )
    boxes[:, 2:] += boxes[:, :2]
    zeros = np.zeros(len(boxes), np.int64)
    items = Items(item_images, zeros, zeros > 0, boxes, categories, *(zeros for _ in range(6)))
    return CocoTruth(items, image_ids[order], sizes[order], document.info.description, tuple(warnings), str(path))


def refuse_foreign_photos(found: Detections, truth: CocoTruth, source: str) -> None:
    """Check that detections are of the photos of a ground truth.

    Args:
        found: detections.
        truth: the ground truth that they are to be held against.
        source: the file of the detections, for the message.

    Raises:
        InputError: a box is of a photo that the ground truth does not list; names the first.
    """
    foreign = ~np.isin(found.image_ids, truth.image_ids)
    if foreign.any():
        row = int(np.flatnonzero(foreign)[0])
        raise InputError(
            f"{source}: [{row}]: image_id: {found.image_ids[row]} is not among the {len(truth.image_ids):,} photos of "
            f"{truth.source} ({foreign.sum():,} of {len(found):,} boxes are of such photos); give detections and "
            "ground truth of one split"
        )


def box_warnings(found: Detections, truth: CocoTruth) -> list[str]:
    """What is likely wrong with detections although it can be scored.

    Boxes that were written as x1, y1, x2, y2 read as x, y, width, height reach far beyond their photos, and without
    exception have a "width" above x and a "height" above y.

    Args:
        found: detections of the photos of the ground truth.
        truth: the ground truth.

    Returns:
        A sentence each; none where nothing is conspicuous.
    """
    if len(found) == 0:
        return ["there are no detections at all"]
    photos = np.searchsorted(truth.image_ids, found.image_ids)
    limits = truth.sizes_px[photos]
    known = (limits > 0).all(axis=1)
    corners = found.boxes_xyxy
    if corners.max() <= 1 < truth.items.boxes_xyxy.max(initial=0):
        return ["no coordinate is above 1, so the boxes look normalised; COCO's bbox is in pixels of the photo"]
    written = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    beyond = known & (corners[:, 2:] > 1.02 * limits + 1).any(axis=1)
    ordered = (written[:, 2:] >= written[:, :2]).all()
    if known.any() and ordered and beyond.sum() > MOST_BEYOND * known.sum():
        return [
            f"{beyond.sum() / known.sum():.0%} of the boxes reach beyond their photo, and all have width >= x and "
            "height >= y: they look like x1, y1, x2, y2; COCO's bbox is x, y, width, height"
        ]
    return []


def _content(path: Path, what: str) -> bytes:
    with unpacked(path) as stream:
        try:
            content = stream.read(MOST_BYTES + 1)
        except DAMAGED as error:
            raise InputError(f"{path}: cannot be read: {error}; expected {what}") from error
    if len(content) > MOST_BYTES:
        raise InputError(f"{path}: has more than {MOST_BYTES / 1e9:.0f} GB, too much for {what}")
    return content


def _ints(values: list[int]) -> Ints:
    return np.fromiter(values, np.int64, len(values))


def _possible(image_ids: Ints, categories: Ints, boxes_xywh: Floats) -> Any:
    return (
        (image_ids >= 0)
        & (image_ids < 1 << 53)
        & (categories >= 1)
        & (categories <= len(CATEGORIES))
        & ~_is_beyond(boxes_xywh)
        & (boxes_xywh[:, 2:] >= 0).all(axis=1)
    )


def _is_beyond(boxes_xywh: Floats) -> Any:
    """(N,) bool, whether a corner of the box is no finite number."""
    with np.errstate(over="ignore"):
        return ~np.isfinite(boxes_xywh[:, :2] + boxes_xywh[:, 2:]).all(axis=1)


def _first_wrong_result(path: Path, content: bytes) -> InputError:
    """Why a results file cannot be read: a second look at objects of any kind, which names the row and the value."""
    try:
        rows = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        return InputError(f"{path}: is not JSON ({error}); NaN and Infinity are not JSON either")
    if not isinstance(rows, list):
        return InputError(f"{path}: expected a list of detections, as COCO results are; a ground-truth file is no such")
    for number, row in enumerate(rows):
        fault = _result_fault(row)
        if fault is not None:
            return InputError(f"{path}: [{number}]: {fault}; mend the row or remove it")
    return InputError(f"{path}: a row has a field twice, with a wrong value first; keep one of them")


def _result_fault(row: Any) -> str | None:
    """What is wrong with a row of a results file, None if nothing is (JSON numbers are finite)."""
    if not isinstance(row, dict):
        return "expected an object"
    for name in _RESULT_FIELDS:
        if name not in row:
            return f"has no {name}; expected {', '.join(_RESULT_FIELDS)}"
    if type(row["image_id"]) is not int or not 0 <= row["image_id"] < 1 << 53:
        return f"image_id: expected an integer >= 0, got {_json(row['image_id'])}"
    if type(row["category_id"]) is not int or not 1 <= row["category_id"] <= len(CATEGORIES):
        return f"category_id: expected an integer from 1 to {len(CATEGORIES)}, got {_json(row['category_id'])}"
    box, score = row["bbox"], row["score"]
    if not isinstance(box, list) or len(box) != 4 or any(type(side) not in (int, float) for side in box):
        return f"bbox: expected [x, y, width, height] in pixels, got {_json(box)}"
    if box[2] < 0 or box[3] < 0:
        return f"bbox: expected width and height >= 0, got {_json(box)}"
    if not math.isfinite(box[0] + box[2]) or not math.isfinite(box[1] + box[3]):
        return f"bbox: expected pixels, got {_json(box)}"
    if type(score) not in (int, float) or not 0 <= score <= 1:
        return f"score: expected a number from 0 to 1, got {_json(score)}"
    return None


def _json(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 120 else text[:117] + "…"
