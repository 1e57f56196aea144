"""The photos that a result file may speak of, told by a data set or by the ground-truth files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from harness.scoring.truth import Gallery, Queries
from harness.types import Bools, Floats, Ints, Photos

PhotoSize = Callable[[int], tuple[int, int]]
OtherSplits = Callable[[], Iterable[tuple[str, Photos]]]


@dataclass(frozen=True, eq=False)
class KnownPhotos:
    """Consumer and shop photos, and what else is known of them.

    Attributes:
        source: where they are known from, for messages: ``the validation split``.
        consumer_ids: (C,) int64, ascending.
        shop_ids: (S,) int64, ascending.
        is_complete: whether a photo that is not among them does not exist. Ground-truth files leave out photos
            without a query or an answer; a row that speaks of one of those counts nothing, and that may be meant.
        asked_ids: (A,) int64, consumer photos that are missed without an entry.
        size_of: width and height of a photo in pixels; None if unknown. Asked once for each photo that the file names.
        other_splits: names and photos of the other splits of the data set, to tell which of them a file answers;
            asked only if many ids are wrong, and only until one fits.
    """

    source: str
    consumer_ids: Ints
    shop_ids: Ints
    is_complete: bool
    asked_ids: Ints
    size_of: PhotoSize | None = None
    other_splits: OtherSplits | None = None
    _ids: Ints = field(init=False, repr=False)
    _sizes: Floats = field(init=False, repr=False)  # (P, 2) of those ids, NaN as long as nobody asked

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ids", np.union1d(self.consumer_ids, self.shop_ids))
        object.__setattr__(self, "_sizes", np.full((len(self._ids), 2), np.nan))

    @classmethod
    def of_split(
        cls, name: str, photos: Photos, size_of: PhotoSize | None = None, other_splits: OtherSplits | None = None
    ) -> KnownPhotos:
        """All photos of a split."""
        consumer, shop = photos.image_ids[photos.is_consumer], photos.image_ids[~photos.is_consumer]
        return cls(f"the {name} split", consumer, shop, True, consumer, size_of, other_splits)

    @classmethod
    def of_truth(cls, queries: Queries, gallery: Gallery) -> KnownPhotos:
        """The photos that ground-truth files name; those with a query of style > 0 are asked."""
        return cls(
            "the ground truth",
            np.unique(queries.image_ids),
            np.unique(gallery.image_ids),
            False,
            np.unique(queries.image_ids[queries.styles > 0]),
        )

    def are_of(self, image_ids: Ints, *, consumer: bool) -> Bools:
        """(N,) whether each is a consumer photo, or a shop photo."""
        return _among(image_ids, self.consumer_ids if consumer else self.shop_ids)

    def sizes(self, image_ids: Ints) -> Floats:
        """(N, 2) width and height of each photo in pixels; NaN for photos that are not known.

        Raises:
            InputError: a photo of the data set cannot be read.
        """
        sizes = np.full((len(image_ids), 2), np.nan)
        if self.size_of is None:
            return sizes
        known = _among(image_ids, self._ids)
        rows = np.searchsorted(self._ids, image_ids[known])
        for row in np.unique(rows[np.isnan(self._sizes[rows, 0])]).tolist():
            self._sizes[row] = self.size_of(int(self._ids[row]))
        sizes[known] = self._sizes[rows]
        return sizes


def _among(values: Ints, ascending: Ints) -> Bools:
    if len(ascending) == 0:
        return np.zeros(len(values), np.bool_)
    found: Bools = ascending[np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)] == values
    return found
