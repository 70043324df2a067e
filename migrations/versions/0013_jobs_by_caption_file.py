"""An index of jobs by the caption file they read, so that nobody opens their specifications to find them.

Only adds, and holds up nobody: it is built while everybody reads and writes. A build that was broken off left
an index that nothing uses; it is built anew.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INDEX = "ix_jobs_caption_file"
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
            "jobs",
            [sa.text("(spec -> 'captions' ->> 'id')")],
            postgresql_concurrently=True,
            if_not_exists=True,
        )
        op.execute("SET lock_timeout = '5s'")


def downgrade() -> None:
    """Undo."""
    op.drop_index(INDEX, "jobs")
