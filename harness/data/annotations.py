"""One DeepFashion2 annotation file: its fields checked one by one, its items as rows of numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
import orjson

from harness.types import CATEGORIES, Floats

SOURCES = {"user": True, "shop": False}
"""The values of ``source``, and whether they mean a consumer photo."""

ATTRIBUTES = ("scale", "occlusion", "zoom_in", "viewpoint")
"""Optional attributes of an item, 1–3 each; 0 where the file has none."""

_ITEM_KEY = re.compile(r"item([1-9][0-9]*)")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a data set.

    Attributes:
        where: the file, and the field inside it.
        what: what is wrong: what was expected and what is there.
        fatal: False if the data can be used all the same.
    """

    where: str
    what: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(slots=True)
class Annotation:
    """What one annotation file says.

    Attributes:
        is_consumer: True for ``source: user``; None if the file does not say.
        boxes_xyxy: one [x1, y1, x2, y2] an item, in the order of item numbers.
        numbers: one (item number, category, style, pair, scale, occlusion, zoom-in, viewpoint) an item.
        segmentations: the raw ``segmentation`` of each such item, None where the file has none.
        problems: everything wrong with the file; items with problems are left out of the rows.
    """

    is_consumer: bool | None = None
    boxes_xyxy: list[list[float]] = field(default_factory=list)
    numbers: list[tuple[int, ...]] = field(default_factory=list)
    segmentations: list[Any] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def polygons(self) -> list[list[Floats]]:
        """For every item its usable polygons, (V, 2) float64 pixels each with V >= 3."""
        return [
            [np.array(one, dtype=np.float64).reshape(-1, 2) for one in raw if _is_polygon(one)]
            if isinstance(raw, list)
            else []
            for raw in self.segmentations
        ]


def parse_annotation(data: bytes, file: str, *, thorough: bool = False) -> Annotation:
    """One annotation file, with everything that is wrong with it.

    Args:
        data: the bytes of the file.
        file: how problems name the file.
        thorough: also look at the fields that only some uses need (category name, landmarks, segmentation).

    Returns:
        the items that are sound, and every problem; nothing is raised.
    """
    annotation = Annotation()
    problems = annotation.problems
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        problems.append(Problem(file, f"is not JSON ({error}, {len(data):,} bytes)"))
        return annotation
    if not isinstance(document, dict):
        problems.append(Problem(file, f"expected an object, got {_kind(document)}"))
        return annotation
    source, pair_id = document.get("source"), document.get("pair_id")
    if isinstance(source, str) and source in SOURCES:
        annotation.is_consumer = SOURCES[source]
    else:
        problems.append(Problem(f"{file}: source", f'expected "user" or "shop", got {_shown(document, "source")}'))
    if not _is_int(pair_id) or pair_id < 0:
        problems.append(Problem(f"{file}: pair_id", f"expected an integer >= 0, got {_shown(document, 'pair_id')}"))
        pair_id = 0
    items: list[tuple[int, Any]] = []
    for key in document:
        if key.startswith("item"):
            match = _ITEM_KEY.fullmatch(key)
            if match is None:
                problems.append(Problem(f"{file}: {key}", "expected a key such as item1, item2, …"))
            else:
                items.append((int(match[1]), document[key]))
    items.sort(key=lambda item: item[0])
    for number, item in items:
        wrong = list(_item_problems(item, f"{file}: item{number}", thorough))
        problems += wrong
        if not any(problem.fatal for problem in wrong):
            annotation.boxes_xyxy.append(item["bounding_box"])
            annotation.segmentations.append(item.get("segmentation"))
            attributes = (item.get(name, 0) for name in ATTRIBUTES)
            annotation.numbers.append((number, item["category_id"], item["style"], pair_id, *attributes))
    return annotation


def _item_problems(item: Any, where: str, thorough: bool) -> Iterator[Problem]:
    if not isinstance(item, dict):
        yield Problem(where, f"expected an object, got {_kind(item)}")
        return
    category = item.get("category_id")
    if not _is_int(category) or not 1 <= category <= len(CATEGORIES):
        expected = f"expected an integer from 1 to {len(CATEGORIES)}"
        yield Problem(f"{where}: category_id", f"{expected}, got {_shown(item, 'category_id')}")
    style = item.get("style")
    if not _is_int(style) or style < 0:
        yield Problem(f"{where}: style", f"expected an integer >= 0, got {_shown(item, 'style')}")
    box = item.get("bounding_box")
    if not (isinstance(box, list) and len(box) == 4 and all(_is_number(side) for side in box)):
        expected = "expected [x1, y1, x2, y2] in pixels"
        yield Problem(f"{where}: bounding_box", f"{expected}, got {_shown(item, 'bounding_box')}")
    elif box[0] > box[2] or box[1] > box[3]:
        yield Problem(f"{where}: bounding_box", f"is inverted, expected x1 <= x2 and y1 <= y2, got {box}")
    for name in ATTRIBUTES:
        value = item.get(name, 0)
        if not _is_int(value) or not (1 <= value <= 3 or (name not in item)):
            yield Problem(f"{where}: {name}", f"expected 1, 2 or 3 (or no such field), got {_shown(item, name)}")
    if thorough:
        yield from _rarer_problems(item, where)


def _rarer_problems(item: dict[str, Any], where: str) -> Iterator[Problem]:
    """Fields that the retrieval flow does not need; a data set without them can still be used."""
    category, name = item.get("category_id"), item.get("category_name")
    if _is_int(category) and 1 <= category <= len(CATEGORIES) and name != CATEGORIES[category - 1]:
        expected = f"expected {CATEGORIES[category - 1]!r} for category {category}"
        yield Problem(f"{where}: category_name", f"{expected}, got {_shown(item, 'category_name')}", fatal=False)
    landmarks = item.get("landmarks")
    if not _is_list_of_numbers(landmarks) or len(landmarks) % 3:
        yield Problem(f"{where}: landmarks", "expected a list [x, y, visibility, …]", fatal=False)
    polygons = item.get("segmentation")
    if not isinstance(polygons, list) or not polygons:
        yield Problem(f"{where}: segmentation", "expected a list of polygons", fatal=False)
    elif not all(_is_polygon(one) for one in polygons):
        expected = "expected polygons [x, y, x, y, …] of at least 3 points"
        yield Problem(f"{where}: segmentation", expected, fatal=False)


def _is_int(value: Any) -> TypeGuard[int]:
    return type(value) is int and abs(value) < 1 << 53  # bool is a subclass of int and is no number here


def _is_number(value: Any) -> TypeGuard[float]:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _is_list_of_numbers(value: Any) -> TypeGuard[list[float]]:
    return isinstance(value, list) and all(_is_number(one) for one in value)


def _is_polygon(value: Any) -> bool:
    return _is_list_of_numbers(value) and len(value) >= 6 and len(value) % 2 == 0


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


def _shown(container: dict[str, Any], key: str) -> str:
    """The value as JSON, shortened; or that there is none."""
    if key not in container:
        return "no such field"
    text = orjson.dumps(container[key]).decode()
    return text if len(text) <= 60 else text[:57] + "…"
