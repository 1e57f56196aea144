"""What is in every photo of a rendered data set, decided before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from harness.data.rendered.wardrobe import BOTTOMS, DRESSES, OUTWEAR, TOPS, Garment, draw_garment, draw_style
from harness.types import SPLITS, SplitName


class RenderSettings(BaseModel):
    """How much to render, and from which seed.

    Attributes:
        seed: decides every byte of the data set, at least 0.
        num_train, num_validation, num_test: photos of each split, at least 2.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0)
    num_train: int = Field(default=2800, ge=2)
    num_validation: int = Field(default=800, ge=2)
    num_test: int = Field(default=200, ge=2)

    def num_photos(self, split: SplitName) -> int:
        """Photos of the split."""
        return {"train": self.num_train, "validation": self.num_validation, "test": self.num_test}[split]


View = Literal["any", "worn", "flat"]


@dataclass(frozen=True)
class Worn:
    """A garment in a photo, under the style number that the annotation gives it."""

    garment: Garment
    style: int


@dataclass(frozen=True)
class PhotoPlan:
    """One photo before it is drawn.

    Attributes:
        image_id: number of the file.
        is_consumer: a consumer's photo, else a shop's.
        pair_id: the pair of all its garments.
        worn: the garments; the first is what the photo is about.
        seed: words that seed the photo's own random numbers.
        view: whether the garments are worn, laid flat, or either.
    """

    image_id: int
    is_consumer: bool
    pair_id: int
    worn: tuple[Worn, ...]
    seed: tuple[int, ...]
    view: View = "any"


_MAIN_WEIGHTS = np.array([10, 9, 9, 10, 8, 6, 5, 5, 4, 9, 9, 9, 9], dtype=float)
_FIRST_PAIR = {"train": 1, "validation": 100_001, "test": 200_001}


def companion_category(rng: np.random.Generator, category_id: int) -> int:
    """A category that is worn with this one."""
    if category_id in BOTTOMS:
        return int(rng.choice(TOPS))
    if category_id in DRESSES:
        return int(rng.choice(OUTWEAR))
    return int(rng.choice(BOTTOMS))


def _pair(rng: np.random.Generator) -> list[tuple[bool, tuple[Worn, ...]]]:
    """The photos of one pair, as (is consumer, garments): both sides of each style first, then the others."""
    category_id = 1 + int(rng.choice(13, p=_MAIN_WEIGHTS / _MAIN_WEIGHTS.sum()))
    num_styles = 1 + int(rng.choice(3, p=[0.35, 0.4, 0.25]))
    mains = [draw_garment(rng, category_id)]
    while len(mains) < num_styles:
        mains.append(draw_style(rng, mains[0]))
    partner = None
    if rng.random() < 0.4 and category_id not in DRESSES:
        partner = Worn(draw_garment(rng, companion_category(rng, category_id)), num_styles + 1)
    first: list[tuple[bool, tuple[Worn, ...]]] = []
    rest: list[tuple[bool, tuple[Worn, ...]]] = []
    for number, main in enumerate(mains, 1):
        num_consumer = 1 + int(rng.choice(3, p=[0.55, 0.3, 0.15]))
        num_shop = 1 + int(rng.choice(4, p=[0.5, 0.25, 0.15, 0.1]))
        for count, is_consumer in ((num_consumer, True), (num_shop, False)):
            for turn in range(count):
                worn = [Worn(main, number)]
                if partner is not None and (turn == 0 or rng.random() < 0.4):
                    worn.append(partner)
                elif category_id in DRESSES:
                    if is_consumer and rng.random() < 0.06:
                        worn.append(Worn(draw_garment(rng, int(rng.choice(OUTWEAR))), 0))
                elif rng.random() < (0.35 if is_consumer else 0.2):
                    worn.append(Worn(draw_garment(rng, companion_category(rng, category_id)), 0))
                if category_id in OUTWEAR and rng.random() < 0.2:
                    worn.append(Worn(draw_garment(rng, int(rng.choice(TOPS))), 0))
                (first if turn == 0 else rest).append((is_consumer, tuple(worn)))
    return first + rest


@lru_cache(maxsize=3)
def photos_of(settings: RenderSettings, split: SplitName) -> tuple[PhotoPlan, ...]:
    """The plan of a split, in ascending order of image id.

    Args:
        settings: size and seed of the data set.
        split: which split.

    Returns:
        One plan a photo. Consumer photos have the lowest ids in validation and test, as published;
        train is shuffled.
    """
    number = SPLITS.index(split)
    rng = np.random.default_rng([settings.seed, number, 0])
    num_photos = settings.num_photos(split)
    drawn: list[tuple[bool, int, tuple[Worn, ...]]] = []
    pair_id = _FIRST_PAIR[split]
    while len(drawn) < num_photos:
        photos = _pair(rng)[: num_photos - len(drawn)]
        drawn += [(is_consumer, pair_id, worn) for is_consumer, worn in photos]
        pair_id += 1
    order = rng.permutation(num_photos)
    if split != "train":
        order = np.array(sorted(order, key=lambda row: not drawn[row][0]))
    return tuple(
        PhotoPlan(image_id, is_consumer, pair_id, worn, (settings.seed, number, 1, image_id))
        for image_id, (is_consumer, pair_id, worn) in enumerate((drawn[row] for row in order), 1)
    )
