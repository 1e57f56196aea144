"""Rows tell what became of every query, their settings and their command; stages, queries, timings, entered scores."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_TABLES = ("leaderboard_rows", "leaderboard_questions", "leaderboard_timings", "leaderboard_entered")
_REFUSAL = "leaderboard rows are appended, never edited"


def upgrade() -> None:
    """Keep every row, its seconds as stages."""
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    if on_sqlite:
        op.execute("DROP TRIGGER IF EXISTS leaderboard_no_update")
        op.execute("DROP TRIGGER IF EXISTS leaderboard_no_delete")
    with op.batch_alter_table("leaderboard_rows") as table:
        table.add_column(sa.Column("stages_json", sa.Text))
        table.add_column(sa.Column("fates", sa.LargeBinary))
        table.add_column(sa.Column("untold_json", sa.Text))
        table.add_column(sa.Column("questions_id", sa.String(64)))
        table.add_column(sa.Column("settings_json", sa.Text))
        table.add_column(sa.Column("command", sa.Text))
    _fill()
    with op.batch_alter_table("leaderboard_rows") as table:
        table.alter_column("stages_json", existing_type=sa.Text(), nullable=False)
        table.alter_column("settings_json", existing_type=sa.Text(), nullable=False)
        table.drop_column("stage_seconds_json")
    op.create_table(
        "leaderboard_questions",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "leaderboard_timings",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("row_id", sa.String(64), nullable=False),
        sa.Column("created", sa.String(40), nullable=False),
        sa.Column("result_json", sa.Text, nullable=False),
    )
    op.create_index("ix_leaderboard_timings_row_id", "leaderboard_timings", ["row_id"])
    op.create_table(
        "leaderboard_entered",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("created", sa.String(40), nullable=False),
        sa.Column("content_json", sa.Text, nullable=False),
    )
    for name in _TABLES:
        for statement in _append_only_on_sqlite(name) if on_sqlite else _append_only_on_postgresql(name):
            op.execute(statement)


def _fill() -> None:
    connection = op.get_bind()
    rows = sa.table("leaderboard_rows", *map(sa.column, ("id", "stage_seconds_json", "stages_json", "settings_json")))
    found = connection.execute(sa.select(rows.c.id, rows.c.stage_seconds_json)).all()
    for row_id, seconds_json in found:
        try:
            stages = [
                {"stage": stage, "seconds": float(seconds)} for stage, seconds in json.loads(seconds_json).items()
            ]
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"row {row_id[:12]}: the seconds of its stages are damaged ({error})") from error
        values = {"stages_json": json.dumps(stages, ensure_ascii=False), "settings_json": "{}"}
        connection.execute(sa.update(rows).where(rows.c.id == row_id).values(values))


def _append_only_on_sqlite(name: str) -> list[str]:
    return [
        f"CREATE TRIGGER {name}_no_update BEFORE UPDATE ON {name} BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END",
        f"CREATE TRIGGER {name}_no_delete BEFORE DELETE ON {name} BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END",
        f"CREATE TRIGGER {name}_no_replace BEFORE INSERT ON {name} "
        f"WHEN EXISTS (SELECT 1 FROM {name} WHERE id = NEW.id) BEGIN SELECT RAISE(IGNORE); END",
    ]


def _append_only_on_postgresql(name: str) -> list[str]:
    return [
        "CREATE OR REPLACE FUNCTION leaderboard_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$",
        f"CREATE TRIGGER {name}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {name} "
        "FOR EACH STATEMENT EXECUTE FUNCTION leaderboard_append_only()",
    ]
