"""What is cleared from the object store, and what is left alone."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from store import jobs, unclaimed
from store.database import server_now, transaction
from store.errors import UnavailableError
from store.objects import ObjectStore
from store.settings import Settings
from store.sweeper import (
    LATE_UPLOADS_END,
    UPLOADS_ARE_BROKEN,
    abort_stale_uploads,
    remove_deleted_jobs,
    run_sweeper,
)

MINUTE = timedelta(minutes=1)


@pytest.fixture
def put(object_store: ObjectStore, tmp_path: Path) -> Callable[[str], None]:
    def put(key: str) -> None:
        (tmp_path / "file").write_text("content")
        object_store.upload_file(tmp_path / "file", key)

    return put


@contextmanager
def sweeping(engine: Engine, object_store: ObjectStore, settings: Settings) -> Iterator[None]:
    """Have the sweeper's thread make pass after pass; at the end it has to stop."""
    stop = threading.Event()
    fast = settings.model_copy(update={"reconcile_seconds": 0.02})
    thread = threading.Thread(target=run_sweeper, args=(engine, object_store, fast, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_deleted_job_loses_its_objects_and_late_ones_too(
    engine: Engine,
    object_store: ObjectStore,
    queued: Callable[[], str],
    put: Callable[[str], None],
    now: datetime,
) -> None:
    deleted, kept = queued(), queued()
    unknown = "019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa"
    others = sorted(f"jobs/{job_id}/attempts/1/a" for job_id in (kept, unknown))
    for key in (*others, f"jobs/{deleted}/attempts/1/a", f"jobs/{deleted}/attempts/2/b"):
        put(key)
    with transaction(engine) as session:
        jobs.delete_job(session, job_id=deleted, now=now)
    assert remove_deleted_jobs(engine, object_store, now + MINUTE) == [deleted]
    assert object_store.list_keys("jobs/") == others
    put(f"jobs/{deleted}/attempts/2/late")
    assert remove_deleted_jobs(engine, object_store, now + 2 * MINUTE) == []
    late = now + LATE_UPLOADS_END + MINUTE
    assert remove_deleted_jobs(engine, object_store, late) == [deleted]
    assert object_store.list_keys("jobs/") == others
    assert remove_deleted_jobs(engine, object_store, late) == []


def test_the_thread_clears_up_and_stops(
    engine: Engine,
    settings: Settings,
    object_store: ObjectStore,
    queued: Callable[[], str],
    put: Callable[[str], None],
    eventually: Callable[[Callable[[], object]], object],
) -> None:
    deleted = queued()
    put(f"jobs/{deleted}/attempts/1/file")
    with transaction(engine) as session:
        jobs.delete_job(session, job_id=deleted, now=server_now(session))
    with sweeping(engine, object_store, settings):
        eventually(lambda: object_store.list_keys("jobs/") == [])


def test_what_the_store_refuses_to_remove_holds_nothing_else_up(
    engine: Engine,
    settings: Settings,
    object_store: ObjectStore,
    queued: Callable[[], str],
    put: Callable[[str], None],
    eventually: Callable[[Callable[[], object]], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    locked, deleted = queued(), queued()
    for key in (f"jobs/{locked}/file", f"jobs/{deleted}/file", "captions/file"):
        put(key)
    with transaction(engine) as session:
        for job_id in (locked, deleted):
            jobs.delete_job(session, job_id=job_id, now=server_now(session))
        unclaimed.give_up(session, "captions/file", now=server_now(session))
    delete_prefix = object_store.delete_prefix

    def refuse_one(prefix: str) -> None:
        if prefix == f"jobs/{locked}/":
            raise UnavailableError("The object is locked")
        delete_prefix(prefix)

    monkeypatch.setattr(object_store, "delete_prefix", refuse_one)
    with sweeping(engine, object_store, settings):
        eventually(lambda: object_store.list_keys("") == [f"jobs/{locked}/file"])


def test_only_uploads_that_were_broken_off_long_ago_are_given_up(
    object_store: ObjectStore,
) -> None:
    client = object_store._client
    keys = ["jobs/a/attempts/1/model", "elsewhere/model"]
    for key in keys:
        client.create_multipart_upload(Bucket=object_store.bucket, Key=key)

    def begun() -> list[str]:
        listed = client.list_multipart_uploads(Bucket=object_store.bucket)
        return sorted(upload["Key"] for upload in listed.get("Uploads", []))

    assert begun() == sorted(keys)
    now = datetime.now().astimezone()
    assert abort_stale_uploads(object_store, now) == []
    assert abort_stale_uploads(object_store, now + UPLOADS_ARE_BROKEN + MINUTE) == keys[:1]
    assert begun() == keys[1:]
    object_store.abort_uploads("elsewhere/", begun_before=now + MINUTE)
