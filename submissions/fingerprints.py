"""Entries as 64-bit numbers, so that millions of them can be looked up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.types import Floats, Ints

Fingerprints = NDArray[np.uint64]


def fingerprints(image_ids: Ints, boxes: Floats, categories: Ints | None = None) -> Fingerprints:
    """(N,) a 64-bit number for each, the same for equal values; two others of a million agree once in 40 million."""
    coordinates = (boxes + 0.0).view(np.uint64)  # -0.0 is 0.0
    found = image_ids.astype(np.uint64)
    for column in (*coordinates.T, *(() if categories is None else (categories.astype(np.uint64),))):
        found = (found ^ (found >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
        found = (found ^ (found >> np.uint64(29)) ^ column) * np.uint64(0xBF58476D1CE4E5B9)
    return found ^ (found >> np.uint64(32))


def numbered(keys: Fingerprints) -> Fingerprints:
    """The same, with the first, second … row of equal keys told apart."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(keys) else np.zeros(0, int)
    number = np.arange(len(keys)) - np.repeat(starts, np.diff(np.append(starts, len(keys))))
    keys = keys.copy()
    keys[order] += number.astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93)
    return keys
