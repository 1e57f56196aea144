"""Take copies out of training sources, so that no garment is a negative of itself and none counts twice.

Of a group of copies
* within a source and an item, the first crop stays;
* within a source and of several items, the crop of the first item stays: which item it shows cannot be known;
* across sources, the crop of the earliest source stays, and the items it shows there become one item.

A consumer's and a shop's photo that are one file are copies like any others. Crops that match nothing are left as they
are; crops whose photo cannot be decoded are taken out.

Legend: N crops of all parts, then those of the guard.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.data.duplicates.grouping import copies
from harness.data.duplicates.looking import Looks, look
from harness.data.duplicates.report import DuplicateReport, SharedCrops, SourceCopies
from harness.data.garments import NO_IDENTITY, Garments
from harness.progress import Reporter, silent
from harness.training.cards import image_ids_sha256
from harness.types import Bools, Ints

_KEPT, _UNREADABLE, _SAME, _OTHER, _ACROSS, _LEFT_OUT = range(6)


def deduplicate(
    parts: Sequence[Garments],
    cache_dir: Path,
    *,
    guard: Sequence[Garments] = (),
    leave_out_guarded: bool = False,
    workers: int = 1,
    report: Reporter = silent,
) -> tuple[list[Garments], DuplicateReport]:
    """Sources without copies, with identities that they share.

    Args:
        parts: the sources; what an earlier one has, a later one loses.
        cache_dir: what was seen of every crop is kept there, for the next time and for a stopped run.
        guard: what must not be trained on, usually the validation split. Its copies among the parts are counted.
        leave_out_guarded: take these copies out as well.
        workers: processes that look at photos.
        report: is told of the crops looked at.

    Returns:
        the parts in the same order with ``shares_identities`` set, and what was done. How many crops went for which
        reason does not depend on the order of their rows, nor, in all, on the order of the parts.

    Raises:
        ValueError: a part already shares identities with others.
    """
    if any(part.shares_identities for part in parts):
        raise ValueError("parts: their identities are shared already; give parts as they were read")
    looks = Looks.joined(
        [look(one, cache_dir, workers=workers, progress=report(f"look at {one.source}")) for one in (*parts, *guard)]
    )
    rows = _Rows(parts, guard)
    takes_part = looks.is_readable & ((rows.items >= 0) | (rows.part >= len(parts)))
    groups = copies(replace(looks, is_readable=takes_part), progress=report("compare crops"))
    fate = np.full(len(rows.items), _KEPT, dtype=np.int64)
    fate[~looks.is_readable] = _UNREADABLE
    examples: list[dict[str, str]] = [{} for _ in parts]
    guarded = np.zeros(len(fate), dtype=bool)
    joins: list[tuple[int, int]] = []
    shared: Counter[tuple[int, int]] = Counter()
    for group in _of_several(groups):
        _settle(group, rows, len(parts), leave_out_guarded, fate, guarded, joins, shared, examples)
    for place, problem in _unreadable(parts, looks, fate, rows):
        examples[place].setdefault("unreadable", problem)
    labels, num_joined_within = _joined_items(rows, joins, len(parts))
    kept = [_kept(part, fate[rows.of(place)] == _KEPT, labels[rows.of(place)]) for place, part in enumerate(parts)]
    sources = tuple(
        _source(part, fate[rows.of(place)], guarded[rows.of(place)], examples[place])
        for place, part in enumerate(parts)
    )
    after = np.concatenate([np.zeros(0, np.int64), *(one.identities for one in kept)])
    return kept, DuplicateReport(
        sources=sources,
        guard=tuple(one.source for one in guard),
        shared=tuple(
            SharedCrops(parts[first].source, parts[second].source, count)
            for (first, second), count in sorted(shared.items())
        ),
        num_identities_before=sum(len(np.unique(part.identities[part.identities >= 0])) for part in parts),
        num_identities_after=len(np.unique(after[after >= 0])),
        num_joined_within=num_joined_within,
        kept_sha256=_sha256(fate[: rows.starts[len(parts)]] == _KEPT, labels[: rows.starts[len(parts)]]),
    )


class _Rows:
    """The crops of all parts and of the guard, one after another.

    Attributes:
        part: (N,) which part each crop is of; the guard's come after the last.
        items: (N,) items of all of them, numbered apart; negative for a crop that matches nothing.
    """

    def __init__(self, parts: Sequence[Garments], guard: Sequence[Garments]) -> None:
        self.sources = (*parts, *guard)
        lengths = [len(one) for one in self.sources]
        self.starts = np.cumsum([0, *lengths])
        self.part: Ints = np.repeat(np.arange(len(lengths)), lengths)
        begin, numbered = 0, [np.zeros(0, np.int64)]
        for one in self.sources:
            numbered.append(np.where(one.identities >= 0, one.identities + begin, NO_IDENTITY))
            begin += int(one.identities.max(initial=-1)) + 1
        self.items: Ints = np.concatenate(numbered)
        self.num_items = begin

    def of(self, place: int) -> slice:
        """The rows of a part."""
        return slice(int(self.starts[place]), int(self.starts[place + 1]))

    def name(self, row: int) -> str:
        """The crop as people find it."""
        place = int(self.part[row])
        one, own = self.sources[place], row - int(self.starts[place])
        box = one.boxes_xyxy[own].tolist()
        return (
            f"{one.photos[one.photo_rows[own]]}{'' if np.isnan(box[0]) else f' at {box}'} (item {one.identities[own]})"
        )


def _of_several(groups: Ints) -> list[list[int]]:
    """Rows of every group of two or more, ascending."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    return [order[at : at + size].tolist() for at, size in zip(starts, sizes, strict=True) if size > 1]


def _settle(
    group: list[int],
    rows: _Rows,
    num_parts: int,
    leave_out_guarded: bool,
    fate: Ints,
    guarded: Bools,
    joins: list[tuple[int, int]],
    shared: Counter[tuple[int, int]],
    examples: list[dict[str, str]],
) -> None:
    """Decide which crop of a group stays."""
    guards = [row for row in group if rows.part[row] >= num_parts]
    group = [row for row in group if rows.part[row] < num_parts]
    if guards:
        for row in group:
            guarded[row] = True
            examples[rows.part[row]].setdefault("guarded", f"{rows.name(row)} is {rows.name(guards[0])}")
        if leave_out_guarded:
            fate[group] = _LEFT_OUT
            return
    speakers: dict[int, int] = {}  # part -> the row that stays within it
    of_item: dict[int, int] = {}
    for row in group:
        place, item = int(rows.part[row]), int(rows.items[row])
        if item in of_item:
            fate[row] = _SAME
            examples[place].setdefault("same item", f"{rows.name(row)} is {rows.name(of_item[item])}")
            continue
        of_item[item] = row
        if place in speakers:
            fate[row] = _OTHER
            examples[place].setdefault("other item", f"{rows.name(row)} is {rows.name(speakers[place])}")
        else:
            speakers[place] = row
    (first, stays), *later = sorted(speakers.items()) or [(0, -1)]
    for place, row in later:
        fate[row] = _ACROSS
        shared[first, place] += 1
        joins.append((int(rows.items[stays]), int(rows.items[row])))
        examples[place].setdefault("across", f"{rows.name(row)} is {rows.name(stays)}")


def _unreadable(parts: Sequence[Garments], looks: Looks, fate: Ints, rows: _Rows) -> list[tuple[int, str]]:
    """Part and problem of the first unreadable photo of each part."""
    found = []
    for place in range(len(parts)):
        wrong = np.flatnonzero(fate[rows.of(place)] == _UNREADABLE)
        if len(wrong):
            path = str(parts[place].photos[parts[place].photo_rows[wrong[0]]])
            problem = next((one for one in looks.problems if one.startswith(path)), path)
            found.append((place, problem))
    return found


def _joined_items(rows: _Rows, joins: list[tuple[int, int]], num_parts: int) -> tuple[Ints, int]:
    """(N,) item of each crop once those of several sources are one, and how many of one source became one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = np.array(joins, dtype=np.int64).reshape(-1, 2)
    graph = coo_array(
        (np.ones(len(links), np.int8), (links[:, 0], links[:, 1])), shape=(rows.num_items, rows.num_items)
    )
    joined = connected_components(graph, directed=False)[1].astype(np.int64)
    used, first = np.unique(rows.items[(rows.items >= 0) & (rows.part < num_parts)], return_index=True)
    part_of = rows.part[(rows.items >= 0) & (rows.part < num_parts)][first]
    pairs, counts = np.unique(np.column_stack([part_of, joined[used]]), axis=0, return_counts=True)
    labels = np.full(len(rows.items), NO_IDENTITY, dtype=np.int64)
    there = rows.items >= 0
    labels[there] = joined[rows.items[there]]
    return labels, int((counts - 1).sum()) if len(pairs) else 0


def _kept(part: Garments, stays: Bools, labels: Ints) -> Garments:
    kept = replace(part, identities=labels, shares_identities=True).take(stays)
    if stays.all() or part.source.startswith("DeepFashion2/"):  # a split's record speaks of its photos, not of crops
        return kept
    used = np.unique(kept.photo_rows)
    seen = {"num_photos": len(used), "image_ids_sha256": image_ids_sha256(used)}
    return replace(kept, record=part.record.model_copy(update=seen))


def _sha256(stays: Bools, labels: Ints) -> str:
    """Of the rows that stay, and of which of them show one item, whatever the items' numbers."""
    _, first, inverse = np.unique(labels[stays], return_index=True, return_inverse=True)
    same = np.where(labels[stays] >= 0, first[inverse.reshape(-1)], NO_IDENTITY)
    return hashlib.sha256(np.packbits(stays).tobytes() + same.astype("<i8").tobytes()).hexdigest()


def _source(part: Garments, fate: Ints, guarded: Bools, examples: dict[str, str]) -> SourceCopies:
    counts = np.bincount(fate, minlength=6).tolist()
    return SourceCopies(
        source=part.source,
        num_garments=len(part),
        num_kept=counts[_KEPT],
        num_unreadable=counts[_UNREADABLE],
        num_same_item=counts[_SAME],
        num_other_item=counts[_OTHER],
        num_across=counts[_ACROSS],
        num_left_out=counts[_LEFT_OUT],
        num_guarded=int(guarded.sum()),
        examples=examples,
    )
