"""Garments to learn from, whatever data set they come from: photo, box, identity, domain.

Legend: N garments, P photos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from harness.training.cards import TrainedOn
from harness.types import Bools, Floats, InputError, Ints, Items, Split

NO_IDENTITY = -1
"""The identity of a garment that matches nothing."""


@dataclass(frozen=True, eq=False)
class Garments:
    """Garments of one source, one row a garment.

    Attributes:
        source: as recipes name it: ``DeepFashion2/train``, ``Street2Shop``, or a team's own name.
        photos: (P,) where the photos are, each once.
        photo_rows: (N,) int64, the photo of each garment as a row of ``photos``.
        boxes_xyxy: (N, 4) float64, pixels; a row of NaN where the source has no box: the whole photo.
        identities: (N,) int64; equal numbers are the same item; `NO_IDENTITY` matches nothing.
        is_consumer: (N,) bool; False is a shop's photo.
        record: what a model that is trained on them says of them: which source, which of its photos, whether rendered.
        shares_identities: True if equal identities are the same item in all such parts; False if they mean an item of
            this part alone.

    Raises:
        ValueError: the columns differ in length, or a number is out of range.
    """

    source: str
    photos: Sequence[Path]
    photo_rows: Ints
    boxes_xyxy: Floats
    identities: Ints
    is_consumer: Bools
    record: TrainedOn
    shares_identities: bool = False

    def __post_init__(self) -> None:
        length = len(self.photo_rows)
        shapes = (self.boxes_xyxy.shape, self.identities.shape, self.is_consumer.shape)
        if shapes != ((length, 4), (length,), (length,)):
            raise ValueError(f"{self.source}: expected columns of {length} garments, got shapes {shapes}")
        if length and not (self.photo_rows.min() >= 0 and self.photo_rows.max() < len(self.photos)):
            raise ValueError(f"{self.source}: photo_rows outside the {len(self.photos)} photos")
        if length and self.identities.min() < NO_IDENTITY:
            raise ValueError(f"{self.source}: identities are at least {NO_IDENTITY}")
        finite = np.isfinite(self.boxes_xyxy).sum(axis=1)
        if not np.isin(finite, (0, 4)).all():
            raise ValueError(f"{self.source}: a box is four finite numbers, or four NaN for the whole photo")

    def __len__(self) -> int:
        return len(self.photo_rows)

    def take(self, rows: Any) -> Self:
        """The given garments (an index array, a boolean mask or a slice), in that order; the photos stay."""
        columns = ("photo_rows", "boxes_xyxy", "identities", "is_consumer")
        return replace(self, **{name: getattr(self, name)[rows] for name in columns})


def identity_labels(items: Items) -> Ints:
    """The identity of every garment: equal where pair id and style are equal and the style is above 0.

    Args:
        items: annotated garments.

    Returns:
        (N,) int64: 0, 1, … in ascending order of (pair id, style); `NO_IDENTITY` for style 0, which matches nothing.
    """
    labels = np.full(len(items), NO_IDENTITY, dtype=np.int64)
    styled = items.styles > 0
    keys = np.stack([items.pair_ids[styled], items.styles[styled]], axis=1)
    if len(keys):
        _, inverse = np.unique(keys, axis=0, return_inverse=True)
        labels[styled] = inverse.reshape(-1)
    return labels


def garments_of(split: Split, image_ids: Ints) -> Garments:
    """The annotated garments of photos of a DeepFashion2 split, as the source ``DeepFashion2/<split>``.

    Args:
        split: an annotated split.
        image_ids: (n,) int64, the photos to use; order and repeats do not matter.

    Raises:
        InputError: the split has no annotations, or an image id is not in it.
    """
    if split.items is None:
        raise InputError(f"{split.root / split.name}: has no annotations, and a retriever cannot train without")
    wanted = np.unique(image_ids)
    foreign = np.setdiff1d(wanted, split.photos.image_ids)
    if len(foreign):
        raise InputError(f"{split.root / split.name}: there is no photo {foreign[0]:06d} to train on")
    items = split.items.take(np.isin(split.items.image_ids, wanted))
    photo_ids, photo_rows = np.unique(items.image_ids, return_inverse=True)
    return Garments(
        source=f"DeepFashion2/{split.name}",
        photos=tuple(split.photo_path(image_id) for image_id in photo_ids.tolist()),
        photo_rows=photo_rows.reshape(-1),
        boxes_xyxy=items.boxes_xyxy,
        identities=identity_labels(items),
        is_consumer=items.is_consumer,
        record=TrainedOn.of(split, wanted),
    )


@dataclass(frozen=True)
class SourceCounts:
    """What is at hand of a data set, all its splits and parts together.

    Attributes:
        identities: different items.
        images: photos.
        rendered: whether any of them were rendered.
    """

    identities: int
    images: int
    rendered: bool


def count_sources(parts: Sequence[Garments]) -> dict[str, SourceCounts]:
    """Data set -> what is at hand of it; splits of DeepFashion2 are added up.

    Args:
        parts: none twice.
    """
    counts: dict[str, SourceCounts] = {}
    for part in parts:
        name = part.source.partition("/")[0]
        identities = len(np.unique(part.identities[part.identities != NO_IDENTITY]))
        before = counts.get(name, SourceCounts(0, 0, False))
        counts[name] = SourceCounts(
            before.identities + identities,
            before.images + part.record.num_photos,
            before.rendered or part.record.rendered,
        )
    return counts
