"""Tenants, their API keys and quotas; what there is belongs to the tenant ``default``.

Only expands: the release before goes on working on these tables. It names no tenant in its INSERTs, so the
server puts in ``default``. It looks for an idempotency key without naming a tenant, and so could find those
of two: make a second tenant once it is gone. What it stores and deletes is not counted as it happens; the
reconciler of this release counts anew.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0003"
down_revision = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_DEFAULT = "00000000-0000-0000-0000-000000000001"
_OWNED = ("jobs", "deleted_jobs", "idempotency_records")


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "tenants",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("queued_jobs", sa.Integer(), nullable=True),
        sa.Column("running_jobs", sa.Integer(), nullable=True),
        sa.Column("max_bytes_stored", sa.BigInteger(), nullable=True),
        sa.Column("captions_per_job", sa.Integer(), nullable=True),
        sa.Column("bytes_stored", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
        sa.UniqueConstraint("name", name=op.f("uq_tenants_name")),
    )
    op.execute(
        f"INSERT INTO tenants (id, name, bytes_stored) "  # noqa: S608  # our own constant
        f"SELECT '{_DEFAULT}', 'default', coalesce(sum(size), 0) FROM artifacts"
    )
    op.create_table(
        "api_keys",
        sa.Column("tenant_id", sa.Uuid(as_uuid=False), nullable=False, server_default=_DEFAULT),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("shown", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("scopes", ARRAY(sa.Text()), nullable=False),
        sa.Column("created_by", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "scopes <@ ARRAY['read', 'write', 'admin'] AND scopes <> '{}'", name=op.f("ck_api_keys_scopes")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_api_keys_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_keys_digest")),
    )
    op.create_index("ix_api_keys_tenant_id", "api_keys", ["tenant_id", "id"])
    for table in _OWNED:
        op.add_column(
            table, sa.Column("tenant_id", sa.Uuid(as_uuid=False), nullable=False, server_default=_DEFAULT)
        )
        op.create_foreign_key(op.f(f"fk_{table}_tenant_id"), table, "tenants", ["tenant_id"], ["id"])
    op.drop_constraint(op.f("pk_idempotency_records"), "idempotency_records", type_="primary")
    op.create_primary_key(op.f("pk_idempotency_records"), "idempotency_records", ["tenant_id", "key"])
    queued, running = sa.text("status = 'queued'"), sa.text("status = 'running'")
    turn = ["tenant_id", "queue", sa.text("priority DESC"), "id"]
    op.create_index("ix_jobs_turn", "jobs", turn, postgresql_where=queued)
    op.create_index("ix_jobs_running", "jobs", ["tenant_id"], postgresql_where=running)
    op.create_index("ix_jobs_tenant", "jobs", ["tenant_id", "id"])
    op.create_index("ix_jobs_tenant_status", "jobs", ["tenant_id", "status", "id"])
    op.create_index("ix_jobs_tenant_teacher", "jobs", ["tenant_id", "teacher", "id"])


def downgrade() -> None:
    """Undo; the jobs of all tenants are everybody's again. Of idempotency keys the default tenant's stay."""
    for index in ("teacher", "status"):
        op.drop_index(f"ix_jobs_tenant_{index}", "jobs")
    for index in ("tenant", "running", "turn"):
        op.drop_index(f"ix_jobs_{index}", "jobs")
    op.execute(f"DELETE FROM idempotency_records WHERE tenant_id <> '{_DEFAULT}'")  # noqa: S608
    op.drop_constraint(op.f("pk_idempotency_records"), "idempotency_records", type_="primary")
    op.create_primary_key(op.f("pk_idempotency_records"), "idempotency_records", ["key"])
    for table in _OWNED:
        op.drop_column(table, "tenant_id")
    op.drop_table("api_keys")
    op.drop_table("tenants")
