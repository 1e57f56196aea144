"""Training photos of a detector, laid into its input and changed by (seed, step, row) alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from harness.data.photos import decode_rgb
from harness.detection import placement
from harness.detection.bridge import Targets
from harness.detection.recipes import DetectorScale
from harness.detection.settings import Augmentation
from harness.detection.transforms import Transforms
from harness.training.fitting import step_seed
from harness.types import InputError, Ints, Items, Split

_SEED_PLACE = 1
"""Keeps the augmentation's random numbers apart from the shuffles', which use (seed, epoch)."""


@dataclass(frozen=True)
class Batch:
    """Photos of one training step.

    Attributes:
        step: which step.
        photos_BHW3: uint8 RGB.
        targets: one a photo.
    """

    step: int
    photos_BHW3: Tensor
    targets: list[Targets]

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; masks stay with mmdet's loader format, in main memory."""
        moved = [
            replace(one, boxes_xyxy=one.boxes_xyxy.to(device), category_ids=one.category_ids.to(device))
            for one in self.targets
        ]
        return Batch(self.step, self.photos_BHW3.to(device, non_blocking=True), moved)


@dataclass(frozen=True)
class _Example:
    step: int
    laid: placement.Laid
    category_ids: NDArray[np.int64]
    masks: NDArray[np.uint8] | None


def photos_with_items(split: Split, image_ids: Ints) -> Ints:
    """Those of the photos that have an annotated garment with some area: without one, CenterNet's loss means nothing.

    Raises:
        InputError: the split has no annotations, a photo is not in it, or none of them has a garment.
    """
    if split.items is None:
        raise InputError(f"{split.root / split.name}: has no annotations, so there is nothing to train a detector on")
    asked = np.unique(np.asarray(image_ids, np.int64))
    foreign = np.setdiff1d(asked, split.photos.image_ids)
    if len(foreign):
        raise InputError(f"{split.root / split.name}: there is no photo with image id {int(foreign[0])}")
    found = asked[np.isin(asked, split.items.image_ids[has_area(split.items)])]
    if len(found) == 0:
        raise InputError(f"{split.root / split.name}: none of the {len(asked)} photos asked for has an annotated item")
    return found


def has_area(items: Items) -> NDArray[np.bool_]:
    """(N,) which items have a box of some width and height; the others are never shown to a detector."""
    return np.asarray((items.boxes_xyxy[:, 2:] > items.boxes_xyxy[:, :2]).all(axis=1), np.bool_)


def num_without_area(split: Split, image_ids: Ints) -> int:
    """How many items of these photos are never shown for that reason."""
    assert split.items is not None
    return int((np.isin(split.items.image_ids, image_ids) & ~has_area(split.items)).sum())


def read_polygons(split: Split, items: Items) -> list[list[placement.Polygon]]:
    """The segmentation polygons of one photo's items, in the items' order; pixels of the photo.

    Args:
        split: where the annotation file is.
        items: all of one photo; at least one.

    Raises:
        InputError: the file is unreadable, or an item has no usable ``segmentation``.
    """
    image_id = int(items.image_ids[0])
    path = split.root / split.name / "annos" / f"{image_id:06d}.json"
    try:
        annotation = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputError(f"{path}: cannot read the annotation: {error}") from error
    polygons = []
    for number in items.item_numbers:
        parts = annotation.get(f"item{number}", {}).get("segmentation")
        if not isinstance(parts, list) or not all(_is_flat_polygon(part) for part in parts):
            raise InputError(
                f"{path}: item{number}.segmentation: expected a list of polygons [x, y, x, y, …] of at least "
                "three points; a detector that learns masks cannot be trained without"
            )
        polygons.append([np.asarray(part, np.float64).reshape(-1, 2) for part in parts])
    return polygons


def _is_flat_polygon(part: Any) -> bool:
    return (
        isinstance(part, list)
        and len(part) >= 6
        and len(part) % 2 == 0
        and all(isinstance(value, int | float) for value in part)
    )


class DetectionDataset(Dataset[_Example]):
    """Examples by (step, row), the index that `harness.training.fitting.StepSampler` gives.

    Which items a photo is shown with: boxes without area never; boxes are cut at the photo's border, and what lies
    outside is dropped; so is what random changes leave narrower than `placement.SMALLEST_PX` of the input (or, by
    `placement`, of less than a third of its area). Where random changes leave no item, the photo is shown without
    them; where it has none even then, the next photo takes its place.

    Args:
        split: with annotations.
        image_ids: (P,) photos to train on, each with at least one item, see `photos_with_items`.
        scale: the recipe's settings.
        seed: of the augmentation.
        padding_rgb: colour outside the photos.
        with_masks: read the polygons too.

    Raises:
        InputError: a photo or an annotation is missing or damaged, or no photo holds any of its items.
    """

    def __init__(
        self,
        split: Split,
        image_ids: Ints,
        scale: DetectorScale,
        seed: int,
        padding_rgb: tuple[int, int, int],
        with_masks: bool,
    ) -> None:
        assert split.items is not None
        self._split, self._scale, self._seed, self._padding = split, scale, seed, padding_rgb
        self.image_ids = image_ids
        shown = split.items.take(has_area(split.items))
        first = np.searchsorted(shown.image_ids, image_ids, "left")
        last = np.searchsorted(shown.image_ids, image_ids, "right")
        self._items = [shown.take(slice(a, b)) for a, b in zip(first, last, strict=True)]
        self._with_masks = with_masks
        self._transforms = None if scale.transforms is None else Transforms(scale.transforms)
        self._photos: list[tuple[placement.Photo, tuple[int, int]]] | None = None
        self._polygons: list[list[list[placement.Polygon]]] | None = None
        if scale.keep_photos_in_memory:
            self._photos = [self._decode(row) for row in range(len(image_ids))]
            if with_masks:
                self._polygons = [read_polygons(split, items) for items in self._items]

    def __len__(self) -> int:
        return len(self.image_ids)

    def _decode(self, row: int) -> tuple[placement.Photo, tuple[int, int]]:
        """(photo, its size before); at its fitted size where no transforms will resize it."""
        photo = decode_rgb(self._split.photo_path(int(self.image_ids[row])))
        size_wh = (photo.shape[1], photo.shape[0])
        return (placement.resized(photo, self._scale.input_px) if self._transforms is None else photo), size_wh

    def __getitem__(self, index: tuple[int, int]) -> _Example:
        step, row = index
        for place in range(row, row + len(self)):
            example = self._shown(step, place % len(self))
            if len(example.category_ids):
                return example
        raise InputError(
            f"{self._split.root / self._split.name}: the boxes of all {len(self)} training photos lie outside of "
            "their photos, so there is nothing to learn from"
        )

    def _shown(self, step: int, row: int) -> _Example:
        photo, size_wh = self._decode(row) if self._photos is None else self._photos[row]
        rng = step_seed(self._seed, _SEED_PLACE, step, row)
        augmentation = self._scale.augmentation
        if self._transforms is not None:
            boxes, polygons = self._fitted(row, np.ones(2))
            try:
                changed = self._transforms(photo, boxes, polygons if self._with_masks else None, rng)
            except InputError as error:
                raise InputError(f"{self._split.photo_path(int(self.image_ids[row]))}: {error}") from error
            if changed is not None:
                return _Example(step, changed.laid, self._items[row].category_ids[changed.laid.kept], changed.masks)
            photo, augmentation = placement.resized(photo, self._scale.input_px), Augmentation()
        boxes, polygons = self._fitted(row, np.array([photo.shape[1] / size_wh[0], photo.shape[0] / size_wh[1]]))
        laid = placement.laid_randomly(photo, boxes, polygons, self._scale.input_px, self._padding, augmentation, rng)
        height, width = laid.photo.shape[:2]
        masks = placement.masks_of(laid.polygons, (height, width)) if self._with_masks else None
        return _Example(step, laid, self._items[row].category_ids[laid.kept], masks)

    def _fitted(
        self, row: int, factors_xy: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], list[list[placement.Polygon]]]:
        """Boxes and polygons of a photo's items after it is resized; no polygons where there are no masks."""
        items = self._items[row]
        polygons: list[list[placement.Polygon]] = []
        if self._with_masks:
            whole = read_polygons(self._split, items) if self._polygons is None else self._polygons[row]
            polygons = [[part * factors_xy for part in parts] for parts in whole]
        return items.boxes_xyxy * np.tile(factors_xy, 2), polygons

    def collate(self, examples: Sequence[_Example]) -> Batch:
        """One batch; photos of differing sizes are padded to the largest, and to multiples of 32 pixels."""
        height, width = (
            -(-max(example.laid.photo.shape[side] for example in examples) // placement.MULTIPLE_PX)
            * placement.MULTIPLE_PX
            for side in (0, 1)
        )
        photos = np.empty((len(examples), height, width, 3), np.uint8)
        photos[:] = self._padding
        targets = []
        for slot, example in zip(photos, examples, strict=True):
            h, w = example.laid.photo.shape[:2]
            slot[:h, :w] = example.laid.photo
            masks = example.masks
            if masks is not None:
                masks = np.pad(masks, ((0, 0), (0, height - h), (0, width - w)))
            boxes = torch.from_numpy(example.laid.boxes_xyxy)
            photo_hw = None if self._transforms is None else (h, w)
            targets.append(Targets(boxes, torch.tensor(example.category_ids), masks, photo_hw))
        return Batch(examples[0].step, torch.from_numpy(photos), targets)
