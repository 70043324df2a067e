"""Transactions, and what becomes of Postgres's refusals."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DataError, InternalError

from store.database import transaction
from store.errors import UnavailableError


@pytest.fixture
def fall_asleep(engine: Engine, eventually: Callable[..., Any]) -> Callable[[], None]:
    """Does nothing in a transaction until Postgres has ended it, and then goes on."""

    def is_gone(process: int) -> bool:
        with engine.connect() as connection:
            query = text("SELECT FROM pg_stat_activity WHERE pid = :pid")
            return connection.execute(query, {"pid": process}).first() is None

    def fall_asleep() -> None:
        with transaction(engine) as session:
            process = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
            session.execute(text("SET LOCAL idle_in_transaction_session_timeout = '20ms'"))
            eventually(lambda: is_gone(process))
            session.execute(text("SELECT 1"))

    return fall_asleep


def test_a_transaction_that_postgres_tired_of_is_as_if_postgres_had_been_away(
    fall_asleep: Callable[[], None],
) -> None:
    with pytest.raises(UnavailableError, match="nothing happened for long"):
        fall_asleep()


def test_a_server_that_has_become_a_standby_is_as_if_postgres_had_been_away_and_is_left(
    engine: Engine,
) -> None:
    def write(settings: str) -> int:
        with transaction(engine) as session:
            process: int = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
            session.execute(text(settings))
            session.execute(text("DELETE FROM jobs"))
        return process

    before = write("SELECT 1")
    with pytest.raises(UnavailableError, match="read-only"):
        write("SET LOCAL transaction_read_only = on")
    assert write("SELECT 1") != before


@pytest.fixture
def go_on_after_an_error(engine: Engine) -> Callable[[], None]:
    """Makes a mistake, and another by not leaving the transaction."""

    def go_on() -> None:
        with transaction(engine) as session:
            with pytest.raises(DataError):
                session.connection().exec_driver_sql("SELECT 1/0")
            session.connection().exec_driver_sql("SELECT 1")

    return go_on


def test_a_mistake_of_ours_does_not_pass_for_a_server_that_is_away(
    go_on_after_an_error: Callable[[], None],
) -> None:
    with pytest.raises(InternalError):
        go_on_after_an_error()
