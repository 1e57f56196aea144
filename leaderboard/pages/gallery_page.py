"""The queries of a result with their answers, as pictures: people look at failures, they do not read them.

The page holds every picture once, as text, and sets it where it is shown; the same shop garment is the answer to many
queries. Twenty queries stand in the page at a time.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.scoring.ledger import FATES, MEANINGS
from leaderboard.pages.links import INDEX, row_path
from leaderboard.pages.rendering import render, write_text
from leaderboard.rows import Row

Verdict = Literal["right", "wrong box", "wrong"]
"""Of an answer: right by the protocol; a photo that holds a right item, but no box that overlaps it enough; wrong."""


@dataclass(frozen=True)
class ShownPicture:
    """A small picture of a photo or of a part of it.

    Attributes:
        data: the encoded picture; None where the photo is missing or cannot be read.
        mime: its kind, such as ``image/webp``.
        size_wh: width and height in pixels; of a placeholder, those that it takes.
        of_wh: width and height of what it shows, in pixels of the photo; zeros where nobody knows.
        photo: the photo's file name.
    """

    data: bytes | None
    mime: str
    size_wh: tuple[int, int]
    of_wh: tuple[int, int]
    photo: str


@dataclass(frozen=True)
class ShownAnswer:
    """A gallery box that was answered with.

    Attributes:
        picture: its place among the pictures.
        image_id: its photo.
        verdict: whether it is right.
        similarity: to the query; None where nobody knows.
    """

    picture: int
    image_id: int
    verdict: Verdict
    similarity: float | None


@dataclass(frozen=True)
class ShownCounterpart:
    """A shop item that should have been found.

    Attributes:
        picture: its place among the pictures.
        image_id: its photo.
        rank: of the first answer that is right by it, 1–20; None for none.
        is_detected: whether a searched box overlaps it enough; None where nobody knows.
    """

    picture: int
    image_id: int
    rank: int | None
    is_detected: bool | None


@dataclass(frozen=True)
class ShownQuery:
    """A query, what it was answered with, and what would have been right.

    Attributes:
        number: its place among the queries of the split, from 0.
        image_id: its photo.
        pair_id: of the photo.
        style: of the garment within the pair.
        category: name.
        fate: what became of it, one of `harness.scoring.ledger.FATES`.
        rank: of the first right answer, 1–20; None for none.
        photo: the photo's place among the pictures.
        box_xyxy: the annotated garment, pixels of the photo.
        speaking_xyxy: the detected box that speaks for it, pixels; None where none does.
        overlap: of the two, IoU; None where none speaks.
        score: of the box that speaks; None where none does.
        crop: that box's place among the pictures; None where none speaks.
        answers: the first ten, best first; none where no box speaks.
        counterparts: some of the shop items that match.
        num_counterparts: all of them.
    """

    number: int
    image_id: int
    pair_id: int
    style: int
    category: str
    fate: str
    rank: int | None
    photo: int
    box_xyxy: tuple[float, float, float, float]
    speaking_xyxy: tuple[float, float, float, float] | None
    overlap: float | None
    score: float | None
    crop: int | None
    answers: tuple[ShownAnswer, ...]
    counterparts: tuple[ShownCounterpart, ...]
    num_counterparts: int


@dataclass(frozen=True)
class ShownResult:
    """A result with its pictures.

    Attributes:
        name: what people call it.
        source: what it is: a spec, or a file.
        split: its split.
        rendered: whether the photos are rendered ones.
        protocol: whose rules say what is right.
        acc10: Acc@10 of all queries.
        totals: fate -> queries of all, None where it could not be told.
        queries: those that are shown, in the order of the query file.
        pictures: every picture once.
        row: the leaderboard row; None where it is none.
        contamination: why the row does not count; None where clean or not known.
        hedged: whether boxes stand under many categories at once.
    """

    name: str
    source: str
    split: str
    rendered: bool
    protocol: str
    acc10: float
    totals: Mapping[str, int | None]
    queries: tuple[ShownQuery, ...]
    pictures: tuple[ShownPicture, ...]
    row: Row | None = None
    contamination: str | None = None
    hedged: bool = False


def write_gallery(out: Path, shown: ShownResult, *, in_site: bool = False) -> Path:
    """Write the gallery's page, whole or not at all.

    Args:
        out: the HTML file; an old one is replaced.
        shown: what to show.
        in_site: whether it lies in the folder of a board's pages, so that it can link to them.

    Returns:
        ``out``.
    """
    return write_text(out, gallery_page(shown, in_site=in_site))


def gallery_page(shown: ShownResult, *, in_site: bool = False) -> str:
    """The page's HTML; see `write_gallery`."""
    counts = {str(fate): sum(query.fate == fate for query in shown.queries) for fate in FATES}
    some = [
        {"name": name, "shown": counts[name], "total": total, "explained": MEANINGS[name], "number": number}
        for number, (name, total) in enumerate(shown.totals.items())
    ]
    missing = sorted({picture.photo for picture in shown.pictures if picture.data is None})
    return render(
        "gallery.html",
        styles=("gallery.css",),
        scripts=("gallery.js",),
        title=f"Queries of {shown.name}",
        shown=shown,
        fates=some,
        num_queries=sum(total or 0 for total in shown.totals.values()),
        categories=sorted({query.category for query in shown.queries}),
        has_similarity=any(answer.similarity is not None for query in shown.queries for answer in query.answers),
        missing=missing,
        data=_data(shown),
        board_link=f"../{INDEX}" if in_site else None,
        row_link=f"../{row_path(shown.row)}" if in_site and shown.row is not None else None,
    )


def _data(shown: ShownResult) -> dict[str, Any]:
    """What the script reads; pictures are ``[base64 or null, width, height, width of, height of, photo]``."""
    return {
        "mime": next((picture.mime for picture in shown.pictures if picture.data is not None), ""),
        "pictures": [
            [
                None if one.data is None else base64.b64encode(one.data).decode(),
                *one.size_wh,
                *one.of_wh,
                one.photo,
            ]
            for one in shown.pictures
        ],
        "queries": [_query(one) for one in shown.queries],
    }


def _query(one: ShownQuery) -> dict[str, Any]:
    return {
        "number": one.number,
        "image": one.image_id,
        "pair": one.pair_id,
        "style": one.style,
        "category": one.category,
        "fate": one.fate,
        "rank": one.rank,
        "photo": one.photo,
        "box": _rounded(one.box_xyxy),
        "speaking": None if one.speaking_xyxy is None else _rounded(one.speaking_xyxy),
        "overlap": None if one.overlap is None else round(one.overlap, 3),
        "score": None if one.score is None else round(one.score, 4),
        "crop": one.crop,
        "answers": [
            [answer.picture, answer.image_id, answer.verdict, _similarity(answer.similarity)] for answer in one.answers
        ],
        "counterparts": [[item.picture, item.image_id, item.rank, item.is_detected] for item in one.counterparts],
        "matching": one.num_counterparts,
    }


def _similarity(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _rounded(box: tuple[float, float, float, float]) -> list[float]:
    return [round(side, 1) for side in box]
