"""What Alembic runs: within the transaction of `leaderboard.migrations.migrate`, whose connection it is given."""

from alembic import context

from leaderboard.schema import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"], version_table=VERSION_TABLE, transactional_ddl=True
)
context.run_migrations()
