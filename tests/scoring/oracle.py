"""The rules of the official score, followed step by step with plain lists and pycocotools' own IoU."""

from __future__ import annotations

from typing import Any

import pycocotools.mask

RANKS = (1, 5, 10, 15, 20)


def xywh(box: list[float]) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def overlap(first: list[float], second: list[float]) -> float:
    return float(pycocotools.mask.iou([xywh(first)], [xywh(second)], [0])[0][0])


def first_largest(values: list[float]) -> int:
    best = 0
    for position, value in enumerate(values):
        if value > values[best]:
            best = position
    return best


def hit_ranks(results: list[Any], queries: list[Any], gallery: list[Any]) -> tuple[list[int], list[int]]:
    """For every query of style > 0: the rank of its first right entry (0: none), and the row that speaks (-1: none)."""
    ranks, speakers = [], []
    for position, query in enumerate(queries):
        if query["style"] <= 0:
            continue
        items = [n for n, other in enumerate(queries) if other["query_image_id"] == query["query_image_id"]]
        candidates = []
        for number, row in enumerate(results):
            if row["query_image_id"] != query["query_image_id"]:
                continue
            overlaps = [overlap(row["query_bbox"], queries[n]["bbox"]) for n in items]
            if items[first_largest(overlaps)] == position and row["query_cls"] == query["cls"]:
                candidates.append(number)
        if not candidates:
            ranks.append(0)
            speakers.append(-1)
            continue
        speaker = candidates[first_largest([results[n]["query_score"] for n in candidates])]
        speakers.append(speaker)
        rank = 0
        for entry in range(20):
            image_id = results[speaker]["gallery_image_id"][entry]
            box = results[speaker]["gallery_bbox"][entry]
            answers = [
                item["bbox"]
                for item in gallery
                if item["pair_id"] == query["pair_id"]
                and item["style"] == query["style"]
                and item["gallery_image_id"] == image_id
            ]
            if any(overlap(box, answer) >= 0.5 for answer in answers):
                rank = entry + 1
                break
        ranks.append(rank)
    return ranks, speakers


def accuracy(ranks: list[int]) -> dict[int, float]:
    return {k: sum(1 for rank in ranks if 0 < rank <= k) / len(ranks) for k in RANKS}
