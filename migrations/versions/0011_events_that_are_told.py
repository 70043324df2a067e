"""An index of the events of jobs that pages show: all but the numbers of a training, which are most of them.

Only adds, and holds up nobody: it is built while everybody reads and writes. A build that was broken off left
an index that nothing uses; it is built anew.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INDEX = "ix_job_events_told"
IS_BROKEN = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid"


def upgrade() -> None:
    """Apply."""
    with op.get_context().autocommit_block():
        # The build waits for every open transaction, and nobody waits for the build.
        op.execute("SET lock_timeout = 0")
        if op.get_bind().scalar(sa.text(IS_BROKEN), {"name": INDEX}):
            op.execute(f"REINDEX INDEX CONCURRENTLY {INDEX}")
        op.create_index(
            INDEX,
            "job_events",
            ["job_id", "sequence"],
            postgresql_where=sa.text("type NOT IN ('metrics', 'progress')"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )
        op.execute("SET lock_timeout = '5s'")


def downgrade() -> None:
    """Undo."""
    op.drop_index(INDEX, "job_events")
