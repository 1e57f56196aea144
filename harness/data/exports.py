"""Ground truth and detections out: the challenge's query and gallery files, and COCO JSON.

COCO boxes are ``boxes_xywh``; they exist only in this file's functions and never leave them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from harness.data.photos import photo_size
from harness.types import CATEGORIES, Detections, Floats, InputError, Ints, Items, Progress, Split

_RESULT_FIELDS = ("image_id", "category_id", "bbox", "score")
_CHUNK = 2048


def query_records(split: Split) -> list[dict[str, Any]]:
    """The consumer items of a split, as the challenge's ``val_query.json`` lists them.

    Items of style 0 are included: the official scorer does not count them as queries, but they take
    part when it assigns detected boxes to items, so a file without them scores differently. A consumer
    item that no shop item of the split matches is written with style 0: it cannot be answered, and the
    official scorer stops at such a query.

    Args:
        split: an annotated split.

    Returns:
        one object an item in the order of image id and item number: ``query_image_id``, ``bbox``
        [x1, y1, x2, y2], ``cls`` 1–13, ``style``, ``pair_id``; and beyond the challenge's fields, which the
        official scorer passes over, ``scale``, ``occlusion``, ``zoom_in`` and ``viewpoint`` (0: not annotated), and
        ``rendered`` 1 where the photos are, so that no score of theirs looks like one of DeepFashion2.

    Raises:
        InputError: the split has no annotations.
    """
    items = _items(split)
    shop, items = items.take(~items.is_consumer), items.take(items.is_consumer)
    answers = set(zip(*_identity(shop), strict=True))
    attributes = _attributes(items)
    mark = {"rendered": 1} if split.rendered else {}
    columns = zip(
        items.image_ids.tolist(),
        _plain(items.boxes_xyxy),
        items.category_ids.tolist(),
        *_identity(items),
        zip(*(column.tolist() for column in attributes.values()), strict=True),
        strict=True,
    )
    return [
        {
            "query_image_id": image_id,
            "bbox": box,
            "cls": category,
            "style": style if (style, pair) in answers else 0,
            "pair_id": pair,
            **dict(zip(attributes, values, strict=True)),
            **mark,
        }
        for image_id, box, category, style, pair, values in columns
    ]


def gallery_records(split: Split) -> list[dict[str, Any]]:
    """The shop items of a split, as the challenge's ``val_gallery.json`` lists them (it has no ``cls``).

    Args:
        split: an annotated split.

    Returns:
        one object an item in the order of image id and item number: ``gallery_image_id``, ``bbox``
        [x1, y1, x2, y2], ``style``, ``pair_id``.

    Raises:
        InputError: the split has no annotations.
    """
    items = _items(split)
    items = items.take(~items.is_consumer)
    columns = zip(items.image_ids.tolist(), _plain(items.boxes_xyxy), *_identity(items), strict=True)
    return [
        {"gallery_image_id": image_id, "bbox": box, "style": style, "pair_id": pair}
        for image_id, box, style, pair in columns
    ]


def coco_ground_truth(split: Split, *, progress: Progress | None = None) -> dict[str, Any]:
    """The split's boxes as a COCO ground-truth document.

    The converter that ships with DeepFashion2 names the categories otherwise than the annotations
    ("short_sleeved_shirt") and does not run as published; here the names are the annotations' own.
    Area is width · height, as there. Polygons and landmarks are left out: box AP needs neither.

    Args:
        split: an annotated split; every photo's header is read for its size.
        progress: called with photos done and in total.

    Returns:
        ``categories`` (ids 1–13), ``images`` (id, file name, width, height), ``annotations`` (ids from 1,
        ``bbox`` [x, y, width, height] in pixels, and as extra fields item number, style, pair, source and
        the attributes), ``info`` with the split's fingerprint.

    Raises:
        InputError: the split has no annotations, or a photo cannot be read.
    """
    items = _items(split)
    image_ids = split.photos.image_ids.tolist()
    images: list[dict[str, Any]] = []
    with ThreadPoolExecutor(4) as pool:
        for start in range(0, len(image_ids), _CHUNK):
            part = image_ids[start : start + _CHUNK]
            sizes = pool.map(photo_size, map(split.photo_path, part))
            for image_id, (width, height) in zip(part, sizes, strict=True):
                images.append({"id": image_id, "file_name": f"{image_id:06d}.jpg", "width": width, "height": height})
            if progress is not None:
                progress(len(images), len(image_ids))
    boxes_xywh = _xywh(items.boxes_xyxy)
    areas = (boxes_xywh[:, 2] * boxes_xywh[:, 3]).tolist()
    extra = {
        "item": items.item_numbers,
        "style": items.styles,
        "pair_id": items.pair_ids,
        **_attributes(items),
    }
    extra_rows = zip(*(column.tolist() for column in extra.values()), strict=True)
    rows = zip(
        items.image_ids.tolist(),
        items.category_ids.tolist(),
        _plain(boxes_xywh),
        areas,
        items.is_consumer.tolist(),
        extra_rows,
        strict=True,
    )
    annotations = [
        {
            "id": number,
            "image_id": image_id,
            "category_id": category,
            "bbox": box,
            "area": area,
            "iscrowd": 0,
            "source": "user" if is_consumer else "shop",
            **dict(zip(extra, values, strict=True)),
        }
        for number, (image_id, category, box, area, is_consumer, values) in enumerate(rows, 1)
    ]
    return {
        "info": {
            "description": f"{'RENDERED boxes, not DeepFashion2:' if split.rendered else 'DeepFashion2'} {split.name}",
            "fingerprint": split.fingerprint,
        },
        "categories": [
            {"id": number, "name": name, "supercategory": "clothes"} for number, name in enumerate(CATEGORIES, 1)
        ],
        "images": images,
        "annotations": annotations,
    }


def write_exports(split: Split, out_dir: Path, *, progress: Progress | None = None) -> list[Path]:
    """Query file, gallery file and COCO ground truth of a split.

    Args:
        split: an annotated split.
        out_dir: where; made if need be. Files of the same names are replaced.
        progress: called with photos done and in total.

    Returns:
        the paths: ``val_query.json``, ``val_gallery.json`` and ``validation_coco.json`` for the
        validation split, ``train_query.json``, … for another.

    Raises:
        InputError: the split has no annotations, or a photo cannot be read; nothing is written then.
    """
    prefix = "val" if split.name == "validation" else split.name
    documents = {
        f"{prefix}_query.json": query_records(split),
        f"{prefix}_gallery.json": gallery_records(split),
        f"{split.name}_coco.json": coco_ground_truth(split, progress=progress),
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, document in documents.items():
        _replace(out_dir / name, [orjson.dumps(document)])
    return [out_dir / name for name in documents]


def write_coco_results(path: Path, detections: Detections) -> None:
    """Detections as a COCO results file (a list with ``boxes_xywh``), written whole or not at all.

    Args:
        path: the file; its folder exists.
        detections: any number of boxes.
    """
    _replace(path, _result_chunks(detections))


def _result_chunks(detections: Detections) -> Iterable[bytes]:
    boxes_xywh = _xywh(detections.boxes_xyxy)
    yield b"["
    for start in range(0, len(detections), _CHUNK):
        part = slice(start, start + _CHUNK)
        rows = zip(
            detections.image_ids[part].tolist(),
            detections.category_ids[part].tolist(),
            boxes_xywh[part].tolist(),
            detections.scores[part].tolist(),
            strict=True,
        )
        text = orjson.dumps([dict(zip(_RESULT_FIELDS, row, strict=True)) for row in rows])
        yield (b"," if start else b"") + text[1:-1]
    yield b"]"


def _items(split: Split) -> Items:
    if split.items is None:
        raise InputError(
            f"{split.root / split.name}: has no annotations (annos), so there is no ground truth to export; "
            "choose an annotated split, or join its truth if you have it"
        )
    return split.items


def _identity(items: Items) -> tuple[list[int], list[int]]:
    return items.styles.tolist(), items.pair_ids.tolist()


def _attributes(items: Items) -> dict[str, Ints]:
    return {
        "scale": items.scales,
        "occlusion": items.occlusions,
        "zoom_in": items.zoom_ins,
        "viewpoint": items.viewpoints,
    }


def _xywh(boxes_xyxy: Floats) -> Floats:
    return np.concatenate([boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]], axis=1)


def _plain(boxes: Floats) -> list[list[int | float]]:
    """Whole numbers as integers, which is how the annotation files write them."""
    return [[int(side) if side.is_integer() else side for side in box] for box in boxes.tolist()]


def _replace(path: Path, chunks: Iterable[bytes]) -> None:
    """Write to a temporary name, then rename, so that the file is whole or not there."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as stream:
            stream.writelines(chunks)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
