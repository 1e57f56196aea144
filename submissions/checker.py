"""The checker: everything wrong with anyone's challenge result file, before the scorer trips over it."""

from __future__ import annotations

import gc
import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from harness.types import CATEGORIES, GALLERY_LENGTH, InputError, Split

Severity = Literal["error", "warning"]

FIELDS = ("query_image_id", "query_bbox", "query_cls", "query_score", "gallery_image_id", "gallery_bbox")
"""The fields of an entry, all needed."""

_INTEGER_LIMIT = 1 << 53


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a result file.

    Attributes:
        where: the place, such as ``[3].gallery_bbox[7]`` (both counted from 0); empty for the whole file.
        what: what was expected and what is there.
        severity: ``error`` where the official scorer crashes or silently counts nothing;
            ``warning`` where it takes the file, but the file says something nobody means to say.
    """

    where: str
    what: str
    severity: Severity = "error"


@dataclass(frozen=True)
class Report:
    """What the checker found.

    Attributes:
        path: the file.
        num_rows: entries in it; None if it is no list.
        num_hedged_boxes: boxes of a photo that are entered under more than one category.
        problems: in the order of the file; those of the file as a whole come last.
    """

    path: Path
    num_rows: int | None
    num_hedged_boxes: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """True if no problem is an error."""
        return not any(problem.severity == "error" for problem in self.problems)


def check_submission(path: Path, split: Split | None = None) -> Report:
    """Every problem of a challenge result file, not only the first.

    Class hedging (one box under several categories) is a warning: the scorer takes it, and an honest
    detector that scores each category apart may do it for a few boxes. `Report.num_hedged_boxes` says
    how far it goes.

    Args:
        path: the file.
        split: the split it answers for, to check the image ids against; None if unknown.

    Returns:
        the problems; a file that is not JSON has that one problem.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected a challenge result file (JSON)") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a challenge result file") from error
    with _resting_collector():
        return _check(path, data, None if split is None else _kinds(split))


def _check(path: Path, data: bytes, kinds: dict[int, bool] | None) -> Report:
    try:
        document = _parse(data)
    except (ValueError, RecursionError) as error:
        return Report(path, None, 0, (Problem("", f"is not JSON: {error}"),))
    if not isinstance(document, list):
        return Report(path, None, 0, (Problem("", f"expected a list of entries, got {_shown(document)}"),))
    if not document:
        return Report(path, 0, 0, (Problem("", "holds no entry, so every query is missed"),))
    problems: list[Problem] = []
    for number, row in enumerate(document):
        wrong = list(_row_problems(row, f"[{number}]", kinds))
        problems += wrong
        if not any(problem.severity == "error" for problem in wrong):
            problems += _repeated_answers(row, f"[{number}]")
    num_hedged, repeated = _repeated_boxes(document)
    problems += repeated
    problems += _coverage(document, kinds)
    return Report(path, len(document), num_hedged, tuple(problems))


def _parse(data: bytes) -> Any:
    """The document; Python's own reader takes over for NaN and Infinity, so that their rows can be named."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data)


@contextmanager
def _resting_collector() -> Iterator[None]:
    """Without cyclic garbage collection, which goes through millions of new lists again and again and frees none.

    Reading 49 MB takes 0.5 s instead of 1.5 s without it.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _kinds(split: Split) -> dict[int, bool]:
    """Image id to whether it is a consumer photo."""
    return dict(zip(split.photos.image_ids.tolist(), split.photos.is_consumer.tolist(), strict=True))


def _row_problems(row: Any, where: str, kinds: dict[int, bool] | None) -> Iterator[Problem]:
    if not isinstance(row, dict):
        yield Problem(where, f"expected an object, got {_shown(row)}")
        return
    for name in FIELDS:
        if name not in row:
            yield Problem(f"{where}.{name}", "is missing")
    if "query_image_id" in row:
        fault = _id_fault(row["query_image_id"], kinds, consumer=True)
        if fault:
            yield Problem(f"{where}.query_image_id", fault)
    if "query_bbox" in row:
        fault = _box_fault(row["query_bbox"])
        if fault:
            yield Problem(f"{where}.query_bbox", fault)
    if "query_cls" in row:
        category = row["query_cls"]
        if type(category) is not int or not 1 <= category <= len(CATEGORIES):
            yield Problem(
                f"{where}.query_cls", f"expected an integer from 1 to {len(CATEGORIES)}, got {_shown(category)}"
            )
    if "query_score" in row:
        yield from _score_problems(row["query_score"], f"{where}.query_score")
    for name in ("gallery_image_id", "gallery_bbox"):
        if name in row:
            yield from _gallery_problems(row[name], f"{where}.{name}", name, kinds)


def _score_problems(score: Any, where: str) -> Iterator[Problem]:
    if not _is_number(score):
        yield Problem(where, f"expected a finite number, got {_shown(score)}")
    elif not 0 <= score <= 1:
        yield Problem(where, f"is outside [0, 1]: {_shown(score)}", "warning")


def _gallery_problems(entries: Any, where: str, name: str, kinds: dict[int, bool] | None) -> Iterator[Problem]:
    if not isinstance(entries, list):
        yield Problem(where, f"expected a list of {GALLERY_LENGTH}, got {_shown(entries)}")
        return
    if len(entries) != GALLERY_LENGTH:
        yield Problem(where, f"expected {GALLERY_LENGTH} entries, got {len(entries)}")
    for place, entry in enumerate(entries):
        fault = _box_fault(entry) if name == "gallery_bbox" else _id_fault(entry, kinds, consumer=False)
        if fault:
            yield Problem(f"{where}[{place}]", fault)


def _id_fault(value: Any, kinds: dict[int, bool] | None, *, consumer: bool) -> str | None:
    if type(value) is not int or not 0 <= value < _INTEGER_LIMIT:
        hint = ": the scorer would silently find nothing under a text" if isinstance(value, str) else ""
        return f"expected an integer, got {_shown(value)}{hint}"
    if kinds is None:
        return None
    kind = kinds.get(value)
    if kind is None:
        return f"image {value} is not in the split"
    if kind != consumer:
        return f"image {value} is a {'shop' if consumer else 'consumer'} photo, expected a " + (
            "consumer photo" if consumer else "shop photo"
        )
    return None


def _box_fault(box: Any) -> str | None:
    if type(box) is not list or len(box) != 4 or not all(map(_is_number, box)):
        return f"expected [x1, y1, x2, y2] in finite pixels, got {_shown(box)}"
    if box[0] > box[2] or box[1] > box[3]:
        return f"is inverted (x1 > x2 or y1 > y2; boxes here are not [x, y, width, height]): {_shown(box)}"
    return None


def _repeated_answers(row: dict[str, Any], where: str) -> list[Problem]:
    """The same gallery box twice wastes a rank; the end repeated to fill up a short gallery does not."""
    answers = [(image_id, *box) for image_id, box in zip(row["gallery_image_id"], row["gallery_bbox"], strict=True)]
    if len(set(answers)) == len(answers):
        return []
    while len(answers) > 1 and answers[-1] == answers[-2]:
        answers.pop()
    num_repeated = len(answers) - len(set(answers))
    if num_repeated == 0:
        return []
    return [Problem(where, f"{num_repeated} of its gallery boxes are entered twice", "warning")]


def _repeated_boxes(document: list[Any]) -> tuple[int, list[Problem]]:
    """How many boxes are entered under several categories, with a problem for each such box and each duplicate."""
    rows_of: dict[tuple[int, tuple[float, ...]], list[tuple[int, int]]] = {}
    for number, row in enumerate(document):
        if not isinstance(row, dict):
            continue
        image_id, box, category = row.get("query_image_id"), row.get("query_bbox"), row.get("query_cls")
        if type(image_id) is int and type(category) is int and isinstance(box, list) and not _box_fault(box):
            rows_of.setdefault((image_id, tuple(box)), []).append((number, category))
    num_hedged = 0
    problems: list[Problem] = []
    for (image_id, box), rows in rows_of.items():
        if len(rows) < 2:
            continue
        counts = Counter(category for _, category in rows)
        for category, count in counts.items():
            if count > 1:
                places = [number for number, one in rows if one == category]
                what = f"repeats {', '.join(f'[{place}]' for place in places[:-1])}: same photo, box and category"
                problems.append(Problem(f"[{places[-1]}]", what))
        if len(counts) > 1:
            num_hedged += 1
            what = (
                f"class hedging: box {list(box)} of photo {image_id} is entered under {len(counts)} categories "
                f"({', '.join(map(str, sorted(counts)))})"
            )
            problems.append(Problem(f"[{rows[0][0]}]", what, "warning"))
    return num_hedged, problems


def _coverage(document: list[Any], kinds: dict[int, bool] | None) -> list[Problem]:
    """Consumer photos without an entry count as missed; many of them are a sign of a wrong split."""
    if kinds is None:
        return []
    consumer = {image_id for image_id, is_consumer in kinds.items() if is_consumer}
    answered = {
        row["query_image_id"] for row in document if isinstance(row, dict) and _is_id(row.get("query_image_id"))
    }
    missing = consumer - answered
    if not missing:
        return []
    what = f"{len(missing):,} of the {len(consumer):,} consumer photos have no entry, the first is {min(missing)}"
    return [Problem("", what, "warning")]


def _is_id(value: Any) -> bool:
    return type(value) is int


def _is_number(value: Any) -> bool:
    return (type(value) is float and math.isfinite(value)) or (type(value) is int and abs(value) < _INTEGER_LIMIT)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object with {len(value)} fields"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
