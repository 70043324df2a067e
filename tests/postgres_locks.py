"""What a test's own database says of statements that wait for each other."""

from sqlalchemy import Engine, text

WAITING = text(
    "SELECT EXISTS (SELECT FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock')"
)


def waits_for_a_lock(engine: Engine) -> bool:
    """Whether a statement in this database waits for another transaction; other tests' do not count."""
    with engine.connect() as connection:
        return bool(connection.execute(WAITING).scalar_one())
