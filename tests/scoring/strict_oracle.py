"""The strict rules, the ledger and the ladder, followed step by step with plain lists."""

from __future__ import annotations

from typing import Any

from tests.scoring.oracle import first_largest, overlap

MISS = 21


def matching(query: Any, gallery: list[Any]) -> list[Any]:
    return [item for item in gallery if (item["pair_id"], item["style"]) == (query["pair_id"], query["style"])]


def first_rank(row: Any, query: Any, gallery: list[Any], min_iou: float) -> int:
    for rank, (photo, box) in enumerate(zip(row["gallery_image_id"][:20], row["gallery_bbox"], strict=False), 1):
        answers = [item["bbox"] for item in matching(query, gallery) if item["gallery_image_id"] == photo]
        if any(overlap(box, answer) >= min_iou for answer in answers):
            return rank
    return MISS


class Box:
    """A result row with all that the rules ask about it."""

    def __init__(self, number: int, row: Any, queries: list[Any], gallery: list[Any]) -> None:
        self.number, self.row, self.score = number, row, row["query_score"]
        self.item, self.overlap, self.rank, self.photo_rank = -1, 0.0, MISS, MISS
        items = [n for n, other in enumerate(queries) if other["query_image_id"] == row["query_image_id"]]
        if items:
            overlaps = [overlap(row["query_bbox"], queries[n]["bbox"]) for n in items]
            self.item, self.overlap = items[first_largest(overlaps)], max(overlaps)
        query = queries[self.item] if items else {"style": 0, "cls": None}
        self.is_asked = query["style"] > 0
        self.has_category = self.is_asked and row["query_cls"] == query["cls"]
        if self.is_asked:
            self.rank = first_rank(row, query, gallery, 0.5)
            self.photo_rank = first_rank(row, query, gallery, -1)
        self.strict_rank = self.rank if self.has_category else MISS + 1


def boxes(results: list[Any], queries: list[Any], gallery: list[Any]) -> list[Box]:
    return [Box(number, row, queries, gallery) for number, row in enumerate(results)]


def strict_speakers(found: list[Box], queries: list[Any]) -> list[Box | None]:
    """S1 to S3 for every query: of the boxes near enough the loudest, of those the one with the worst answer."""
    speakers = []
    for number, query in enumerate(queries):
        if query["style"] > 0:
            near = [b for b in found if b.item == number and b.overlap >= 0.5]
            speakers.append(max(near, key=lambda b: (b.score, b.strict_rank), default=None))
    return speakers


def strict_ranks(results: list[Any], queries: list[Any], gallery: list[Any]) -> list[int]:
    speakers = strict_speakers(boxes(results, queries, gallery), queries)
    return [box.strict_rank if box is not None and box.strict_rank < MISS else 0 for box in speakers]


def fates(
    found: list[Box], speakers: list[int], queries: list[Any], gallery: list[Any], searched: list[Any] | None
) -> list[str]:
    """The outcome of every query; ``found`` are the boxes that the protocol lets go to their items."""
    asked = [n for n, query in enumerate(queries) if query["style"] > 0]
    return [
        fate([b for b in found if b.item == number], speaker, queries[number], gallery, searched)
        for number, speaker in zip(asked, speakers, strict=True)
    ]


def fate(mine: list[Box], speaker: int, query: Any, gallery: list[Any], searched: list[Any] | None) -> str:
    if not mine:
        return "no detection"
    if speaker < 0:
        return "wrong class"
    mine = [b for b in mine if b.has_category]
    voice = next(b for b in mine if b.number == speaker)
    if voice.rank < MISS:
        return "hit"
    if any(b.overlap > voice.overlap and b.rank < MISS for b in mine):
        return "displaced"
    if searched is not None and not any(
        box["image_id"] == item["gallery_image_id"]
        and overlap([*box["bbox"][:2], box["bbox"][0] + box["bbox"][2], box["bbox"][1] + box["bbox"][3]], item["bbox"])
        >= 0.5
        for item in matching(query, gallery)
        for box in searched
    ):
        return "not in gallery"
    return "right photo, wrong box" if voice.photo_rank < MISS else "ranked below 20"


def ladder_ranks(found: list[Box], queries: list[Any]) -> list[list[int]]:
    """For every rung above the first and every query the best rank of the boxes that the rung allows."""
    asked = [n for n, query in enumerate(queries) if query["style"] > 0]
    rungs: list[list[int]] = [[], [], [], []]
    for number in asked:
        mine = [b for b in found if b.item == number]
        rungs[0].append(min((b.rank for b in mine if b.has_category), default=MISS))
        rungs[1].append(min((b.rank for b in mine), default=MISS))
        rungs[2].append(min((b.photo_rank for b in mine), default=MISS))
        rungs[3].append(min((b.photo_rank for b in mine), default=1))
    return rungs
