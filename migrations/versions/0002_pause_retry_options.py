"""Pausing, retrying and deleting jobs, and options beside the specification.

Only expands: the release before goes on working on these tables. It leaves the new columns out of its
INSERTs, so each has a default of the server. The widened checks scan jobs and their transitions once.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_OLD_STATUSES = "'queued', 'running', 'succeeded', 'failed', 'cancelled'"
_STATUSES = "'queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled'"
_OLD_REASONS = (
    "'bad_teacher', 'bad_captions', 'out_of_memory', 'diverged', 'storage_full', 'storage_unavailable', "
    "'internal_error', 'trainer_crashed', 'worker_lost', 'worker_stopped', 'cancelled_by_user'"
)
_REASONS = f"{_OLD_REASONS}, 'max_runtime', 'paused_by_user', 'resumed_by_user', 'retried_by_user'"


def upgrade() -> None:
    """Apply."""
    for table in ("jobs", "job_transitions"):
        _replace_check(table, "status", _STATUSES)
        _replace_check(table, "reason", _REASONS)
    op.add_column(
        "jobs", sa.Column("pause_requested", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column("jobs", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("max_runtime_s", sa.Double(), nullable=True))
    op.add_column("jobs", sa.Column("not_before", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("runtime_s", sa.Double(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("scratch_attempt", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("micro_batch_size", sa.Integer(), nullable=True))
    op.create_table(
        "deleted_jobs",
        sa.Column("job_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("swept_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_deleted_jobs")),
    )


def downgrade() -> None:
    """Undo; paused jobs are queued again, and what ended for a reason of later has none."""
    op.drop_table("deleted_jobs")
    op.execute("UPDATE jobs SET status = 'queued' WHERE status = 'paused'")
    op.execute("UPDATE job_transitions SET status = 'queued' WHERE status = 'paused'")
    for table in ("jobs", "job_transitions"):
        later = f"reason NOT IN ({_OLD_REASONS})"
        op.execute(f"UPDATE {table} SET reason = NULL WHERE {later}")  # noqa: S608  # our own constants
        _replace_check(table, "status", _OLD_STATUSES)
        _replace_check(table, "reason", _OLD_REASONS)
    for column in (
        "micro_batch_size",
        "scratch_attempt",
        "claimed_at",
        "runtime_s",
        "not_before",
        "max_runtime_s",
        "priority",
        "pause_requested",
    ):
        op.drop_column("jobs", column)


def _replace_check(table: str, column: str, values: str) -> None:
    name = f"ck_{table}_{column}"
    op.drop_constraint(op.f(name), table, type_="check")
    op.create_check_constraint(op.f(name), table, f"{column} IN ({values})")
