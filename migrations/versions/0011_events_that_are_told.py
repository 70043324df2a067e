"""An index of the events of jobs that pages show: all but the numbers of a training, which are most of them.

Only adds, and holds up nobody: it is built while everybody reads and writes.
"""

from collections.abc import Sequence

from alembic import op

from migrations.patience import create_index_concurrently

revision = "0011"
down_revision = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INDEX = "ix_job_events_told"


def upgrade() -> None:
    """Apply."""
    create_index_concurrently(
        INDEX, "job_events", ["job_id", "sequence"], where="type NOT IN ('metrics', 'progress')"
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index(INDEX, "job_events")
