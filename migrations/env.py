"""How Alembic reaches the database: DATABASE_URL, its file, or a connection handed over in the configuration.

A migration must never hold up a running service: it gives up on a lock that it does not get soon, and it can
then simply be run again.
"""

from logging.config import fileConfig

from alembic import context
from sqlalchemy import Connection, create_engine

from migrations.patience import alone, limit_waiting
from store.models import Base
from store.settings import normalise_database_url, read_setting


def migrate(connection: Connection) -> None:
    """Run the migrations that the command asks for, in one transaction.

    A migration that cannot be part of one, as it builds an index beside the running service, commits those
    before it.
    """
    limit_waiting(connection)
    connection.commit()
    context.configure(connection=connection, target_metadata=Base.metadata)
    with alone(connection), context.begin_transaction():
        context.run_migrations()


def run() -> None:
    """Connect and migrate."""
    handed_over = context.config.attributes.get("connection")
    if handed_over is not None:
        migrate(handed_over)
        return
    if context.config.config_file_name is not None:
        fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    url = read_setting("DATABASE_URL")
    if url is None:
        raise RuntimeError("set DATABASE_URL, or DATABASE_URL_FILE to the file that holds it")
    engine = create_engine(normalise_database_url(url))
    with engine.connect() as connection:
        migrate(connection)
    engine.dispose()


run()
