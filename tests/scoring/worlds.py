"""Small worlds of queries, gallery and results, as the JSON files hold them."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import orjson

from harness.scoring.hearing import Hearing
from harness.scoring.results import Results
from harness.scoring.truth import Gallery, Queries

FAR = [900.0, 900.0, 950.0, 950.0]


def query(image_id: int, bbox: list[float], cls: int = 1, style: int = 1, pair_id: int = 1) -> dict[str, Any]:
    return {"query_image_id": image_id, "bbox": bbox, "cls": cls, "style": style, "pair_id": pair_id}


def item(image_id: int, bbox: list[float], style: int = 1, pair_id: int = 1) -> dict[str, Any]:
    return {"gallery_image_id": image_id, "bbox": bbox, "style": style, "pair_id": pair_id}


def result(
    image_id: int,
    bbox: list[float],
    cls: int = 1,
    score: float = 0.9,
    right: dict[int, tuple[int, list[float]]] | None = None,
) -> dict[str, Any]:
    """A row whose 20 entries show photo 999, but for the given ones: {rank from 1: (photo, box)}."""
    ids, boxes = [999] * 20, [FAR] * 20
    for rank, (photo, box) in (right or {}).items():
        ids[rank - 1], boxes[rank - 1] = photo, box
    return {
        "query_image_id": image_id,
        "query_bbox": bbox,
        "query_cls": cls,
        "query_score": score,
        "gallery_image_id": ids,
        "gallery_bbox": boxes,
    }


def write(folder: Path, results: Any, queries: Any, gallery: Any) -> tuple[Path, Path, Path]:
    paths = folder / "results.json", folder / "val_query.json", folder / "val_gallery.json"
    for path, rows in zip(paths, (results, queries, gallery), strict=True):
        path.write_bytes(orjson.dumps(rows))
    return paths


def hear(results: Any, queries: Any, gallery: Any) -> Hearing:
    """The world as the scoring room sees it after reading the files."""
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), results, queries, gallery)
        return Hearing.of(Results.from_json(paths[0]), Queries.from_json(paths[1]), Gallery.from_json(paths[2]))


def random_world(seed: int) -> tuple[list[Any], list[Any], list[Any]]:
    """Boxes on a coarse grid, so that equal overlaps, equal scores and an IoU of exactly 0.5 are frequent."""
    draw = random.Random(seed)

    def box() -> list[float]:
        if draw.random() < 0.05:
            return [3.0, 3.0, 3.0, 5.0]
        x, y = draw.randrange(4), draw.randrange(4)
        scale = draw.choice([1.0, 1.0, 0.1, 1 / 3])
        return [x * scale, y * scale, (x + draw.randrange(1, 5)) * scale, (y + draw.randrange(1, 5)) * scale]

    gallery = [item(100, box(), 1, 1)]
    for photo in range(101, 101 + draw.randrange(1, 6)):
        pair = draw.randrange(1, 3)
        gallery += [item(photo, box(), draw.randrange(0, 3), pair) for _ in range(draw.randrange(1, 4))]
    if draw.random() < 0.1:
        gallery += [item(photo, box(), 1, 1) for photo in range(110, 116)]
    styles = {pair: [row["style"] for row in gallery if row["pair_id"] == pair] for pair in (1, 2)}
    queries = [query(1, box(), 1, 1, 1)]
    for photo in range(1, 1 + draw.randrange(1, 6)):
        pair = 1 if photo == 1 else draw.choice([1, 2])
        for _ in range(draw.randrange(1, 4)):
            queries.append(query(photo, box(), draw.randrange(1, 3), draw.choice([0, *styles[pair]]), pair))
    draw.shuffle(queries)
    results = []
    for _ in range(draw.randrange(0, 16)):
        row = result(draw.randrange(1, 7), box(), draw.randrange(1, 3), draw.choice([0.2, 0.5, 0.5, 0.9]))
        if draw.random() < 0.65:
            copied = draw.choice(queries)
            row.update(query_image_id=copied["query_image_id"], query_bbox=copied["bbox"], query_cls=copied["cls"])
        filled = draw.random()
        for entry in range(20):
            if draw.random() < filled:
                shown = draw.choice(gallery)
                row["gallery_image_id"][entry] = shown["gallery_image_id"]
                row["gallery_bbox"][entry] = draw.choice([box(), box(), shown["bbox"], draw.choice(gallery)["bbox"]])
        results.append(row)
    return results, queries, gallery


def crowded_world(seed: int) -> tuple[list[Any], list[Any], list[Any]]:
    """A random world whose boxes stand several times in the file: moved a little, under other categories and scores."""
    results, queries, gallery = random_world(seed)
    draw = random.Random(-1 - seed)
    for row in [*results, *results[:5]]:
        for _ in range(draw.randrange(3)):
            width, height = (row["query_bbox"][2 + side] - row["query_bbox"][side] for side in (0, 1))
            moved = draw.choice([0, 0, 0.03, 0.08])
            copy = {**row, "query_bbox": [side + moved * draw.uniform(-1, 1) * width for side in row["query_bbox"]]}
            if moved == 0 and draw.random() < 0.5:
                copy["query_bbox"] = [*row["query_bbox"][:3], row["query_bbox"][3] + height / 9]  # an IoU of 0.9 or so
            copy["query_cls"] = draw.choice([1, 2, row["query_cls"]])
            copy["query_score"] = draw.choice([0.2, 0.5, row["query_score"], row["query_score"]])
            if draw.random() < 0.5:
                copy |= {field: draw.choice(results)[field] for field in ("gallery_image_id", "gallery_bbox")}
            results.append(copy)
    draw.shuffle(results)
    return results, queries, gallery
