"""Shown results for the tests of gallery pages."""

from __future__ import annotations

import cv2
import numpy as np

from harness.scoring.ledger import FATES
from leaderboard.pages.gallery_page import ShownAnswer, ShownCounterpart, ShownPicture, ShownQuery, ShownResult, Verdict
from leaderboard.rows import Row


def picture(number: int, name: str = "") -> ShownPicture:
    """A picture of one colour; every eleventh photo cannot be read."""
    photo = name or f"{number:06d}.jpg"
    if number % 11 == 10:
        return ShownPicture(None, "", (104, 104), (0, 0), photo)
    colour = np.full((60, 40, 3), (number * 37 % 256, number * 91 % 256, number * 53 % 256), np.uint8)
    return ShownPicture(cv2.imencode(".webp", colour)[1].tobytes(), "image/webp", (40, 60), (200, 300), photo)


def shown(count: int = 45, row: Row | None = None, text: str = "m4 + WBF_5", photo: str = "") -> ShownResult:
    """Queries of every fate in turn, two categories, their answers of all verdicts."""
    queries = []
    for number in range(count):
        fate = str(FATES[number % len(FATES)])
        rank = 1 + number % 12 if fate == "hit" else None
        speaks = fate not in ("no detection", "wrong class")
        verdicts: list[Verdict] = ["right" if place == rank else "wrong" for place in range(1, 11)]
        if fate == "right photo, wrong box":
            verdicts[2] = "wrong box"
        answers = tuple(
            ShownAnswer((number + place) % 30, 5000 + place, verdict, 0.9 - place / 100 - number / 1000)
            for place, verdict in enumerate(verdicts)
        )
        queries.append(
            ShownQuery(
                number=number,
                image_id=100 + number,
                pair_id=7000 + number,
                style=1,
                category=text if photo else ("vest" if number % 3 else "sling dress"),
                fate=fate,
                rank=rank,
                photo=number % 30,
                box_xyxy=(20.0, 30.0, 120.0, 250.0),
                speaking_xyxy=(15.0, 20.0, 140.0, 260.0) if speaks else None,
                overlap=0.8 if speaks else None,
                score=0.5 + number / 1000 if speaks else None,
                crop=(number + 1) % 30 if speaks else None,
                answers=answers if speaks else (),
                counterparts=(ShownCounterpart(3, 6000 + number, rank, fate != "not in gallery"),),
                num_counterparts=1 + number % 2,
            )
        )
    totals: dict[str, int | None] = {
        str(fate): sum(query.fate == fate for query in queries) + 100 * (fate == "hit") for fate in FATES
    }
    totals["displaced"] = None
    return ShownResult(
        name=text,
        source=f"{text} of somebody",
        split="validation",
        rendered=True,
        protocol="official",
        acc10=0.5,
        totals=totals,
        queries=tuple(query for query in queries if query.fate != "displaced"),
        pictures=tuple(picture(number, photo) for number in range(30)),
        row=row,
        contamination=text if photo else None,
        hedged=bool(photo),
    )
