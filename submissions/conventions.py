"""What a file as a whole says of its conventions: boxes as xywh, unit coordinates, categories from 0, another split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from harness.types import CATEGORIES, GALLERY_LENGTH, Floats, Ints
from submissions.coordinates import MIN_SIZED, STICKS_OUT_PX, Certainty, Coordinates
from submissions.photos import KnownPhotos
from submissions.problems import Kind

LOOKS_LIKE_XYWH = Kind("looks-like-xywh", "warning", "boxes look like [x, y, width, height]")
LOOKS_NORMALISED = Kind("looks-normalised", "error", "coordinates look normalised")
LOOKS_LIKE_FROM_0 = Kind("looks-like-from-0", "warning", "categories look like 0–12")
LOOKS_LIKE_OTHER_SPLIT = Kind("looks-like-other-split", "error", "ids look like those of another split")
LOOKS_SORTED_BY_ID = Kind("looks-sorted-by-id", "warning", "gallery lists look sorted by id")

SAME_ENTRY = Kind("same-entry", "warning", "gallery lists name one entry throughout")
AMBIGUOUS_CORNERS = Kind("ambiguous-corners", "warning", "inverted boxes have more than one reading")
FAR_OUTSIDE = Kind("far-outside", "warning", "boxes reach far out of their photos")

_MIN_ROWS = 5
_SAMPLE = 100_000
_MIN_SHARE, _MIN_LISTED_SHARE, _MIN_FIELD_SHARE = 0.7, 0.3, 0.5


class Survey:
    """What is counted over a whole file to tell its conventions."""

    def __init__(self, photos: KnownPhotos | None) -> None:
        self.photos = photos
        self.coordinates = {"query_bbox": Coordinates(), "gallery_bbox": Coordinates()}
        self.num_of_category = np.zeros(len(CATEGORIES) + 2, np.int64)
        self.num_galleries = self.num_ascending = self.num_uniform = 0
        self._ids: dict[bool, list[Ints]] = {True: [], False: []}

    def add_boxes(self, name: str, boxes: Floats, sizes: Floats | None) -> None:
        """The boxes of a field."""
        self.coordinates[name].add(boxes, sizes)

    def add_categories(self, categories: Ints) -> None:
        """Categories; those outside 0–13 are counted together."""
        outside = (categories < 0) | (categories > len(CATEGORIES))
        within = np.where(outside, len(CATEGORIES) + 1, categories)
        self.num_of_category += np.bincount(within, minlength=len(CATEGORIES) + 2)

    def add_galleries(self, ids_RK: Ints, boxes_RK4: Floats) -> None:
        """Gallery lists, best first as far as one knows."""
        same_photo = (ids_RK == ids_RK[:, :1]).all(axis=1)
        self.num_uniform += int((boxes_RK4[same_photo] == boxes_RK4[same_photo, :1]).all(axis=(1, 2)).sum())
        self.num_galleries += len(ids_RK)
        ascends = (ids_RK[:, 1:] >= ids_RK[:, :-1]).all(axis=1) & (ids_RK[:, 0] < ids_RK[:, -1])
        self.num_ascending += int(ascends.sum())

    def add_ids(self, image_ids: Ints, *, consumer: bool) -> None:
        """Photo ids of the queries, or of the gallery lists; the first of many are a sample."""
        kept = self._ids[consumer]
        if self.photos is not None and sum(map(len, kept)) < _SAMPLE:
            kept.append(image_ids)

    def are_xywh(self, name: str) -> Certainty:
        """Whether the boxes of a field are [x, y, width, height].

        If one field surely is, and the other has inverted boxes but too few boxes to tell, that is taken for the same,
        or both are left in doubt.
        """
        one = self.coordinates[name]
        other = next(found for field, found in self.coordinates.items() if field != name)
        if other.are_xywh == "surely" and one.is_torn:
            return "surely" if one.num_inverted >= 0.1 * one.num and not one.num_negative else "perhaps"
        if one.are_xywh == "surely" and other.is_torn:
            return self.are_xywh(next(field for field in self.coordinates if field != name))
        if one.are_xywh == "surely" and one.num_sized < MIN_SIZED:
            # A part of the rows in xywh shows in gallery lists alone: boxes of queries may alternate.
            is_doubtful = other.are_xywh == "perhaps" or (name == "query_bbox" and other.are_xywh == "no")
            return "perhaps" if is_doubtful else "surely"
        return one.are_xywh

    def may_swap(self, name: str) -> bool:
        """Whether the inverted boxes of a field can be nothing but corners in the wrong order."""
        return self.are_xywh(name) == "no" and self.coordinates[name].may_swap

    def may_clip(self, name: str) -> bool:
        """Whether the boxes of a field belong to their photos, so that what sticks out of them a little is rounding."""
        return self.are_xywh(name) == "no" and not self.coordinates[name].are_far_out

    def diagnoses(self) -> Iterator[tuple[Kind, str]]:
        """One sentence for each convention that the file seems to break as a whole."""
        yield from self._box_diagnoses()
        if self._are_from_0():
            yield (
                LOOKS_LIKE_FROM_0,
                f"categories look like 0–12: {self.num_of_category[0]:,} rows say 0 and none says 13, but 1 (short "
                "sleeve top) to 13 (sling dress) are due; nothing tells a shift from a background class 0, so --fix "
                "leaves them: add 1 yourself if your classes begin at 0",
            )
        if self.num_galleries >= _MIN_GALLERIES and self.num_ascending >= 0.9 * self.num_galleries:
            yield (
                LOOKS_SORTED_BY_ID,
                f"{self.num_ascending:,} of {self.num_galleries:,} gallery lists are sorted by image id; best first "
                "is due, and a ranking by similarity is hardly ever sorted by id",
            )
        if self.num_galleries >= _MIN_ROWS and self.num_uniform > 0.5 * self.num_galleries:
            yield (
                SAME_ENTRY,
                f"{self.num_uniform:,} of {self.num_galleries:,} gallery lists name the same entry {GALLERY_LENGTH} "
                "times, so every rank but the first is wasted; a short list is filled up with its last entry alone",
            )
        if self.photos is not None:
            yield from self._split_diagnosis(self.photos)

    def _box_diagnoses(self) -> Iterator[tuple[Kind, str]]:
        for name, counts in self.coordinates.items():
            if counts.are_normalised:
                yield (
                    LOOKS_NORMALISED,
                    f"{name}: all {counts.num:,} boxes lie in [0, 1], so the coordinates look normalised; pixels are "
                    "due: multiply x by the photo's width and y by its height",
                )
            elif self.are_xywh(name) != "no":
                yield LOOKS_LIKE_XYWH, f"{name}: {counts.as_xywh(self.are_xywh(name))}"
            else:
                if counts.num_inverted and not counts.may_swap:
                    yield AMBIGUOUS_CORNERS, f"{name}: {counts.as_inverted()}"
                if counts.are_far_out and counts.num_sized >= MIN_SIZED:
                    yield (
                        FAR_OUTSIDE,
                        f"{name}: {counts.num_far_out / counts.num_sized:.1%} of the boxes reach out of their photos "
                        f"by more than {STICKS_OUT_PX:g} px: resized photos? y1, x1, y2, x2? ids off by one? --fix "
                        "leaves them",
                    )

    def _are_from_0(self) -> bool:
        counts = self.num_of_category
        return bool(counts.sum() >= _MIN_ROWS and counts[0] and not counts[len(CATEGORIES) :].any())

    def _split_diagnosis(self, photos: KnownPhotos) -> Iterator[tuple[Kind, str]]:
        """Most ids fit no photo: of which split are they?"""
        ids = {consumer: np.concatenate([*kept, np.zeros(0, np.int64)]) for consumer, kept in self._ids.items()}
        shares = _shares(photos, ids)
        if not shares:
            return
        here = _mean(shares)
        least = min(shares, key=lambda consumer: shares[consumer])
        if here > (_MIN_SHARE if photos.is_complete else _MIN_LISTED_SHARE) and shares[least] >= _MIN_FIELD_SHARE:
            return
        what = f"only {here:.1%} of the ids are photos of the right kind in {photos.source}"
        if shares[least] < _MIN_FIELD_SHARE:
            field = "query_image_id" if least else "gallery_image_id"
            what += f" (of {field} {shares[least]:.1%})"
        for name, of in () if photos.other_splits is None else photos.other_splits():
            there = _mean(_shares(KnownPhotos.of_split(name, of), ids))
            if there > 0.95:
                yield LOOKS_LIKE_OTHER_SPLIT, f"{what}, but {there:.1%} in the {name} split: --split {name}?"
                return
        if photos.are_of(ids[least], consumer=not least).mean() > _MIN_FIELD_SHARE:
            yield LOOKS_LIKE_OTHER_SPLIT, f"{what}; the ids are those of {'shop' if least else 'consumer'} photos"
            return
        yield LOOKS_LIKE_OTHER_SPLIT, f"{what}; is the file of another split (train, validation, test)?"


_MIN_GALLERIES = 5 * GALLERY_LENGTH


def _shares(photos: KnownPhotos, ids: Mapping[bool, Ints]) -> dict[bool, float]:
    """The share of consumer and of shop ids that are such photos; without those of which there is none."""
    return {kind: float(photos.are_of(some, consumer=kind).mean()) for kind, some in ids.items() if len(some)}


def _mean(shares: Mapping[bool, float]) -> float:
    """The share of all ids, consumer and shop alike; 1 if there is none."""
    return float(np.mean([*shares.values()])) if shares else 1.0
