"""What a board keeps, as the values of its columns, and back; what comes back is checked against its id."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

import numpy as np

from harness.scoring.questions import Questions
from harness.types import RANKS, InputError
from leaderboard.entered import EnteredScore
from leaderboard.rows import Losses, Row, StageRecord, pack_ranks, unpack_ranks
from leaderboard.timing_runs import TimingRun

Values = Mapping[str, Any]

_ENTERED = ("spec", "name", "split", "source", "submission_sha256", "rendered")


def row_values(row: Row) -> dict[str, Any]:
    """The columns of `leaderboard.schema.ROWS`."""
    return {
        "id": row.id,
        "created": row.created.isoformat(),
        "name": row.name,
        "spec": row.spec,
        "split": row.split,
        "fingerprint": row.fingerprint,
        "rendered": row.rendered,
        "protocol": row.score.protocol,
        "num_queries": row.score.num_queries,
        **_figures(row),
        "contamination": row.contamination,
        "hedged": row.hedged,
        "code_version": row.code_version,
        "artifacts_json": _dumps(list(row.artifacts)),
        "hardware_json": _dumps(dict(row.hardware)),
        "stages_json": _dumps([asdict(stage) for stage in row.stages]),
        "hit_ranks": pack_ranks(row.score),
        "fates": None if row.losses is None else zlib.compress(row.losses.fates.tobytes(), 9),
        "untold_json": None if row.losses is None else _dumps(list(row.losses.untold)),
        "questions_id": row.questions_id,
        "settings_json": _dumps(dict(row.settings)),
        "command": row.command,
    }


def row_from(values: Values, board: str) -> Row:
    """The row that `row_values` took apart.

    Args:
        values: the columns.
        board: names the board in messages.

    Raises:
        InputError: the row is damaged, or is not what was added.
    """
    where = f"{board}: row {values['id'][:12]}"
    with _whole(where):
        row = Row(
            spec=values["spec"],
            name=values["name"],
            split=values["split"],
            fingerprint=values["fingerprint"],
            rendered=values["rendered"],
            artifacts=tuple(json.loads(values["artifacts_json"])),
            code_version=values["code_version"],
            hardware=json.loads(values["hardware_json"]),
            stages=tuple(StageRecord(**stage) for stage in json.loads(values["stages_json"])),
            score=unpack_ranks(values["protocol"], values["num_queries"], values["hit_ranks"], where),
            contamination=values["contamination"],
            hedged=values["hedged"],
            created=datetime.fromisoformat(values["created"]),
            losses=_losses(values["fates"], values["untold_json"]),
            questions_id=values["questions_id"],
            settings=json.loads(values["settings_json"]),
            command=values["command"],
        )
        _compare(row.id, values["id"], where)
        if any(values[name] != figure for name, figure in _figures(row).items()):
            raise InputError(f"{where}: its accuracies are not those of its outcome; restore the board from a copy")
    return row


def _figures(row: Row) -> dict[str, float]:
    """What people who ask in SQL see of the outcome."""
    low, high = row.interval(10)
    return {**{f"acc{k}": row.score.acc[k] for k in RANKS}, "acc10_low": low, "acc10_high": high}


def questions_values(questions: Questions) -> dict[str, Any]:
    """The columns of `leaderboard.schema.QUESTIONS`."""
    return {"id": questions.id, "content": zlib.compress(_dumps(questions.as_json()).encode(), 9)}


def questions_from(values: Values, board: str) -> Questions:
    """The questions that `questions_values` took apart.

    Raises:
        InputError: they are damaged, or are not what was added.
    """
    where = f"{board}: questions {values['id'][:12]}"
    with _whole(where):
        questions = Questions.from_json(json.loads(zlib.decompress(values["content"])))
        _compare(questions.id, values["id"], where)
    return questions


def timing_values(run: TimingRun) -> dict[str, Any]:
    """The columns of `leaderboard.schema.TIMINGS`."""
    return {
        "id": run.id,
        "row_id": run.row_id,
        "created": run.created.isoformat(),
        "result_json": _dumps(dict(run.result)),
    }


def timing_from(values: Values, board: str) -> TimingRun:
    """The benchmark that `timing_values` took apart.

    Raises:
        InputError: it is damaged, or is not what was added.
    """
    where = f"{board}: timing {values['id'][:12]}"
    with _whole(where):
        created = datetime.fromisoformat(values["created"])
        run = TimingRun(values["row_id"], json.loads(values["result_json"]), created)
        _compare(run.id, values["id"], where)
    return run


def entered_values(score: EnteredScore) -> dict[str, Any]:
    """The columns of `leaderboard.schema.ENTERED`."""
    content = {name: getattr(score, name) for name in _ENTERED} | {"acc": {str(k): v for k, v in score.acc.items()}}
    return {"id": score.id, "created": score.created.isoformat(), "content_json": _dumps(content)}


def entered_from(values: Values, board: str) -> EnteredScore:
    """The entered score that `entered_values` took apart.

    Raises:
        InputError: it is damaged, or is not what was entered.
    """
    where = f"{board}: entered score {values['id'][:12]}"
    with _whole(where):
        content = json.loads(values["content_json"])
        content["acc"] = {int(k): value for k, value in content["acc"].items()}
        score = EnteredScore(**content, created=datetime.fromisoformat(values["created"]))
        _compare(score.id, values["id"], where)
    return score


def _losses(fates: bytes | None, untold: str | None) -> Losses | None:
    if fates is None:
        return None
    return Losses(np.frombuffer(zlib.decompress(fates), np.uint8), tuple(json.loads(untold or "[]")))


def _dumps(values: Any) -> str:
    return json.dumps(values, ensure_ascii=False)


def _compare(computed: str, kept: str, where: str) -> None:
    if computed != kept:
        raise InputError(f"{where}: does not match its id, so it was changed; restore the board from a copy")


@contextmanager
def _whole(where: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (ValueError, TypeError, AttributeError, KeyError, zlib.error) as error:
        raise InputError(f"{where}: is damaged ({error}); restore the board from a copy") from error
