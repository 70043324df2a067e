"""Uploaded caption files, and the objects that no row speaks of yet or any more.

Only adds tables: the release before knows nothing of them.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_DEFAULT_TENANT_ID = "00000000-0000-0000-0000-000000000001"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "caption_files",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("tenant_id", sa.Uuid(as_uuid=False), nullable=False, server_default=_DEFAULT_TENANT_ID),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_caption_files_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_caption_files")),
        sa.UniqueConstraint("tenant_id", "sha256", "name", name=op.f("uq_caption_files_tenant_id")),
    )
    op.create_index("ix_caption_files_tenant_id", "caption_files", ["tenant_id", "id"])
    op.create_index("ix_caption_files_key", "caption_files", ["key"])
    op.create_table(
        "unclaimed_objects",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("remove_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("removing", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_unclaimed_objects")),
    )
    op.create_index(op.f("ix_unclaimed_objects_remove_at"), "unclaimed_objects", ["remove_at"])


def downgrade() -> None:
    """Undo; objects of uploaded captions stay behind below ``captions/`` in the bucket."""
    op.drop_table("unclaimed_objects")
    op.drop_table("caption_files")
