"""What is wrong with a result file: single problems, and a tally of them that stays small whatever the file holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from harness.types import Ints

Severity = Literal["error", "warning"]

MOST_KEPT = 1000
"""Problems of one kind and field that are kept one by one; of more only the number is known."""

_NUM_PLACES = 3
_WHOLE_FILE = 1 << 62


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of problem.

    Attributes:
        name: for programs, such as ``inverted-box``.
        severity: ``error`` where the official scorer crashes, silently counts nothing, or scores something nobody
            means; ``warning`` where it takes the file, but the file probably says something nobody means to say.
        what: what is wrong, whatever the value.
    """

    name: str
    severity: Severity
    what: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a result file.

    Attributes:
        where: the place, such as ``[3].gallery_bbox[7]`` (both counted from 0); empty for the whole file.
        what: what was expected and what is there.
        severity: as of its kind.
        kind: the name of its kind.
    """

    where: str
    what: str
    severity: Severity = "error"
    kind: str = "file"


@dataclass(slots=True)
class Group:
    """The problems of one kind in one field.

    Attributes:
        kind: what they have in common.
        field_name: the field of a row; empty if it is the row or the file as a whole.
        num_problems: how many.
        num_rows: in how many rows; 0 if it is the file as a whole.
        problems: the first `MOST_KEPT` of them, in the order of the file.
    """

    kind: Kind
    field_name: str
    num_problems: int = 0
    num_rows: int = 0
    problems: list[Problem] = field(default_factory=list)
    order: list[tuple[int, int, int]] = field(default_factory=list, repr=False)
    last_row: int = field(default=-1, repr=False)

    def summary(self) -> str:
        """One line, however many they are: the first, how many more, and in which rows."""
        first = self.problems[0]
        line = f"{first.where}: {first.what}" if first.where else first.what
        if self.num_problems == 1:
            return line
        rows = list(dict.fromkeys(row for row, *_ in self.order))[: _NUM_PLACES + 1]
        places = ", ".join(f"[{row}]" for row in rows[:_NUM_PLACES]) + (", …" if self.num_rows > _NUM_PLACES else "")
        there = f"{self.num_rows:,} rows: {places}" if self.num_rows > 1 else "this row"
        return f"{line} (and {self.num_problems - 1:,} more like it, in {there})"


@dataclass(frozen=True)
class Report:
    """What the checker found.

    Attributes:
        path: the file.
        num_rows: whole entries read from it; None if it is no list of entries.
        num_hedged_boxes: boxes of a photo that are entered under more than one category.
        problems: in the order of the file, at most `MOST_KEPT` of a kind and field; those of the file come last.
        groups: the same by kind and field with their full numbers; those of the file as a whole first, then errors,
            and last what may be the effect of them.
    """

    path: Path
    num_rows: int | None
    num_hedged_boxes: int
    problems: tuple[Problem, ...]
    groups: tuple[Group, ...]

    @property
    def ok(self) -> bool:
        """True if no problem is an error."""
        return not any(group.kind.severity == "error" for group in self.groups)


class Tally:
    """Collects problems; memory is bounded by the number of kinds, not of problems."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], Group] = {}

    def add(self, kind: Kind, row: int, name: str, what: str, place: int | None = None) -> None:
        """One problem.

        Args:
            kind: of which kind.
            row: the number of the entry.
            name: the field; empty for the row as a whole.
            what: what is wrong just there.
            place: the place in the field's list, if that is what is wrong.
        """
        group = self._group(kind, name)
        if len(group.problems) < MOST_KEPT:
            self._keep(group, row, place, what)
        group.num_problems += 1
        group.num_rows += row != group.last_row
        group.last_row = row

    def add_all(
        self, kind: Kind, rows: Ints, name: str, what: Callable[[int], str], places: Ints | None = None
    ) -> None:
        """Problems of one kind in one field.

        Args:
            kind: of which kind.
            rows: (N,) the number of the entry of each, ascending.
            name: the field; empty for the rows as a whole.
            what: what is wrong with the n-th of them; asked only for those that are kept.
            places: (N,) the place of each in the field's list, if that is what is wrong.
        """
        if len(rows) == 0:
            return
        group = self._group(kind, name)
        for number in range(min(len(rows), MOST_KEPT - len(group.problems))):
            self._keep(group, int(rows[number]), None if places is None else int(places[number]), what(number))
        group.num_problems += len(rows)
        group.num_rows += int((np.diff(rows, prepend=group.last_row) != 0).sum())
        group.last_row = int(rows[-1])

    def add_whole(self, kind: Kind, what: str, *, is_last: bool = False) -> None:
        """A problem of the file as a whole; the last of all if it is an effect rather than a cause."""
        group = self._groups.setdefault((kind.name, what), Group(kind, "", 1))
        group.problems.append(Problem("", what, kind.severity, kind.name))
        group.order.append((_WHOLE_FILE + is_last, 0, 0))

    def _group(self, kind: Kind, name: str) -> Group:
        return self._groups.setdefault((kind.name, name), Group(kind, name))

    def _keep(self, group: Group, row: int, place: int | None, what: str) -> None:
        where = (
            f"[{row}]" + (f".{group.field_name}" if group.field_name else "") + ("" if place is None else f"[{place}]")
        )
        group.problems.append(Problem(where, what, group.kind.severity, group.kind.name))
        group.order.append((row, _FIELD_ORDER.get(group.field_name, -1), -1 if place is None else place))

    def report(self, path: Path, num_rows: int | None, num_hedged_boxes: int) -> Report:
        """What has been collected."""
        groups = sorted(
            self._groups.values(),
            key=lambda group: (_rank(group.order[0][0]), group.kind.severity, group.order[0]),
        )
        ordered = sorted(
            (pair for group in groups for pair in zip(group.order, group.problems, strict=True)),
            key=lambda pair: pair[0],
        )
        return Report(path, num_rows, num_hedged_boxes, tuple(problem for _, problem in ordered), tuple(groups))


FIELDS = ("query_image_id", "query_bbox", "query_cls", "query_score", "gallery_image_id", "gallery_bbox")
"""The fields of an entry, all needed."""

_FIELD_ORDER = {name: number for number, name in enumerate(FIELDS)}


def _rank(row: int) -> int:
    """Where a group goes: those of the file as a whole first, then those of rows, then the effects."""
    return 0 if row == _WHOLE_FILE else 1 if row < _WHOLE_FILE else 2
