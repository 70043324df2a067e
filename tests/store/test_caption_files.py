"""Rows of caption files: whose they are, which objects they share, and what keeps them."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from sqlalchemy import Engine, event, text

from core.spec import DistillationSpec
from store import caption_files
from store.database import transaction
from store.errors import CaptionsInUseError, NotFoundError, QuotaExceededError, UploadExpiredError
from store.jobs import create_job
from store.models import CaptionFile, Job, Tenant
from store.objects import StoredObject
from store.quotas import NO_LIMITS, Quotas
from store.stored_bytes import recount_bytes
from store.unclaimed import UPLOAD_ENDS, take_due
from tests.postgres_locks import waits_for_a_lock

OURS = "019ab2c4-7f1e-7c3a-9d52-00000000000a"
THEIRS = "019ab2c4-7f1e-7c3a-9d52-00000000000b"


@pytest.fixture
def keep(engine: Engine, now: datetime) -> Callable[..., CaptionFile]:
    """Writes the row of a file as if its content had been stored."""
    with transaction(engine) as session:
        session.add_all([Tenant(id=OURS, name="ours"), Tenant(id=THEIRS, name="theirs")])

    def keep(
        tenant_id: str = OURS,
        name: str = "a.txt",
        sha256: str = "0" * 64,
        size: int = 1,
        quotas: Quotas = NO_LIMITS,
    ) -> CaptionFile:
        with transaction(engine) as session:
            key = caption_files.begin_upload(session, tenant_id=tenant_id, now=now, quotas=quotas)
        stored = StoredObject(key=key, size=size, sha256=sha256)
        with transaction(engine) as session:
            return caption_files.finish_upload(
                session, tenant_id=tenant_id, name=name, stored=stored, now=now, quotas=quotas
            )[0]

    return keep


def unclaimed(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT key FROM unclaimed_objects")).scalars())


def test_a_tenant_sees_nothing_of_another(
    engine: Engine, now: datetime, keep: Callable[..., CaptionFile]
) -> None:
    ours, theirs = keep(OURS), keep(THEIRS)
    assert ours.key != theirs.key, "equal content of two tenants is two objects"
    with transaction(engine) as session:
        assert [file.id for file in caption_files.list_caption_files(session, tenant_id=OURS).items] == [
            ours.id
        ]
        for refused in (
            lambda: caption_files.get_caption_file(session, theirs.id, tenant_id=OURS),
            lambda: caption_files.hold_caption_file(session, theirs.id, tenant_id=OURS),
            lambda: caption_files.delete_caption_file(session, theirs.id, tenant_id=OURS, now=now),
        ):
            with pytest.raises(NotFoundError):
                refused()


def test_an_object_goes_with_the_last_row_that_speaks_of_it(
    engine: Engine, now: datetime, keep: Callable[..., CaptionFile]
) -> None:
    first, second = keep(name="a.txt"), keep(name="b.csv")
    assert first.key == second.key
    surplus = unclaimed(engine)
    assert len(surplus) == 1
    assert first.key not in surplus
    with transaction(engine) as session:
        caption_files.delete_caption_file(session, first.id, tenant_id=OURS, now=now)
    assert unclaimed(engine) == surplus
    with transaction(engine) as session:
        caption_files.delete_caption_file(session, second.id, tenant_id=OURS, now=now)
    assert sorted(unclaimed(engine)) == sorted([*surplus, second.key])


def bytes_stored(engine: Engine) -> int:
    with engine.connect() as connection:
        ours = text("SELECT bytes_stored FROM tenants WHERE id = :id")
        return int(connection.execute(ours, {"id": OURS}).scalar_one())


def test_an_object_counts_once_as_long_as_it_is_stored(
    engine: Engine, now: datetime, keep: Callable[..., CaptionFile]
) -> None:
    files = [keep(name="a.txt"), keep(name="b.csv"), keep(name="a.txt"), keep(sha256="1" * 64, size=5)]
    for _ in range(2):
        assert bytes_stored(engine) == 6
        recount_bytes(engine)
    with transaction(engine) as session:
        caption_files.delete_caption_file(session, files[0].id, tenant_id=OURS, now=now)
    assert bytes_stored(engine) == 6
    with transaction(engine) as session:
        caption_files.delete_caption_file(session, files[1].id, tenant_id=OURS, now=now)
    assert bytes_stored(engine) == 5


def test_a_file_that_there_is_no_room_for_is_refused_and_leaves_nothing(
    engine: Engine, now: datetime, keep: Callable[..., CaptionFile]
) -> None:
    quotas = Quotas(bytes_stored=3)
    keep(size=2, quotas=quotas)
    with pytest.raises(QuotaExceededError, match="stores 2 bytes, and may store 3: there is no room for 2"):
        keep(sha256="1" * 64, size=2, quotas=quotas)
    assert bytes_stored(engine) == 2
    keep(sha256="2" * 64, size=1, quotas=quotas)
    with transaction(engine) as session, pytest.raises(QuotaExceededError):
        caption_files.begin_upload(session, tenant_id=OURS, now=now, quotas=quotas)


def test_a_file_outlives_that_its_upload_is_given_up_when_its_commit_was_in_doubt(
    engine: Engine, now: datetime, keep: Callable[..., CaptionFile]
) -> None:
    file = keep()
    with transaction(engine) as session:
        caption_files.give_up_upload(session, file.key, now=now)
        assert list(take_due(session, now=now + UPLOAD_ENDS)) == []


def test_a_broken_upload_is_removed_at_once(
    engine: Engine, now: datetime, keep: Callable[..., CaptionFile]
) -> None:
    keep()
    with transaction(engine) as session:
        key = caption_files.begin_upload(session, tenant_id=OURS, now=now)
    with transaction(engine) as session:
        assert list(take_due(session, now=now)) == []
        caption_files.give_up_upload(session, key, now=now)
        assert list(take_due(session, now=now)) == [key]


def test_an_upload_that_is_being_removed_cannot_be_finished(engine: Engine, now: datetime) -> None:
    with transaction(engine) as session:
        session.add(Tenant(id=OURS, name="ours"))
        session.flush()
        key = caption_files.begin_upload(session, tenant_id=OURS, now=now)
    with transaction(engine) as session:
        assert list(take_due(session, now=now + UPLOAD_ENDS)) == [key]
    stored = StoredObject(key=key, size=1, sha256="0" * 64)
    with transaction(engine) as session, pytest.raises(UploadExpiredError):
        caption_files.finish_upload(session, tenant_id=OURS, name="a.txt", stored=stored, now=now)


def test_a_deletion_waits_for_a_submission_and_then_heeds_it(
    engine: Engine, now: datetime, keep: Callable[..., CaptionFile], eventually: Callable[..., Any]
) -> None:
    file = keep()
    captions = {"kind": "uploaded", "id": file.id}
    spec = DistillationSpec.model_validate({"teacher": "emoji-64", "captions": captions})

    def delete() -> None:
        with transaction(engine) as session:
            caption_files.delete_caption_file(session, file.id, tenant_id=OURS, now=now)

    with ThreadPoolExecutor(1) as pool:
        with transaction(engine) as session:
            caption_files.hold_caption_file(session, file.id, tenant_id=OURS)
            create_job(session, spec=spec, queue="cpu", now=now)
            deletion = pool.submit(delete)
            eventually(lambda: waits_for_a_lock(engine))
        with pytest.raises(CaptionsInUseError):
            deletion.result(20)


def test_who_reads_a_file_is_found_without_opening_the_specifications_of_other_jobs(
    engine: Engine, now: datetime, keep: Callable[..., CaptionFile], queued: Callable[[], str]
) -> None:
    file = keep()
    queued()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        columns = ", ".join(column.name for column in Job.__table__.columns if column.name != "id")
        connection.exec_driver_sql(
            f"INSERT INTO jobs (id, {columns}) SELECT gen_random_uuid(), {columns} FROM jobs,"
            " generate_series(1, 500)"
        )
        connection.exec_driver_sql("ANALYZE jobs")
    plans: list[str] = []

    def explain(connection: Any, _: Any, statement: str, parameters: Any, *__: Any) -> None:
        if "FROM jobs" in statement and "caption" in statement and not statement.startswith("EXPLAIN"):
            rows = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
            plans.append("\n".join(rows.scalars()))

    event.listen(engine, "before_cursor_execute", explain)
    with transaction(engine) as session:
        assert caption_files.captions_read(session, [file.id]) == {}
        caption_files.delete_caption_file(session, file.id, tenant_id=OURS, now=now)
    event.remove(engine, "before_cursor_execute", explain)
    assert len(plans) == 2
    for plan in plans:
        assert "ix_jobs_caption_file" in plan, plan


def test_a_files_captions_are_counted_by_its_newest_jobs_alone(
    engine: Engine, now: datetime, keep: Callable[..., CaptionFile], queued: Callable[[], str]
) -> None:
    file, other, unread = keep(), keep(name="b.txt"), keep(name="c.txt")
    template = queued()
    columns = ", ".join(
        set(Job.__table__.columns.keys()) - {"id", "spec", "tenant_id", "created_at", "attempt"}
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # A job's number is the count that it found. Of those that workers took the newest has not come to its
        # captions yet; ten more of the first file wait.
        for each, first, last, waiting in ((file, 1, 500, 10), (other, 601, 603, 0)):
            spec = {"captions": {"kind": "uploaded", "id": each.id}}
            connection.exec_driver_sql(
                f"INSERT INTO jobs (id, spec, tenant_id, created_at, attempt, {columns}) "
                "SELECT lpad(number::text, 32, '0')::uuid, %s, %s, created_at + number * interval '1 s', "
                f"(number <= %s)::int, {columns} "
                "FROM jobs, generate_series(%s::int, %s::int) AS number WHERE id = %s",
                (Jsonb(spec), OURS, last, first, last + waiting, template),
            )
            connection.exec_driver_sql(
                "INSERT INTO job_events (job_id, sequence, attempt, at, type, data) "
                "SELECT lpad(number::text, 32, '0')::uuid, sequence, 1, now(), "
                "CASE sequence WHEN 2 THEN 'captions' ELSE 'sample' END, jsonb_build_object('count', number) "
                "FROM generate_series(%s::int, %s::int) AS number, generate_series(2, 20) AS sequence",
                (first, last - 1),
            )
        connection.exec_driver_sql("ANALYZE jobs, job_events")
    plans: list[str] = []

    def explain(connection: Any, _: Any, statement: str, parameters: Any, *__: Any) -> None:
        if "JOIN LATERAL" in statement and not statement.startswith("EXPLAIN"):
            rows = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, TIMING OFF) {statement}", parameters)
            plans.append("\n".join(rows.scalars()))

    event.listen(engine, "before_cursor_execute", explain)
    with transaction(engine, tenant_id=OURS) as session:
        counts = caption_files.captions_read(session, [file.id, other.id, unread.id])
    with transaction(engine, tenant_id=THEIRS) as session:
        assert caption_files.captions_read(session, [file.id]) == {}
    event.remove(engine, "before_cursor_execute", explain)
    assert counts == {file.id: 499, other.id: 602}
    jobs_read = re.findall(r"ix_jobs_caption_file.*actual rows=([0-9.]+) loops=([0-9]+)", plans[0])
    assert sum(float(rows) * int(loops) for rows, loops in jobs_read) == pytest.approx(5 + 3, abs=0.1), plans
