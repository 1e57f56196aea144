"""A board as one JSON file, and back: so that the boards of two teams can be merged without doubles.

The file is one object, ``{"format": ..., "version": 1, "rows": [...], "questions": [...], "timings": [...],
"entered": [...]}``, each entry on a line of its own. What has an id bears it, and importing computes it anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.scoring.questions import Questions
from harness.types import InputError, Score
from leaderboard import records
from leaderboard.entered import EnteredScore
from leaderboard.rows import Losses, Row, StageRecord
from leaderboard.schema import ENTERED, QUESTIONS, ROWS, TIMINGS
from leaderboard.store import Board, Content, append, ids
from leaderboard.timing_runs import TimingRun

if TYPE_CHECKING:
    from sqlalchemy import Table

FORMAT = "deepfashion2-harness leaderboard"
VERSION = 1
"""Of the file, not of the database."""
KINDS = ("rows", "questions", "timings", "entered")


@dataclass(frozen=True)
class Count:
    """Entries of a kind: ``new`` ones, and those that were ``known`` before."""

    new: int
    known: int


@dataclass(frozen=True)
class ImportReport:
    """What `import_board` added, and what the board had already."""

    rows: Count
    questions: Count
    timings: Count
    entered: Count


def export_board(board: Board) -> dict[str, Any]:
    """All of a board, as of one moment, as JSON values.

    Args:
        board: any.

    Returns:
        What `write_export` writes.

    Raises:
        InputError: a row is damaged or was changed, or the database cannot be read.
    """
    content = board.content()
    return {"format": FORMAT, "version": VERSION} | {kind: list(_entries(content, kind)) for kind in KINDS}


def write_export(board: Board, path: Path) -> dict[str, int]:
    """Write all of a board to a JSON file; an old one is replaced when the new one is whole.

    Args:
        board: any.
        path: of the file.

    Returns:
        How many entries of each kind were written.

    Raises:
        InputError: a row is damaged or was changed, the database cannot be read, or the file cannot be written.
    """
    content = board.content()
    counts = dict.fromkeys(KINDS, 0)
    unfinished = path.with_name(f".{path.name}.unfinished-{os.getpid()}")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.write(f'{{"format": {json.dumps(FORMAT)}, "version": {VERSION}')
            for kind in KINDS:
                file.write(f',\n"{kind}": [')
                for entry in _entries(content, kind):
                    file.write(",\n" if counts[kind] else "\n")
                    file.write(json.dumps(entry, ensure_ascii=False, separators=(",", ":")))
                    counts[kind] += 1
                file.write("]")
            file.write("}\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise InputError(f"{path}: the board cannot be exported: {error.strerror}; give another path") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return counts


def import_board(board: Board, path: Path) -> ImportReport:
    """Add what an exported file has and a board has not: all of it or, where anything is wrong, nothing.

    Boards merge in any order to the same rows. Of a row that both have, the board keeps its own: its time, and how
    long its stages took, which are no part of the result.

    Args:
        board: to add to.
        path: of a file by `write_export`.

    Returns:
        How many entries were new.

    Raises:
        InputError: the file is no export, or one of a later version; an entry is damaged or does not match its id,
            and the message names it; or the board cannot be written.
    """
    content = read_export(path)
    given: list[tuple[Table, list[dict[str, Any]]]] = [
        (ROWS, [records.row_values(row) for row in content.rows]),
        (QUESTIONS, [records.questions_values(one) for one in content.questions]),
        (TIMINGS, [records.timing_values(run) for run in content.timings]),
        (ENTERED, [records.entered_values(score) for score in content.entered]),
    ]
    counts = []
    with board.appending(f"{path} cannot be imported") as connection:
        for table, values in given:
            if table is TIMINGS:
                timed = [run.row_id for run in content.timings]
                strays = set(timed) - ids(connection, ROWS, timed)
                if strays:
                    raise InputError(
                        f"{path}: timing of row {min(strays)[:12]}, which neither the file nor the board has; "
                        "nothing was imported"
                    )
            wanted = {one["id"]: one for one in reversed(values)}
            known = ids(connection, table, wanted)
            append(connection, table, [one for one_id, one in wanted.items() if one_id not in known])
            counts.append(Count(len(wanted) - len(known), len(known)))
    return ImportReport(*counts)


def read_export(path: Path) -> Content:
    """The entries of an exported file, each checked against its id.

    Raises:
        InputError: as for `import_board`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "is no text"
        raise InputError(f"{path}: cannot be read as an exported board: {said}") from error
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no exported board, or only a part of one: {error}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise InputError(f'{path}: is no exported board; expected an object with "format": "{FORMAT}"')
    if values.get("version") != VERSION:
        raise InputError(
            f"{path}: is an export of version {values.get('version')!r}, and this code reads version {VERSION}; "
            "use a later version of the code"
        )
    unknown = sorted(set(values) - {"format", "version", *KINDS})
    missing = [kind for kind in KINDS if not isinstance(values.get(kind), list)]
    if unknown or missing:
        wrong = f"{unknown[0]!r} is unknown" if unknown else f"{missing[0]!r} is no list"
        raise InputError(f"{path}: is no exported board: {wrong}; expected {', '.join(KINDS)}")
    return Content(
        _read(path, "row", values["rows"], _row),
        _read(path, "questions", values["questions"], _questions),
        _read(path, "timing", values["timings"], _timing),
        _read(path, "entered score", values["entered"], _entered),
    )


def _entries(content: Content, kind: str) -> Iterator[dict[str, Any]]:
    if kind == "rows":
        yield from map(_row_json, content.rows)
    elif kind == "questions":
        yield from ({"id": one.id, **one.as_json()} for one in content.questions)
    elif kind == "timings":
        for run in content.timings:
            yield {"id": run.id, "row_id": run.row_id, "created": run.created.isoformat(), "result": dict(run.result)}
    else:
        for score in content.entered:
            names = ("spec", "name", "split", "source", "submission_sha256", "rendered")
            values = {name: getattr(score, name) for name in names}
            acc = {str(k): value for k, value in score.acc.items()}
            yield {"id": score.id, "created": score.created.isoformat(), **values, "acc": acc}


def _row_json(row: Row) -> dict[str, Any]:
    names = ("name", "spec", "split", "fingerprint", "rendered", "contamination", "hedged", "code_version")
    return {
        "id": row.id,
        "created": row.created.isoformat(),
        **{name: getattr(row, name) for name in (*names, "questions_id", "command")},
        "settings": dict(row.settings),
        "artifacts": list(row.artifacts),
        "hardware": dict(row.hardware),
        "stages": [asdict(stage) for stage in row.stages],
        "protocol": row.score.protocol,
        "hit_ranks": row.score.hit_ranks.tolist(),
        "fates": None if row.losses is None else row.losses.fates.tolist(),
        "untold": [] if row.losses is None else list(row.losses.untold),
    }


def _row(values: Mapping[str, Any]) -> Row:
    _expect(values, _ROW)
    ranks = np.array(values["hit_ranks"])
    fates = None if values["fates"] is None else np.array(values["fates"])
    if fates is not None and (fates.dtype.kind != "i" or fates.min(initial=0) < 0 or fates.max(initial=0) > 255):
        raise ValueError("fates: expected whole numbers")
    given = {name: values[name] for name in _ROW if name not in ("id", "protocol", "hit_ranks", "fates", "untold")}
    given["artifacts"] = tuple(values["artifacts"])
    given["created"] = datetime.fromisoformat(values["created"])
    given["stages"] = tuple(_stage(stage) for stage in values["stages"])
    return Row(
        **given,
        score=Score(values["protocol"], len(ranks), ranks),
        losses=None if fates is None else Losses(fates.astype(np.uint8), tuple(values["untold"])),
    )


def _stage(values: Mapping[str, Any]) -> StageRecord:
    _expect(values, _STAGE)
    return StageRecord(**values)


def _questions(values: Mapping[str, Any]) -> Questions:
    return Questions.from_json({name: column for name, column in values.items() if name != "id"})


def _timing(values: Mapping[str, Any]) -> TimingRun:
    _expect(values, _TIMING)
    return TimingRun(values["row_id"], values["result"], datetime.fromisoformat(values["created"]))


def _entered(values: Mapping[str, Any]) -> EnteredScore:
    _expect(values, _ENTERED)
    given = {name: values[name] for name in _ENTERED if name != "id"}
    given["acc"] = {int(k): value for k, value in values["acc"].items()}
    given["created"] = datetime.fromisoformat(values["created"])
    return EnteredScore(**given)


_OPTIONAL = (str, type(None))
_SECONDS = (int, float)
_ROW: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "created", "name", "spec", "split", "fingerprint", "code_version", "protocol"), (str,)),
    **dict.fromkeys(("contamination", "questions_id", "command"), _OPTIONAL),
    **dict.fromkeys(("rendered", "hedged"), (bool,)),
    **dict.fromkeys(("settings", "hardware"), (dict,)),
    **dict.fromkeys(("artifacts", "stages", "hit_ranks", "untold"), (list,)),
    "fates": (list, type(None)),
}
_STAGE: Mapping[str, tuple[type, ...]] = {
    "stage": (str,),
    "seconds": _SECONDS,
    "run_seconds": (*_SECONDS, type(None)),
    "from_store": (bool, type(None)),
    "count": (int, type(None)),
    "unit": (str,),
    "made_on": (str, type(None)),
}
_TIMING: Mapping[str, tuple[type, ...]] = {"id": (str,), "row_id": (str,), "result": (dict,), "created": (str,)}
_ENTERED: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "spec", "name", "split", "source", "created"), (str,)),
    "acc": (dict,),
    "submission_sha256": _OPTIONAL,
    "rendered": (bool,),
}


def _expect(values: Mapping[str, Any], kinds: Mapping[str, tuple[type, ...]]) -> None:
    """Raise `ValueError` unless these are the names and the kinds of values."""
    if not isinstance(values, dict) or set(values) != set(kinds):
        wrong = set(values) ^ set(kinds) if isinstance(values, dict) else kinds
        raise ValueError(f"missing or unknown: {', '.join(sorted(wrong))}")
    for name, allowed in kinds.items():
        value = values[name]
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise ValueError(f"{name}: got {type(value).__name__}")


def _read(path: Path, kind: str, entries: Sequence[Any], read: Callable[[Any], Any]) -> list[Any]:
    """Entries of a kind, each checked against its id."""
    found = []
    for number, values in enumerate(entries, start=1):
        one_id = values.get("id") if isinstance(values, dict) else None
        where = f"{path}: {kind} {str(one_id)[:12] if one_id else number}"
        try:
            one = read(values)
            computed = one.id
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError) as error:
            raise InputError(f"{where}: is damaged ({error}); nothing was imported") from error
        if computed != one_id:
            raise InputError(f"{where}: does not match its id, so it was changed; nothing was imported")
        found.append(one)
    return found
