"""One list of workers, each with its role, in place of one for those that train and one for those that draw.

Only adds. The release before lists its drawing workers in a table of their own, and looks for them there, so
signs of life go both ways for as long as both releases run; a row that ends on one side falls silent on the
other. Beside new workers the list of the release before shows those that draw, too.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply."""
    op.add_column("workers", sa.Column("role", sa.Text(), nullable=False, server_default="training"))
    op.create_check_constraint(op.f("ck_workers_role"), "workers", "role IN ('training', 'interactive')")
    op.execute(
        """
        CREATE FUNCTION list_interactive_worker() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO workers (name, role, host, queue, release, device, device_count, started_at, beat_at)
            VALUES (NEW.name, 'interactive', split_part(NEW.name, ':', 1), 'interactive', '', '', 0,
                NEW.seen_at, NEW.seen_at)
            ON CONFLICT (name) DO UPDATE SET beat_at = excluded.beat_at;
            RETURN NULL;
        END $$
        """
    )
    op.execute(
        """
        CREATE FUNCTION tell_of_interactive_worker() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO interactive_workers (name, seen_at) VALUES (NEW.name, NEW.beat_at)
            ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at;
            RETURN NULL;
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER list_interactive_worker AFTER INSERT OR UPDATE ON interactive_workers FOR EACH ROW
        WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION list_interactive_worker()
        """
    )
    op.execute(
        """
        CREATE TRIGGER tell_of_interactive_worker AFTER INSERT OR UPDATE ON workers FOR EACH ROW
        WHEN (pg_trigger_depth() = 0 AND NEW.role = 'interactive')
        EXECUTE FUNCTION tell_of_interactive_worker()
        """
    )


def downgrade() -> None:
    """Undo; drawing workers go on in their own table."""
    op.execute("DROP FUNCTION tell_of_interactive_worker, list_interactive_worker CASCADE")
    op.execute("DELETE FROM workers WHERE role = 'interactive'")
    op.drop_column("workers", "role")
