"""The memory that a job's training takes, by the estimate that chose its class of accelerator.

Only adds a column: the release before leaves it empty, as does a job whose memory was not counted.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply."""
    op.add_column("jobs", sa.Column("memory_bytes", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("jobs", "memory_bytes")
