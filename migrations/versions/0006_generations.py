"""Generations: pictures that somebody waits for, and the workers that draw them.

Only adds: the release before knows nothing of the new tables, nor of the quota.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_DEFAULT_TENANT_ID = "00000000-0000-0000-0000-000000000001"
_TIME = sa.DateTime(timezone=True)
_ID = sa.Uuid(as_uuid=False)
_REASONS = (
    "'bad_teacher', 'out_of_memory', 'storage_full', 'storage_unavailable', 'internal_error', 'model_gone', "
    "'worker_lost', 'not_watched', 'cancelled_by_user'"
)


def upgrade() -> None:
    """Apply."""
    op.add_column("tenants", sa.Column("open_generations", sa.Integer(), nullable=True))
    op.create_table(
        "generations",
        sa.Column("id", _ID, nullable=False),
        sa.Column("tenant_id", _ID, nullable=False, server_default=_DEFAULT_TENANT_ID),
        sa.Column("job_id", _ID, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("hint", sa.Text(), nullable=True),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("drawings", JSONB(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("watched_until", _TIME, nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.BigInteger(), nullable=False),
        sa.Column("lease_expires_at", _TIME, nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("started_at", _TIME, nullable=True),
        sa.Column("finished_at", _TIME, nullable=True),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'expired')",
            name=op.f("ck_generations_status"),
        ),
        sa.CheckConstraint(f"reason IN ({_REASONS})", name=op.f("ck_generations_reason")),
        sa.CheckConstraint(
            "(status = 'running') = (lease_expires_at IS NOT NULL)", name=op.f("ck_generations_lease")
        ),
        sa.CheckConstraint(
            "(status IN ('queued', 'running')) = (finished_at IS NULL)",
            name=op.f("ck_generations_finished"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_generations_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generations")),
    )
    op.create_index(
        "ix_generations_open",
        "generations",
        ["tenant_id", "id"],
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.create_index("ix_generations_tenant_id", "generations", ["tenant_id", "started_at"])
    op.create_index("ix_generations_finished_at", "generations", ["finished_at"])
    op.create_table(
        "interactive_workers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("seen_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_interactive_workers")),
    )


def downgrade() -> None:
    """Undo; pictures of generations stay behind below ``generations/`` in the bucket."""
    op.drop_table("interactive_workers")
    op.drop_table("generations")
    op.drop_column("tenants", "open_generations")
