"""The tables of a board, and what keeps their rows from being edited."""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    event,
    insert,
)

from harness.types import RANKS

VERSIONS = ("0001", "0002")
"""All formats that a board ever had, oldest first; `leaderboard.migrations` leads from each to the next."""
VERSION = VERSIONS[-1]
"""The format that this code reads and writes."""

METADATA = MetaData()
ROWS = Table(
    "leaderboard_rows",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("created", String(40), nullable=False),
    Column("name", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("split", String(16), nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("rendered", Boolean, nullable=False),
    Column("protocol", Text, nullable=False),
    Column("num_queries", Integer, nullable=False),
    *(Column(f"acc{k}", Float, nullable=False) for k in RANKS),
    Column("acc10_low", Float, nullable=False),
    Column("acc10_high", Float, nullable=False),
    Column("contamination", Text),
    Column("hedged", Boolean, nullable=False),
    Column("code_version", Text, nullable=False),
    Column("artifacts_json", Text, nullable=False),
    Column("hardware_json", Text, nullable=False),
    Column("stages_json", Text, nullable=False),
    Column("hit_ranks", LargeBinary, nullable=False),
    Column("fates", LargeBinary),
    Column("untold_json", Text),
    Column("questions_id", String(64)),
    Column("settings_json", Text, nullable=False),
    Column("command", Text),
)
"""Accuracies and interval are there for people who ask in SQL; the rows themselves are rebuilt from the outcome."""

QUESTIONS = Table(
    "leaderboard_questions",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)
TIMINGS = Table(
    "leaderboard_timings",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("row_id", String(64), nullable=False, index=True),
    Column("created", String(40), nullable=False),
    Column("result_json", Text, nullable=False),
)
ENTERED = Table(
    "leaderboard_entered",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("created", String(40), nullable=False),
    Column("content_json", Text, nullable=False),
)

VERSION_TABLE = "leaderboard_version"
"""Not Alembic's ``alembic_version``: a team's database may hold that of another program."""
_STAMP = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), primary_key=True))

REFUSAL = "leaderboard rows are appended, never edited"


def append_only(table: str, dialect: str) -> list[str]:
    """The statements that make a database refuse to change rows of a table, or to take them out.

    Args:
        table: its name.
        dialect: ``sqlite`` or ``postgresql``.
    """
    if dialect == "postgresql":
        return [
            "CREATE OR REPLACE FUNCTION leaderboard_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$",
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION leaderboard_append_only()",
        ]
    refusals = [
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
        for verb in ("UPDATE", "DELETE")
    ]
    # INSERT OR REPLACE takes the old row out without asking the trigger on DELETE.
    return [
        *refusals,
        f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
        f"WHEN EXISTS (SELECT 1 FROM {table} WHERE id = NEW.id) BEGIN SELECT RAISE(IGNORE); END",
    ]


for _table in METADATA.sorted_tables:
    for _dialect in ("sqlite", "postgresql"):
        for _statement in append_only(_table.name, _dialect):
            event.listen(
                _table,
                "after_create",
                DDL(_statement).execute_if(dialect=_dialect),  # type: ignore[no-untyped-call]
            )


def create_tables(connection: Connection) -> None:
    """Make the tables of a new board, in today's format."""
    METADATA.create_all(connection)
    _STAMP.create(connection)
    connection.execute(insert(_STAMP).values(version_num=VERSION))
