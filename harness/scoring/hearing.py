"""Where every detected box goes and what it would answer: what all protocols and examinations decide on.

Legend: R result rows, Q queries (items of style > 0), K = 20 gallery entries of a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.scoring.overlap import common_codes, first_of_group, iou, join
from harness.scoring.results import Results
from harness.scoring.truth import Gallery, Queries, refuse_unanswerable
from harness.types import Bools, Floats, Ints

MIN_IOU = 0.5

_BLOCK = 1 << 16
"""Result rows whose entries are looked at at once: 10 MB of gallery ids."""


@dataclass(frozen=True, eq=False)
class Hearing:
    """Results and truth brought together. The columns are computed when they are first asked for.

    Attributes:
        results: R rows.
        queries: all annotated consumer items, those of style 0 included.
        gallery: all annotated shop items.
        item_rows: (R,) int64, the row of the item that each box goes to; -1 for photos without an item.
        overlaps: (R,) float64, the IoU with that item; 0 where there is none.
    """

    results: Results
    queries: Queries
    gallery: Gallery
    item_rows: Ints
    overlaps: Floats

    @classmethod
    def of(cls, results: Results, queries: Queries, gallery: Gallery) -> Hearing:
        """Assign every box to an item.

        Raises:
            InputError: queries and gallery do not belong together; see `refuse_unanswerable`.
        """
        refuse_unanswerable(queries, gallery)
        return cls(results, queries, gallery, *place_boxes(results.image_ids, results.boxes_xyxy, queries))

    @property
    def size(self) -> int:
        """Q."""
        return len(self.query_rows)

    @cached_property
    def query_rows(self) -> Ints:
        """(Q,) int64, rows of the query file of style > 0."""
        return self.queries.asked_rows

    @cached_property
    def query_numbers(self) -> Ints:
        """(R,) int64, the query that each box goes to as a number 0 … Q - 1; -1 if to none or to one of style 0."""
        return query_numbers(self.item_rows, self.queries)

    @cached_property
    def has_category(self) -> Bools:
        """(R,) bool, whether a box goes to a query and is of its category."""
        goes = self.query_numbers >= 0
        goes[goes] = self.queries.category_ids[self.item_rows[goes]] == self.results.category_ids[goes]
        return goes

    @cached_property
    def hit_ranks(self) -> Ints:
        """(R,) int64, the rank of each row's first entry that is right for its query; 0 for none.

        Right is what overlaps a counterpart of the query in the entry's photo with an IoU of 0.5 or more.
        """
        return self._ranks[0]

    @cached_property
    def photo_ranks(self) -> Ints:
        """(R,) int64, the rank of each row's first entry whose photo holds a counterpart, whatever its box; 0: none."""
        return self._ranks[1]

    @cached_property
    def num_counterparts(self) -> Ints:
        """(Q,) int64, shop items that match each query, at least 1."""
        query_keys, answer_keys = self._keys
        return np.bincount(answer_keys)[query_keys]

    @cached_property
    def _keys(self) -> tuple[Ints, Ints]:
        """(Q,) and (G,) numbers, equal where pair and style are; every query's is among the gallery's."""
        asked, queries, gallery = self.query_rows, self.queries, self.gallery
        query_keys, answer_keys = common_codes(
            (queries.pair_ids[asked], queries.styles[asked]), (gallery.pair_ids, gallery.styles)
        )
        return query_keys, answer_keys

    def counterparts(self) -> tuple[Ints, Ints]:
        """Every pair of a query and a shop item that matches it: (pairs,) query numbers, (pairs,) gallery rows."""
        return join(*self._keys)

    @cached_property
    def _ranks(self) -> tuple[Ints, Ints]:
        """(R,) hit ranks and (R,) photo ranks."""
        results, gallery = self.results, self.gallery
        never = results.gallery_image_ids_RK.shape[1] + 1
        hit_ranks, photo_ranks = (np.full(len(results), never) for _ in range(2))
        for rows, entries, answers in self._shown():
            np.minimum.at(photo_ranks, rows, entries + 1)
            overlap = iou(results.gallery_boxes_xyxy_RK4[rows, entries], gallery.boxes_xyxy[answers])
            right = overlap >= MIN_IOU
            np.minimum.at(hit_ranks, rows[right], entries[right] + 1)
        return hit_ranks % never, photo_ranks % never

    def _shown(self) -> Iterator[tuple[Ints, Ints, Ints]]:
        """Result rows, entries of them, and gallery rows: counterparts of the row's query in the photo of the entry."""
        query_keys, answer_keys = self._keys
        photos = self.gallery.image_ids
        # Nearly all entries show a photo without a counterpart. A table of hashes, one place in 64 or fewer taken, lets
        # few of those through, and is four times faster than comparing keys.
        size_bits = max(16, (64 * len(photos)).bit_length())
        is_taken = np.zeros(1 << size_bits, np.bool_)
        is_taken[_hashed(answer_keys, photos, size_bits)] = True
        all_rows = np.flatnonzero(self.query_numbers >= 0)
        for start in range(0, len(all_rows), _BLOCK):
            rows = all_rows[start : start + _BLOCK]
            keys = query_keys[self.query_numbers[rows]]
            shown = self.results.gallery_image_ids_RK[rows]
            number, entries = np.nonzero(is_taken[_hashed(keys[:, None], shown, size_bits)])
            entry_codes, answer_codes = common_codes((keys[number], shown[number, entries]), (answer_keys, photos))
            found, answers = join(entry_codes, answer_codes)
            yield rows[number[found]], entries[found], answers


def _hashed(keys: Ints, photos: Ints, size_bits: int) -> Ints:
    """Places below 2 ** size_bits for pairs of numbers; what overflows is cut off, as hashes may."""
    mixed = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + photos.astype(np.uint64)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    return (mixed >> np.uint64(64 - size_bits)).astype(np.int64)


def place_boxes(image_ids: Ints, boxes_xyxy: Floats, annotated: Queries | Gallery) -> tuple[Ints, Floats]:
    """The item that each box goes to: the one of its photo that it overlaps most, the first of equals, no minimum.

    Args:
        image_ids: (R,) int64, photos of the boxes.
        boxes_xyxy: (R, 4) float64, pixels.
        annotated: the items, those of style 0 included.

    Returns:
        (R,) int64, rows of the items, -1 for photos without an item; (R,) float64, the IoU, 0 there.
    """
    items, overlaps = np.full(len(image_ids), -1, np.int64), np.zeros(len(image_ids))
    box_rows, item_rows = join(image_ids, annotated.image_ids)
    if len(box_rows) == 0:
        return items, overlaps
    overlap = iou(boxes_xyxy[box_rows], annotated.boxes_xyxy[item_rows])
    starts = first_of_group(box_rows)
    largest = np.repeat(np.maximum.reduceat(overlap, starts), np.diff(np.append(starts, len(box_rows))))
    equal = np.flatnonzero(overlap == largest)
    first = equal[first_of_group(box_rows[equal])]
    items[box_rows[first]] = item_rows[first]
    overlaps[box_rows[first]] = overlap[first]
    return items, overlaps


def query_numbers(item_rows: Ints, queries: Queries) -> Ints:
    """(R,) int64, items as numbers 0 … Q - 1 of the queries; -1 for no item and for items of style 0."""
    asked = queries.asked_rows
    numbers = np.full(len(queries) + 1, -1, np.int64)
    numbers[asked] = np.arange(len(asked))
    return numbers[item_rows]  # item row -1 is the place after the last item
