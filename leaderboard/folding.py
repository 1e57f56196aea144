"""Rows of one result made one: the same ensemble run again, or under another name.

Only what came out the same is folded: nothing is hidden that differs in the outcome of any query.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

import numpy as np

from leaderboard.rows import Row

_OF_ONE_RUN = ("search:", "submission:", "step ")
"""How entries of `Row.artifacts` begin whose addresses depend on which boxes were answered: all of them, or only those
that speak for a query. Both have the same outcome."""


def fold(rows: Sequence[Row]) -> list[tuple[Row, ...]]:
    """Rows of one result together.

    Equal must be: canonical spec, data, split, protocol, whether it counts and why not, members and boxes (the keys of
    what they made, which their settings decide, too; the settings where there are no keys), the rank of every query,
    and, where two rows tell it in full, what became of every query. Name, run, time, code version and machine may
    differ.

    Args:
        rows: in any order.

    Returns:
        Groups, in the order of their newest rows, newest first. The first of a group is the row to show: the newest of
        those that tell what became of every query in full, or of those that tell it at all; the rest follow, newest
        first.
    """
    newest_first = sorted(rows, key=lambda row: row.created, reverse=True)
    groups: dict[Any, list[Row]] = {}
    for row in newest_first:
        groups.setdefault(_result(row), []).append(row)
    return [group for found in groups.values() for group in _by_fates(found)]


def members(row: Row) -> tuple[str, ...]:
    """The keys of what the models of a row made, and what is said of them."""
    return tuple(one for one in row.artifacts if not one.startswith(_OF_ONE_RUN))


def _result(row: Row) -> tuple[Any, ...]:
    ranks = hashlib.sha256(row.score.hit_ranks.astype("<u2").tobytes()).digest()
    # Rows of earlier versions tell no settings, but have the keys.
    settings = () if any(":" in key for key in members(row)) else tuple(sorted(row.settings.items()))
    reason = row.contamination, row.hedged
    return row.spec, row.rendered, *row.group, *reason, settings, members(row), row.score.num_queries, ranks


def _fullness(row: Row) -> int:
    return 0 if row.losses is None else 1 if row.losses.untold else 2


def _by_fates(rows: list[Row]) -> list[tuple[Row, ...]]:
    """Rows of equal ranks that tell of different losses apart; those that do not tell all stand with the newest."""
    outcomes: dict[bytes, list[Row]] = {}
    for row in rows:
        if row.losses is not None and not row.losses.untold:
            outcomes.setdefault(row.losses.fates.astype(np.uint8).tobytes(), []).append(row)
    groups = list(outcomes.values()) or [[]]
    groups[0] += [row for row in rows if _fullness(row) < 2]
    return [tuple(sorted(group, key=lambda row: (_fullness(row), row.created), reverse=True)) for group in groups]


def variants(shown: Sequence[Row]) -> dict[int, str]:
    """What tells results of one spec apart: settings, models and boxes, code version, time, and where all that will
    not do, the row's id.

    Args:
        shown: one row of each result of a section.

    Returns:
        ``id()`` of rows whose spec another one has too -> the words.
    """
    same: dict[str, list[Row]] = {}
    for row in shown:
        same.setdefault(row.spec, []).append(row)
    return {key: text for rows in same.values() if len(rows) > 1 for key, text in _of_one_spec(rows).items()}


def _of_one_spec(rows: Sequence[Row]) -> dict[int, str]:
    keys = [dict(key.split(":", 1) for key in members(row) if ":" in key) for row in rows]
    other_settings = _differing([row.settings for row in rows])
    other_keys = _differing(keys)
    columns = [
        [_settings_told(row, other_settings) for row in rows],
        [_keys_told(own, other_keys) for own in keys],
        [f"code {row.code_version}" for row in rows],
        *([row.created.astimezone(UTC).strftime(form) for row in rows] for form in _TIMES),
        [f"row {row.id[:8]}" for row in rows],
    ]
    chosen: list[list[str]] = []
    for column in columns:  # as few as it takes
        if len(set(zip(*chosen, strict=True))) == len(rows):
            break
        if len(set(column)) > 1:
            chosen.append(column)
    days = columns[3]
    if len(set(days)) > 1 and days not in chosen and columns[4] not in chosen:
        chosen.append(days)  # which people remember better than a hash
    texts = ("; ".join(filter(None, told)) for told in zip(*chosen, strict=True))
    return {id(row): text for row, text in zip(rows, texts, strict=True)}


def _settings_told(row: Row, names: Sequence[str]) -> str:
    if names and not row.settings:
        return "settings not told"
    return "; ".join(f"{name}: {row.settings.get(name, 'as usual')}" for name in names)


def _keys_told(own: Mapping[str, str], names: Sequence[str]) -> str:
    named = [name for name in names if name in own]
    told = [f"{name} {own[name][:8]}" for name in named[:_KEYS_NAMED]]
    return "; ".join(told + ([f"{len(named) - _KEYS_NAMED} more of its models"] if len(named) > _KEYS_NAMED else []))


_TIMES = ("%Y-%m-%d", "%Y-%m-%d %H:%M UTC")

_KEYS_NAMED = 2


def _differing(values: Sequence[Mapping[str, str]]) -> list[str]:
    names = sorted({name for one in values for name in one})
    return [name for name in names if len({one.get(name) for one in values}) > 1]
