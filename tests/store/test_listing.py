"""Lists of jobs, and requests that are sent twice."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, update
from sqlalchemy.exc import InvalidRequestError

from core.spec import DistillationSpec
from store import idempotency, job_queries, jobs
from store.database import transaction
from store.errors import IdempotencyConflictError, InvalidCursorError
from store.idempotency import LIFETIME, IdempotencyKey, forget_expired
from store.ids import new_job_id
from store.models import Job
from tests.store.conftest import WHOLE_SPECIFICATION


def test_ids_sort_by_time() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    ids = [new_job_id(start + timedelta(milliseconds=index)) for index in range(50)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 50


def test_pages_stay_right_while_jobs_are_added(engine: Engine, spec: DistillationSpec, now: datetime) -> None:
    def create(count: int, start: int) -> list[str]:
        with transaction(engine) as session:
            return [
                jobs.create_job(
                    session, spec=spec, queue="cpu", now=now + timedelta(seconds=start + index)
                ).id
                for index in range(count)
            ]

    created = create(5, 0)
    seen: list[str] = []
    after = None
    while True:
        with transaction(engine) as session:
            page = job_queries.list_jobs(session, after=after, limit=2)
        seen += [job.id for job in page.items]
        create(1, 100 + len(seen))
        if not page.has_more:
            break
        after = page.next
    assert seen == created[::-1]


def test_lists_are_filtered(engine: Engine, queued: Callable[[], str], now: datetime) -> None:
    kept, cancelled = queued(), queued()
    with transaction(engine) as session:
        jobs.request_cancel(session, job_id=cancelled, now=now)
    with transaction(engine) as session:
        assert [j.id for j in job_queries.list_jobs(session, status="queued").items] == [kept]
        assert [j.id for j in job_queries.list_jobs(session, status="cancelled").items] == [cancelled]
        assert job_queries.list_jobs(session, teacher="another").items == []
        with pytest.raises(InvalidCursorError):
            job_queries.list_jobs(session, after="nonsense")


def test_jobs_are_found_by_words_of_their_id_teacher_and_student(engine: Engine, now: datetime) -> None:
    def create(**spec: object) -> str:
        with transaction(engine) as session:
            parsed = DistillationSpec.model_validate(spec)
            return jobs.create_job(session, spec=parsed, queue="cpu", now=now).id

    small = create(teacher="emoji-64", student="b-small")
    wide = create(teacher="emoji-64", student={"width": 0.75})
    other = create(teacher="100%_real")

    def found(search: str) -> set[str]:
        with transaction(engine) as session:
            return {job.id for job in job_queries.list_jobs(session, search=search).items}

    assert found("width-0.75") == {wide}
    assert found("EMOJI small") == {small}
    assert found("small") == {small, other}
    assert found(small[-8:]) == {small}
    assert found("100%_r") == {other}
    assert found("emoji%small") == set()
    assert found("") == {small, wide, other}


def test_lists_leave_the_specifications_of_jobs_where_they_are(
    engine: Engine, queued: Callable[[], str], statements: list[str]
) -> None:
    """They may hold megabytes of captions each."""
    job_id, of_the_release_before = queued(), queued()
    with transaction(engine) as session:
        unset = update(Job).where(Job.id == of_the_release_before).values(kept_student=None)
        session.execute(unset)
    statements.clear()
    with transaction(engine) as session:
        listed = job_queries.list_jobs(session, search="small").items
        with pytest.raises(InvalidRequestError, match="raiseload"):
            _ = listed[0].spec
    assert {job.id: job.student for job in listed} == {job_id: "b-small", of_the_release_before: "b-small"}
    assert not [statement for statement in statements if re.search(WHOLE_SPECIFICATION, statement)]
    with transaction(engine) as session:
        settings = job_queries.read_settings(session, [job_id])
        whole = job_queries.get_job(session, job_id).spec
    without_captions = {name: value for name, value in whole.items() if name not in ("captions", "drawn")}
    assert settings == {job_id: without_captions}


def test_one_key_makes_one_job_however_often_it_is_sent(
    engine: Engine, spec: DistillationSpec, now: datetime
) -> None:
    def send(_: int) -> str:
        with transaction(engine) as session:
            key = IdempotencyKey("key", "fingerprint")
            return jobs.create_job(session, spec=spec, queue="cpu", now=now, idempotency=key).id

    with ThreadPoolExecutor(6) as pool:
        ids = set(pool.map(send, range(12)))
    assert len(ids) == 1
    with transaction(engine) as session:
        assert len(job_queries.list_jobs(session).items) == 1


def test_a_key_used_with_another_request_is_refused_until_it_expires(
    engine: Engine, spec: DistillationSpec, now: datetime
) -> None:
    def send(fingerprint: str, at: datetime) -> str:
        with transaction(engine) as session:
            key = IdempotencyKey("key", fingerprint)
            return jobs.create_job(session, spec=spec, queue="cpu", now=at, idempotency=key).id

    first = send("a", now)
    with pytest.raises(IdempotencyConflictError):
        send("b", now + LIFETIME / 2)
    assert send("b", now + LIFETIME) != first
    with transaction(engine) as session:
        assert forget_expired(session, now=now + 3 * LIFETIME) == 1


def test_expired_keys_are_forgotten_some_at_a_time(
    engine: Engine, spec: DistillationSpec, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "_FORGOTTEN_AT_ONCE", 2)
    with transaction(engine) as session:
        for number in range(3):
            key = IdempotencyKey(f"key {number}", "a")
            jobs.create_job(session, spec=spec, queue="cpu", now=now, idempotency=key)
    with transaction(engine) as session:
        late = now + 2 * LIFETIME
        assert [forget_expired(session, now=late) for _ in range(3)] == [2, 1, 0]
