"""What the rendered training sources share: their garments, and photos that are planned but not yet taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.data.rendered.plan import PhotoPlan, View, Worn
from harness.data.rendered.wardrobe import Garment, draw_garment, draw_style

Box = tuple[int, int, int, int]
"""x1 y1 x2 y2, pixels."""

STREAMS: Mapping[str, int] = {"Street2Shop": 101, "DARN": 102, "MVC": 103, "MPV": 104, "Zalando": 105}
"""Second word of every seed: DeepFashion2's splits have 0 to 2, so no garment and no photo is theirs."""

_GARMENT, _PHOTO = 0, 1
_PHOTOS_OF_A_GARMENT = 100


@dataclass(frozen=True)
class Item:
    """A garment to be photographed.

    Attributes:
        number: 0, 1, … within its source.
        model: garments of one model differ in colour or print alone.
        garment: how it looks.
    """

    number: int
    model: int
    garment: Garment


@dataclass(frozen=True)
class LayoutPhoto:
    """A photo of a source.

    Attributes:
        file: relative to the source's folder.
        plan: what it shows.
        form: what its bytes are, whatever its name says.
        copies: further files of the same bytes.
        boxed: whether the lists need its boxes.
    """

    file: str
    plan: PhotoPlan
    form: Literal["jpeg", "png"] = "jpeg"
    copies: tuple[str, ...] = ()
    boxed: bool = False


ListWriter = Callable[[Mapping[str, Mapping[int, Box]]], Mapping[str, bytes]]
"""Called with file -> number of the garment in the photo, from 1 -> box; returns file -> bytes."""


@dataclass(frozen=True)
class Layout:
    """A source that is to be rendered.

    Attributes:
        photos: its photos.
        lists: makes all that stands beside them, once the boxes of the boxed photos are known.
    """

    photos: tuple[LayoutPhoto, ...]
    lists: ListWriter


def items_of(source: str, seed: int, count: int, categories: Sequence[int]) -> list[Item]:
    """The first garments of a source; more of them begin with the same ones.

    Args:
        source: one of `STREAMS`.
        seed: of the data set.
        count: how many.
        categories: DeepFashion2's numbers of the categories to draw from.
    """
    items: list[Item] = []
    model = 0
    while len(items) < count:
        rng = np.random.default_rng([seed, STREAMS[source], _GARMENT, model])
        first = draw_garment(rng, int(rng.choice(categories)))
        garments = [first]
        for _ in range(int(rng.choice(3, p=[0.5, 0.3, 0.2]))):
            garments.append(draw_style(rng, first))
        items += [Item(len(items) + row, model, garment) for row, garment in enumerate(garments)]
        model += 1
    return items[:count]


def shot(
    source: str, seed: int, item: Item, turn: int, *, is_consumer: bool, view: View, beside: Item | None = None
) -> PhotoPlan:
    """A photo of a garment.

    Args:
        source, seed: as for `items_of`.
        item: what it is about: garment 1.
        turn: which of the garment's photos, below 100.
        is_consumer: a consumer's photo, else a shop's.
        view: worn, laid flat or either.
        beside: a garment that is worn with it: garment 2.
    """
    assert turn < _PHOTOS_OF_A_GARMENT
    number = item.number * _PHOTOS_OF_A_GARMENT + turn
    worn = [Worn(item.garment, 1)] + ([Worn(beside.garment, 2)] if beside is not None else [])
    return PhotoPlan(number, is_consumer, item.number, tuple(worn), (seed, STREAMS[source], _PHOTO, number), view)
