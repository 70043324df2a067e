"""An index of jobs by the caption file they read and by time, so that nobody opens their specifications.

Only adds, and holds up nobody: it is built while everybody reads and writes.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from migrations.patience import create_index_concurrently

revision = "0013"
down_revision = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INDEX = "ix_jobs_caption_file"


def upgrade() -> None:
    """Apply."""
    create_index_concurrently(INDEX, "jobs", [sa.text("(spec -> 'captions' ->> 'id')"), "created_at"])


def downgrade() -> None:
    """Undo."""
    op.drop_index(INDEX, "jobs")
