"""Rows alone, with the seconds of each stage. Boards of this version bear no stamp."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "leaderboard_rows",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("created", sa.String(40), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("split", sa.String(16), nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("rendered", sa.Boolean, nullable=False),
        sa.Column("protocol", sa.Text, nullable=False),
        sa.Column("num_queries", sa.Integer, nullable=False),
        sa.Column("acc1", sa.Float, nullable=False),
        sa.Column("acc5", sa.Float, nullable=False),
        sa.Column("acc10", sa.Float, nullable=False),
        sa.Column("acc15", sa.Float, nullable=False),
        sa.Column("acc20", sa.Float, nullable=False),
        sa.Column("acc10_low", sa.Float, nullable=False),
        sa.Column("acc10_high", sa.Float, nullable=False),
        sa.Column("contamination", sa.Text),
        sa.Column("hedged", sa.Boolean, nullable=False),
        sa.Column("code_version", sa.Text, nullable=False),
        sa.Column("artifacts_json", sa.Text, nullable=False),
        sa.Column("hardware_json", sa.Text, nullable=False),
        sa.Column("stage_seconds_json", sa.Text, nullable=False),
        sa.Column("hit_ranks", sa.LargeBinary, nullable=False),
    )
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER leaderboard_no_{verb.lower()} BEFORE {verb} ON leaderboard_rows "
                "BEGIN SELECT RAISE(ABORT, 'leaderboard rows are appended, never edited'); END"
            )
