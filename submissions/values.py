"""Single values of a result file: what they are, what they stand for, and how a message shows them."""

from __future__ import annotations

import json
import math
import re
from typing import Any

INTEGER_LIMIT = 1 << 53
"""Integers from here on are not exact everywhere that reads JSON."""

_WHOLE = re.compile(r"\d{1,15}", re.ASCII)
_NUMBER = re.compile(r"-?\d+(\.\d*)?([eE][-+]?\d+)?", re.ASCII)


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and no boolean."""
    return (type(value) is float and math.isfinite(value)) or (type(value) is int and abs(value) < INTEGER_LIMIT)


def is_box(value: Any) -> bool:
    """Whether it is four finite numbers, in whatever order."""
    return type(value) is list and len(value) == 4 and all(map(is_number, value))


def shown(value: Any) -> str:
    """A value as JSON, shortened."""
    if isinstance(value, dict):
        return f"an object with {len(value)} fields"
    if isinstance(value, str):
        value = value[:80]
    if isinstance(value, list) and len(value) > 8:
        return f"a list of {len(value):,}"
    try:
        text = json.dumps(value)
    except RecursionError:
        return "a list of lists of lists"
    return text if len(text) <= 60 else text[:57] + "…"


def shown_box(box: list[float]) -> str:
    """A box with as many digits as it needs."""
    return "[" + ", ".join(f"{value:.10g}" for value in box) + "]"


def as_whole(value: Any) -> int | None:
    """The integer that a text or a number with a fraction of 0 stands for; None if it stands for none, or is one."""
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return int(value)
    if type(value) is float and value.is_integer() and abs(value) < INTEGER_LIMIT:
        return int(value)
    return None


def as_number(value: Any) -> float | None:
    """The finite number that a text stands for; None if it stands for none, or is no text."""
    if isinstance(value, str) and len(value) < 40 and _NUMBER.fullmatch(value.strip()):
        number = float(value)
        return number if math.isfinite(number) else None
    return None
