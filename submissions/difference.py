"""How two result files differ: rows that only one of them has, scores, and gallery lists.

Rows belong together if photo, box and category are equal, the n-th such row of one file to the n-th of the other;
gallery entries are the same if photo and box are. Where the files are written with different decimals, both are rounded
to the fewer. A row is kept as 64-bit fingerprints, 230 bytes of it: comparing two files of 600,000 rows takes 0.6 GB.

Legend: R rows, M rows that belong together, K = 20 gallery entries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.scoring.rows import Block, ResultRow, blocks, no_garbage_collection
from harness.types import GALLERY_LENGTH, Floats, InputError, Ints
from submissions.entries import Entries, read_entries, typed_entries
from submissions.fingerprints import Fingerprints, fingerprints, numbered
from submissions.problems import Tally

DEPTHS = (1, 5, 10, 20)
"""The k of the shared entries among the first k."""

RANK_GROUPS = ((1, 1), (2, 5), (6, 10), (11, 20))
"""First and last rank of each group in which first differences are counted."""

_MOST_EXAMPLES = 10
_MOST_DECIMALS = 9
_CHUNK = 4096


@dataclass(frozen=True)
class Difference:
    """How two result files differ.

    Attributes:
        paths: the two files.
        num_rows: entries of each.
        num_matched: M, rows that both have.
        decimals: to which both were rounded because one has fewer; None if neither was.
        num_alone: rows that only the first, and only the second file has.
        examples_alone: the first of them: row, photo, box, category.
        num_scores: matched rows of another score.
        largest_score_change: between them.
        example_scores: the first of them: row in each file, photo, score in each.
        num_galleries: matched rows of another gallery list.
        first_ranks: (20,) how many of them differ first at each rank.
        example_galleries: the first of them: row in each file, photo, first rank that differs.
        overlap: for k in `DEPTHS`, the share of the first k entries that both lists have, mean over the matched rows
            (of different entries, where a list repeats some); None without matched rows.
        jaccard: the same as entries of both over entries of either.
        hint: why hardly a row belongs to one of the other file, as far as one can tell; None if many do.
    """

    paths: tuple[Path, Path]
    num_rows: tuple[int, int]
    num_matched: int
    decimals: int | None
    num_alone: tuple[int, int]
    examples_alone: tuple[list[dict[str, Any]], list[dict[str, Any]]]
    num_scores: int
    largest_score_change: float
    example_scores: list[dict[str, Any]]
    num_galleries: int
    first_ranks: Ints
    example_galleries: list[dict[str, Any]]
    overlap: dict[int, float] | None
    jaccard: dict[int, float] | None
    hint: str | None

    @property
    def is_none(self) -> bool:
        """Whether both say the same, in whatever order of rows."""
        return not any((*self.num_alone, self.num_scores, self.num_galleries))


def compare_submissions(first: Path, second: Path) -> Difference:
    """Compare two result files.

    Args:
        first: a challenge result file, plain or zipped.
        second: another.

    Raises:
        InputError: one cannot be read, or has a row that the checker calls wrong in type or length.
    """
    decimals = tuple(_decimals(path) for path in (first, second))
    rounded_to = min(decimals) if decimals[0] != decimals[1] else None
    with no_garbage_collection():
        one, other = (_Table(path, rounded_to) for path in (first, second))
    _, rows, other_rows = np.intersect1d(one.keys, other.keys, assume_unique=True, return_indices=True)
    order = np.argsort(rows)
    rows, other_rows = rows[order], other_rows[order]
    alone = [np.setdiff1d(np.arange(len(table.keys)), matched) for table, matched in ((one, rows), (other, other_rows))]
    changes = np.abs(one.scores[rows] - other.scores[other_rows])
    rescored = np.flatnonzero(changes)
    differs_MK = one.answers[rows] != other.answers[other_rows]
    regalleried = np.flatnonzero(differs_MK.any(axis=1))
    first_places = differs_MK[regalleried].argmax(axis=1)
    overlap, jaccard = _shared(one.answers, other.answers, rows, other_rows, regalleried)
    scored = [(int(rows[n]), int(other_rows[n])) for n in rescored[:_MOST_EXAMPLES]]
    answered = [(int(rows[n]), int(other_rows[n])) for n in regalleried[:_MOST_EXAMPLES]]
    return Difference(
        (first, second),
        (len(one.keys), len(other.keys)),
        len(rows),
        rounded_to,
        (len(alone[0]), len(alone[1])),
        (one.examples(alone[0]), other.examples(alone[1])),
        len(rescored),
        float(changes.max(initial=0)),
        [
            {
                "rows": [a, b],
                "query_image_id": one.image_id(a),
                "scores": [float(one.scores[a]), float(other.scores[b])],
            }
            for a, b in scored
        ],
        len(regalleried),
        np.bincount(first_places, minlength=GALLERY_LENGTH),
        [
            {"rows": [a, b], "query_image_id": one.image_id(a), "first_rank": int(place) + 1}
            for (a, b), place in zip(answered, first_places, strict=False)
        ],
        overlap,
        jaccard,
        _hint(one, other) if len(rows) < min(len(one.keys), len(other.keys)) / 10 else None,
    )


def _hint(one: _Table, other: _Table) -> str:
    """What becomes of the rows if categories are not compared, or boxes are read in another way."""
    enough = min(len(one.keys), len(other.keys)) / 2
    if _num_common(one, other) > enough:
        return "hardly a row of one is in the other, but the boxes are: only the categories (query_cls) differ"
    for name, corners_of in _READINGS:
        if max(_num_common(one, other, corners_of), _num_common(other, one, corners_of)) > enough:
            return (
                f"hardly a row of one is in the other, but the boxes are the same if one of the files has {name}; "
                "convert them and compare again"
            )
    return "hardly a row of one is in the other: were their boxes found by other detectors?"


def _num_common(one: _Table, other: _Table, corners_of: Callable[[Floats], Floats] | None = None) -> int:
    """How many photos with box both have; if the second file is read in another way, to a pixel."""
    boxes = one.boxes, other.boxes
    if corners_of is not None:
        # Reckoning has rounded anew; the shift keeps halves, which many boxes have, off the edge.
        boxes = np.round(one.boxes + 0.27), np.round(corners_of(other.boxes) + 0.27)
    first, second = (numbered(table.box_keys(some)) for table, some in zip((one, other), boxes, strict=True))
    return len(np.intersect1d(first, second, assume_unique=True))


_READINGS: tuple[tuple[str, Callable[[Floats], Floats]], ...] = (
    ("[x, y, width, height]", lambda boxes: np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)),
    ("[y1, x1, y2, x2]", lambda boxes: boxes[:, [1, 0, 3, 2]]),
    ("[x2, y2, x1, y1]", lambda boxes: boxes[:, [2, 3, 0, 1]]),
    (
        "[centre x, centre y, width, height]",
        lambda boxes: np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1),
    ),
)


class _Table:
    """The rows of a file. ``keys``: (R,) unique fingerprints of photo, box and category; ``answers``: (R, K)."""

    def __init__(self, path: Path, decimals: int | None) -> None:
        ids, boxes, categories, scores, keys, answers = [], [], [], [], [], []
        for entries in _entries(path):
            columns = entries.columns
            ids.append(columns["query_image_id"].values)
            boxes.append(_rounded(columns["query_bbox"].values, decimals))
            categories.append(columns["query_cls"].values)
            scores.append(columns["query_score"].values)
            keys.append(fingerprints(ids[-1], boxes[-1], categories[-1]))
            answer_boxes = _rounded(columns["gallery_bbox"].values, decimals)
            answers.append(fingerprints(columns["gallery_image_id"].values, answer_boxes).reshape(-1, GALLERY_LENGTH))
        self._ids, self._categories = _joined(ids, np.int64), _joined(categories, np.int64)
        self.boxes: Floats = _joined(boxes, np.float64, 4)
        self.scores: Floats = _joined(scores, np.float64)
        self.keys: Fingerprints = numbered(_joined(keys, np.uint64))
        self.answers: Fingerprints = _joined(answers, np.uint64, GALLERY_LENGTH)

    def box_keys(self, boxes: Floats) -> Fingerprints:
        """(R,) fingerprints of photo and box, the boxes given."""
        return fingerprints(self._ids, boxes)

    def image_id(self, row: int) -> int:
        """The photo of a row."""
        return int(self._ids[row])

    def examples(self, rows: Ints) -> list[dict[str, Any]]:
        """What the first of some rows speak of."""
        return [
            {
                "row": row,
                "query_image_id": int(self._ids[row]),
                "query_bbox": self.boxes[row].tolist(),
                "query_cls": int(self._categories[row]),
            }
            for row in rows[:_MOST_EXAMPLES].tolist()
        ]


def _entries(path: Path) -> Any:
    for block in blocks(path, ResultRow):
        entries = None if block.rows is None else typed_entries(block.first_row, block.rows)
        if entries is None:
            raise InputError(
                f"{path}: {_fault(block)}; such a row cannot be compared (`run.py check {path}` says more)"
            )
        yield entries


def _fault(block: Block[ResultRow]) -> str:
    """The first thing that is wrong in a block, as the checker says it."""
    tally = Tally()
    try:
        read_entries(block, tally)
        faults = [one for one in tally.report(Path(), None, 0).problems if one.severity == "error"]
    except RecursionError:
        faults = []
    if faults:
        return f"{faults[0].where}: {faults[0].what}"
    return f"among the rows {block.first_row} to {block.first_row + block.num_rows - 1} is one that cannot be read"


def _decimals(path: Path) -> int:
    """How many decimals the boxes of the first block have, up to 9."""
    entries: Entries | None = next(_entries(path), None)
    if entries is None:
        return 0
    return _decimals_of(np.concatenate([entries.columns["query_bbox"].values, entries.columns["gallery_bbox"].values]))


def _decimals_of(boxes: Floats) -> int:
    return next((n for n in range(_MOST_DECIMALS) if (np.round(boxes, n) == boxes).all()), _MOST_DECIMALS)


def _rounded(boxes: Floats, decimals: int | None) -> Floats:
    return boxes if decimals is None else np.round(boxes, decimals)


def _shared(
    answers: Fingerprints, others: Fingerprints, rows: Ints, other_rows: Ints, differing: Ints
) -> tuple[dict[int, float] | None, dict[int, float] | None]:
    """Means over the matched rows; lists that do not differ share all."""
    if len(rows) == 0:
        return None, None
    overlaps, jaccards = dict.fromkeys(DEPTHS, 0.0), dict.fromkeys(DEPTHS, 0.0)
    for start in range(0, len(differing), _CHUNK):
        part = differing[start : start + _CHUNK]
        first, second = answers[rows[part]], others[other_rows[part]]
        same_MKK = first[:, :, None] == second[:, None]
        is_new, is_new_there = (_first_of_its_kind(lists) for lists in (first, second))
        for k in DEPTHS:
            both = (same_MKK[:, :k, :k].any(axis=2) & is_new[:, :k]).sum(axis=1)
            here, there = is_new[:, :k].sum(axis=1), is_new_there[:, :k].sum(axis=1)
            overlaps[k] += float((both / np.maximum(here, there)).sum())
            jaccards[k] += float((both / (here + there - both)).sum())
    num_same = len(rows) - len(differing)
    return (
        {k: (found + num_same) / len(rows) for k, found in overlaps.items()},
        {k: (found + num_same) / len(rows) for k, found in jaccards.items()},
    )


def _first_of_its_kind(lists: Fingerprints) -> NDArray[np.bool_]:
    equal_MKK = np.tril(lists[:, :, None] == lists[:, None], -1)
    found: NDArray[np.bool_] = ~equal_MKK.any(axis=2)
    return found


def _joined(parts: list[Any], dtype: type, width: int | None = None) -> Any:
    return np.concatenate(parts) if parts else np.zeros((0,) if width is None else (0, width), dtype)
