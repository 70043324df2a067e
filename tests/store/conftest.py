"""Jobs to try the store with, at times that the tests choose."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, event

from core.spec import DistillationSpec
from store.database import transaction
from store.jobs import Claim, claim_job, create_job


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def spec() -> DistillationSpec:
    return DistillationSpec(teacher="emoji-64")


@pytest.fixture
def queued(engine: Engine, spec: DistillationSpec, now: datetime) -> Callable[[], str]:
    """Makes a queued job and returns its id."""

    def make() -> str:
        with transaction(engine) as session:
            return create_job(session, spec=spec, queue="cpu", now=now).id

    return make


@pytest.fixture
def running(engine: Engine, queued: Callable[[], str], now: datetime) -> Callable[[], Claim]:
    """Makes a job that a worker has claimed for a minute and returns the claim."""

    def make() -> Claim:
        job_id = queued()
        with transaction(engine) as session:
            claim = claim_job(session, job_id=job_id, worker="w1", now=now, lease_seconds=60)
        assert claim is not None
        return claim

    return make


@pytest.fixture
def statements(engine: Engine) -> Iterator[list[str]]:
    """The statements that are sent to the database, as they are sent."""
    sent: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine, "before_cursor_execute", note)


WHOLE_SPECIFICATION = r"jobs\.spec(?!\[| ->>)"
"""Finds where a statement reads more of specifications than one field."""
