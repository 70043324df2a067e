"""A session of a tenant sees and changes that tenant's rows alone, whatever the query."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Engine, delete, exists, func, select, update
from sqlalchemy.orm import Session, aliased

from core.spec import DistillationSpec
from store import artifacts, events, job_queries, jobs, metrics
from store.database import transaction
from store.endings import CANCELLED
from store.errors import IdempotencyConflictError, NotFoundError
from store.events import NewEvent
from store.idempotency import IdempotencyKey
from store.leases import NewArtifact, add_artifacts, record_events
from store.models import DEFAULT_TENANT_ID, Artifact, Base, Job, JobEvent, OfJob, OfTenant, Tenant
from store.tenancy import tenant_of
from store.tenants import list_tenants

# What is reached only by way of a row that belongs to a tenant, or by nobody on a tenant's behalf.
SHARED_BY_ALL = {"tenants", "unclaimed_objects", "webhook_attempts", "workers"}


@pytest.fixture
def own(engine: Engine, tenant_id: Callable[[str], str]) -> Iterator[Session]:
    with transaction(engine, tenant_id=tenant_id("own")) as session:
        yield session


@pytest.fixture
def their_id(tenant_id: Callable[[str], str]) -> str:
    return tenant_id("theirs")


@pytest.fixture
def theirs(engine: Engine, their_id: str, spec: DistillationSpec, now: datetime) -> str:
    """A job of another tenant with something of everything."""
    with transaction(engine, tenant_id=their_id) as session:
        job_id = jobs.create_job(session, spec=spec, queue="cpu", now=now).id
    with transaction(engine) as session:
        claim = jobs.claim_job(session, job_id=job_id, worker="w", now=now, lease_seconds=60)
        assert claim is not None
        lease: dict[str, Any] = {"job_id": job_id, "lease_token": claim.lease_token, "now": now}
        told = [NewEvent("metrics", {"step": 1, "values": {"loss": 1.0}})]
        record_events(session, **lease, events=told, position=1)
        files = [
            NewArtifact(path=kind, kind=kind, step=1, key=kind, size=5, sha256="")
            for kind in ("student_archive", "checkpoint_file")
        ]
        add_artifacts(session, **lease, artifacts=files, event=None)
        jobs.finish_failed(session, job_id=job_id, lease_token=claim.lease_token, ending=CANCELLED, now=now)
    return job_id


def test_every_table_says_whose_its_rows_are() -> None:
    owned = {mapper.local_table.name for kind in (OfTenant, OfJob) for mapper in _mappers(kind)}
    assert owned | SHARED_BY_ALL == Base.metadata.tables.keys()
    for table in Base.metadata.tables.values():
        assert not {"tenant_id", "job_id"} & set(table.columns.keys()) or table.name in owned


def _mappers(kind: type) -> list[Any]:
    return [mapper for mapper in Base.registry.mappers if issubclass(mapper.class_, kind)]


@pytest.mark.parametrize(
    "ask",
    [
        lambda session, job: job_queries.get_job(session, job),
        lambda session, job: job_queries.get_job(session, job, for_update=True),
        lambda session, job: jobs.request_cancel(session, job_id=job, now=datetime.min),
        lambda session, job: jobs.request_pause(session, job_id=job, now=datetime.min),
        lambda session, job: jobs.resume_job(session, job_id=job, now=datetime.min),
        lambda session, job: jobs.retry_job(session, job_id=job, from_scratch=True, now=datetime.min),
        lambda session, job: jobs.delete_job(session, job_id=job, now=datetime.min),
        lambda session, job: artifacts.get_student_archive(session, job),
    ],
)
def test_a_job_of_others_does_not_exist(own: Session, theirs: str, ask: Callable[..., Any]) -> None:
    with pytest.raises(NotFoundError):
        ask(own, theirs)


@pytest.mark.parametrize(
    "ask",
    [
        lambda session, job: job_queries.list_jobs(session).items,
        lambda session, job: events.list_events(session, job).items,
        lambda session, job: metrics.list_metric_names(session, job),
        lambda session, job: metrics.list_metric_points(session, job),
        lambda session, job: artifacts.list_artifacts(session, job),
        lambda session, job: artifacts.list_checkpoints(session, job),
        lambda session, job: session.scalars(select(JobEvent)).all(),
        lambda session, job: session.scalars(select(aliased(Job))).all(),
        lambda session, job: session.execute(select(Artifact.key, Job.id).join(Job)).all(),
        lambda session, job: session.scalars(select(func.count(Job.id)).having(func.count(Job.id) > 0)).all(),
        lambda session, job: session.scalars(select(Job.id).where(exists().where(Job.id == job))).all(),
        lambda session, job: session.scalars(update(Job).values(priority=9).returning(Job.id)).all(),
        lambda session, job: session.scalars(update(Job).values(priority=9).returning(Job)).all(),
        lambda session, job: session.scalars(delete(Artifact).returning(Artifact.key)).all(),
    ],
)
def test_no_query_finds_or_changes_rows_of_others(
    engine: Engine, own: Session, theirs: str, their_id: str, ask: Callable[..., Any]
) -> None:
    assert list(ask(own, theirs)) == []
    with transaction(engine, tenant_id=their_id) as session:
        assert list(ask(session, theirs)) != [], "their own session finds them"


def test_loading_by_primary_key_and_relation_is_scoped_too(
    engine: Engine, own: Session, theirs: str, their_id: str
) -> None:
    assert own.get(Job, theirs) is None
    assert [tenant.name for tenant in list_tenants(own)] == ["own"]
    with transaction(engine, tenant_id=their_id) as session:
        assert len(job_queries.get_job(session, theirs).transitions) == 3
        assert session.get(Job, theirs) is not None
    with transaction(engine) as session:
        assert {tenant.name for tenant in session.scalars(select(Tenant))} == {"default", "own", "theirs"}


def test_what_a_session_makes_belongs_to_its_tenant(
    engine: Engine, own: Session, tenant_id: Callable[[str], str], spec: DistillationSpec, now: datetime
) -> None:
    made = jobs.create_job(own, spec=spec, queue="cpu", now=now)
    assert made.tenant_id == tenant_of(own) == tenant_id("own")
    with transaction(engine) as session:
        assert jobs.create_job(session, spec=spec, queue="cpu", now=now).tenant_id == DEFAULT_TENANT_ID


def test_equal_idempotency_keys_of_two_tenants_are_two(
    engine: Engine, own: Session, spec: DistillationSpec, now: datetime
) -> None:
    def create(session: Session, fingerprint: str) -> str:
        key = IdempotencyKey("k", fingerprint)
        return jobs.create_job(session, spec=spec, queue="cpu", now=now, idempotency=key).id

    first = create(own, "a")
    with transaction(engine, tenant_id=DEFAULT_TENANT_ID) as session:
        second = create(session, "b")
        assert create(session, "b") == second
    assert create(own, "a") == first != second
    with pytest.raises(IdempotencyConflictError):
        create(own, "b")


def test_a_deleted_job_of_others_was_never_there(
    engine: Engine, own: Session, theirs: str, their_id: str, now: datetime
) -> None:
    with ExitStack() as stack:
        session = stack.enter_context(transaction(engine, tenant_id=their_id))
        for _ in range(2):
            jobs.delete_job(session, job_id=theirs, now=now)
    with pytest.raises(NotFoundError):
        jobs.delete_job(own, job_id=theirs, now=now)
