"""When a job was deleted: its rows are removed a part at a time, and nobody sees it meanwhile.

Only adds a column. The release before sees such a job as a cancelled one until its rows are gone.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply."""
    op.add_column("jobs", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Undo; a job that was deleted does not come back."""
    op.execute("DELETE FROM jobs WHERE deleted_at IS NOT NULL")
    op.drop_column("jobs", "deleted_at")
