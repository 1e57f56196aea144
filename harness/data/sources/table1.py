"""The paper's Table 1 beside the data sets at hand."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data.garments import Garments

_TABLE = Path(__file__).with_name("table1.toml")


@dataclass(frozen=True)
class SourceCounts:
    """A row of the table: what the paper counts, and what is at hand.

    What the paper calls a pair differs between its data sets: for MVC, MPV and Zalando it is about one an item, for
    Street2Shop one a match of street photo and product, for DeepFashion2 one a pair of matching garments.

    Attributes:
        source: the data set, all its splits together.
        published_pairs, published_images: of the paper; None for a data set that it does not use.
        identities: different items at hand; None where the data set is not at hand.
        images: photos at hand; None likewise.
        rendered: True if any of the photos at hand were rendered.
    """

    source: str
    published_pairs: int | None
    published_images: int | None
    identities: int | None
    images: int | None
    rendered: bool


def table1(parts: Sequence[Garments]) -> list[SourceCounts]:
    """The rows of Table 1 in the paper's order, then further sources at hand.

    Args:
        parts: what is at hand; splits of DeepFashion2 are added up, so none may come twice.
    """
    published = tomllib.loads(_TABLE.read_text())
    ours: dict[str, list[Garments]] = {name: [] for name in published}
    for part in parts:
        ours.setdefault(part.source.partition("/")[0], []).append(part)
    rows = []
    for name, found in ours.items():
        paper = published.get(name, {})
        rows.append(
            SourceCounts(
                source=name,
                published_pairs=paper.get("pairs"),
                published_images=paper.get("images"),
                identities=sum(_num_identities(part) for part in found) if found else None,
                images=sum(part.record.num_photos for part in found) if found else None,
                rendered=any(part.record.rendered for part in found),
            )
        )
    return rows


def _num_identities(part: Garments) -> int:
    return len(np.unique(part.identities[part.identities >= 0]))
