"""Times as a board keeps them."""

from __future__ import annotations

from datetime import UTC, datetime


def refuse_time(created: datetime) -> None:
    """Raise `ValueError` unless a time has a zone, and can be told in UTC, as pages tell all times."""
    if created.tzinfo is None:
        raise ValueError("created: expected a time with a time zone")
    try:
        created.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"created: expected a time that there is in UTC, too, got {created.isoformat()}") from error
