"""Photos of a split parted by pairs: to train on, to choose by, to report on."""

from __future__ import annotations

import numpy as np

from harness.training.fitting import step_seed
from harness.types import InputError, Ints, Items, Split

HELD_OUT_SHARE = 0.1
"""Of the training pairs, for whatever is fitted on pairs that no model was trained on."""


def training_ids(split: Split, hold_out: bool) -> Ints:
    """Photos of a split to train on: all, or those that `held_out_pairs` leaves."""
    return held_out_pairs(split)[0] if hold_out else split.photos.image_ids


def held_out_pairs(split: Split) -> tuple[Ints, Ints]:
    """Photos of a training split in two parts that share no pair.

    Args:
        split: an annotated split.

    Returns:
        Ids of the photos to train on, and of the held-out ones (`HELD_OUT_SHARE` of the pairs, at least one). The same
        split is always parted in the same way, so that models of different seeds leave out the same photos.

    Raises:
        InputError: the split has no annotations, or fewer than two pairs.
    """
    pairs = _pairs(split, split.photos.image_ids)
    if len(pairs) < 2:
        raise InputError(f"{split.root / split.name}: has {len(pairs)} pairs, at least 2 are needed to hold one out")
    count = max(1, round(HELD_OUT_SHARE * len(pairs)))
    held_ids = _photos_of(split, split.photos.image_ids, step_seed(0, 0x4E1D).permutation(pairs)[:count])
    return np.setdiff1d(split.photos.image_ids, held_ids), held_ids


def halves(split: Split, image_ids: Ints) -> tuple[Ints, Ints]:
    """Photos of a split in two halves that share no pair: one to search on, one to report on.

    Args:
        split: an annotated split.
        image_ids: (P,) which photos to part; always in the same way.

    Raises:
        InputError: the split has no annotations, or the photos are of fewer than two pairs.
    """
    pairs = _pairs(split, image_ids)
    if len(pairs) < 2:
        raise InputError(
            f"{split.root / split.name}: {len(pairs)} pairs are there to fit and to report on, at least 2 are "
            "needed; or fit on all there are, without a report: --no-report"
        )
    shuffled = step_seed(0, 0x4A1F).permutation(pairs)
    return _photos_of(split, image_ids, shuffled[::2]), _photos_of(split, image_ids, shuffled[1::2])


def _pairs(split: Split, image_ids: Ints) -> Ints:
    return np.unique(annotated(split, image_ids).pair_ids)


def _photos_of(split: Split, image_ids: Ints, pairs: Ints) -> Ints:
    items = annotated(split, image_ids)
    return np.unique(items.image_ids[np.isin(items.pair_ids, pairs)])


def annotated(split: Split, image_ids: Ints) -> Items:
    """The annotated items of some photos.

    Raises:
        InputError: the split has no annotations.
    """
    if split.items is None:
        raise InputError(f"{split.root / split.name}: has no annotations, so nothing can be fitted or trained on it")
    return split.items.take(np.isin(split.items.image_ids, image_ids))
