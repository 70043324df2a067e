"""An index in the order in which queued jobs are taken.

Without it each claim sorts the whole queue: with 20,000 jobs in it that took 75 ms. Only expands. Writes to
jobs wait while the index is built, which reads the table once and holds queued jobs alone.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply."""
    op.create_index(
        "ix_jobs_turn",
        "jobs",
        ["queue", sa.text("priority DESC"), "id"],
        postgresql_where=sa.text("status = 'queued'"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_jobs_turn", table_name="jobs")
