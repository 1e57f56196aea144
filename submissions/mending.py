"""What is changed in a row, and the question whether a block needs it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from harness.scoring.rows import Block, ResultRow
from harness.types import GALLERY_LENGTH, Floats
from submissions.conventions import Survey
from submissions.coordinates import MARGIN_PX, STICKS_OUT_PX
from submissions.entries import RepeatedFields, typed_entries
from submissions.photos import KnownPhotos
from submissions.values import INTEGER_LIMIT, as_number, as_whole, is_box

WHOLE_TEXT = "whole number that was a text"
WHOLE_FRACTION = "whole number that had a fraction of 0"
NUMBER_TEXT = "number that was a text"
CUT = "gallery list cut to 20"
FILLED = "gallery list filled up to 20 with its last entry"
SWAPPED = "box with its corners put in order"
CONVERTED = "box converted from [x, y, width, height]"
CLIPPED = "box clipped to its photo"
GIVEN_ONCE = "field given twice with the same value, now once"

_DECIMALS = 6


class Mender:
    """Mends rows one by one and keeps account.

    Attributes:
        changes: for each sort of change the rows in which it was made, once for each time.
    """

    def __init__(self, survey: Survey, photos: KnownPhotos | None, *, moves_boxes: bool) -> None:
        """Whether boxes are moved, or values only brought to their types: what boxes mean is told by all of them."""
        self._moves_boxes = moves_boxes
        self._may_swap = {name: survey.may_swap(name) for name in survey.coordinates}
        self._may_clip = {name: survey.may_clip(name) for name in survey.coordinates}
        self._are_xywh = {name: survey.are_xywh(name) for name in survey.coordinates}
        self._are_normalised = {name: counts.are_normalised for name, counts in survey.coordinates.items()}
        self._photos = photos if photos is not None and photos.size_of is not None else None
        self.changes: dict[str, list[int]] = {}

    def is_sound(self, block: Block[ResultRow]) -> bool:
        """Whether no row of a block can need a change; much faster than to try."""
        entries = None if block.rows is None else typed_entries(block.first_row, block.rows)
        if entries is None:
            return False
        if not self._moves_boxes:
            return True
        for name, certainty in self._are_xywh.items():
            column = entries.columns[name]
            if certainty == "surely":
                return False
            if self._may_swap[name] and (column.values[:, :2] > column.values[:, 2:]).any():
                return False
            if self._may_clip[name] and self._photos is not None and column.image_ids is not None:
                sizes = self._photos.sizes(column.image_ids)
                if (column.values < -MARGIN_PX).any() or (column.values[:, 2:] > sizes + MARGIN_PX).any():
                    return False
        return True

    def mend(self, row: Any, number: int) -> Any:
        """The mended row; None if nothing is changed.

        Args:
            row: as `submissions.entries.walk_rows` yields it.
            number: of the row.
        """
        if not isinstance(row, dict):
            return None
        changes: list[str] = []
        if isinstance(row, RepeatedFields):
            if not _says_the_same_twice(row):
                return None
            changes.append(GIVEN_ONCE)
        mended = dict(row)
        for name in ("query_image_id", "query_cls"):
            if name in mended:
                mended[name] = _whole(mended[name], changes)
        if "query_score" in mended:
            mended["query_score"] = _number(mended["query_score"], changes)
        self._mend_lists(mended, changes)
        if "query_bbox" in mended:
            mended["query_bbox"] = self._box(mended["query_bbox"], "query_bbox", mended.get("query_image_id"), changes)
        boxes, ids = mended.get("gallery_bbox"), mended.get("gallery_image_id")
        if isinstance(boxes, list):
            ids = ids if isinstance(ids, list) and len(ids) == len(boxes) else [None] * len(boxes)
            mended["gallery_bbox"] = [
                self._box(box, "gallery_bbox", image_id, changes) for box, image_id in zip(boxes, ids, strict=True)
            ]
        for change in changes:
            self.changes.setdefault(change, []).append(number)
        return mended if changes else None

    def _mend_lists(self, mended: dict[str, Any], changes: list[str]) -> None:
        ids, boxes = mended.get("gallery_image_id"), mended.get("gallery_bbox")
        if isinstance(ids, list) and isinstance(boxes, list):
            if min(len(ids), len(boxes)) >= GALLERY_LENGTH < max(len(ids), len(boxes)):
                ids, boxes = ids[:GALLERY_LENGTH], boxes[:GALLERY_LENGTH]
                changes.append(CUT)
            elif 0 < len(ids) == len(boxes) < GALLERY_LENGTH:
                missing = GALLERY_LENGTH - len(ids)
                ids, boxes = ids + ids[-1:] * missing, boxes + boxes[-1:] * missing
                changes.append(FILLED)
            mended["gallery_bbox"] = boxes
        if isinstance(ids, list):
            mended["gallery_image_id"] = [_whole(value, changes) for value in ids]

    def _box(self, box: Any, name: str, image_id: Any, changes: list[str]) -> Any:
        if type(box) is not list or len(box) != 4:
            return box
        box = [_number(value, changes) for value in box]
        if not self._moves_boxes or not is_box(box) or self._are_normalised[name]:
            return box
        if self._are_xywh[name] == "surely":
            changes.append(CONVERTED)
            return [*box[:2], round(box[0] + box[2], _DECIMALS), round(box[1] + box[3], _DECIMALS)]
        if self._may_swap[name] and (box[0] > box[2] or box[1] > box[3]):
            changes.append(SWAPPED)
            box = [*map(min, box[:2], box[2:]), *map(max, box[:2], box[2:])]
        return self._clipped(box, image_id, changes) if self._may_clip[name] else box

    def _clipped(self, box: list[Any], image_id: Any, changes: list[str]) -> list[Any]:
        """The part of a box in its photo, if it sticks out of it a little; others stay as they are."""
        if self._photos is None or type(image_id) is not int or not 0 <= image_id < INTEGER_LIMIT:
            return box
        sizes: Floats = self._photos.sizes(np.array([image_id]))
        if not np.isfinite(sizes).all():
            return box
        width, height = map(int, sizes[0].tolist())
        limits = (width, height, width, height)
        inside = [min(max(value, 0), limit) for value, limit in zip(box, limits, strict=True)]
        farthest = max(abs(one - other) for one, other in zip(box, inside, strict=True))
        if not MARGIN_PX < farthest <= STICKS_OUT_PX or inside[0] >= inside[2] or inside[1] >= inside[3]:
            return box
        changes.append(CLIPPED)
        return inside


def _whole(value: Any, changes: list[str]) -> Any:
    whole = as_whole(value)
    if whole is None:
        return value
    changes.append(WHOLE_TEXT if isinstance(value, str) else WHOLE_FRACTION)
    return whole


def _number(value: Any, changes: list[str]) -> Any:
    number = as_number(value)
    if number is None:
        return value
    changes.append(NUMBER_TEXT)
    return number


def _says_the_same_twice(row: RepeatedFields) -> bool:
    said: dict[str, str] = {}
    try:
        return all(said.setdefault(name, text) == text for name, text in ((k, json.dumps(v)) for k, v in row.pairs))
    except RecursionError:
        return False
