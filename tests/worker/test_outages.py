"""Servers that go away in the middle of a job and come back, by way of a door that the tests shut."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy.engine import make_url

from store.database import create_engine
from store.objects import ObjectStore
from tests.worker.doors import Door

Eventually = Callable[..., Any]


def test_a_job_survives_a_database_that_goes_away_again_and_again(
    workplace: Any,
    doors: Callable[..., Door],
    send_on: Callable[[str, int], None],
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = make_url(workplace.settings.database_url)
    door = doors(url.host, url.port)
    through = url.set(host="127.0.0.1", port=door.port).render_as_string(hide_password=False)
    engine = create_engine(workplace.settings.model_copy(update={"database_url": through}))
    job_id = workplace.submit_job()
    direct, workplace.engine = workplace.engine, engine
    running = workplace.begin("pauses")
    eventually(lambda: running.running())
    eventually(lambda: workplace.trainer_pid(job_id))
    workplace.engine = direct
    eventually(lambda: 2 in workplace.stored_steps(job_id))
    door.shut()
    send_on(job_id, 3)
    eventually(lambda: "step-00000004" in workplace.trainer_said(job_id))
    eventually(lambda: "no heartbeat" in caplog.text)
    door.open()
    eventually(lambda: 4 in workplace.stored_steps(job_id))
    door.shut()
    caplog.clear()
    send_on(job_id, 5)
    eventually(lambda: workplace.trainer_pid(job_id) is None)
    eventually(lambda: "will be repeated" in caplog.text)
    door.open()
    assert running.result(timeout=30) == "succeeded"
    engine.dispose()
    events = workplace.events(job_id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [e.data["step"] for e in events if e.type == "metrics"] == [1, 2, 3, 4, 5, 6]
    assert workplace.job(job_id).attempt == 1


def test_uploads_wait_for_an_object_store_that_went_away(
    workplace: Any,
    doors: Callable[..., Door],
    send_on: Callable[[str, int], None],
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    address = urlsplit(workplace.settings.s3_endpoint_url)
    door = doors(address.hostname, address.port)
    changed = workplace.settings.model_copy(update={"s3_endpoint_url": f"http://127.0.0.1:{door.port}"})
    workplace.objects = ObjectStore(changed)
    job_id = workplace.submit_job()
    running = workplace.begin("pauses")
    eventually(lambda: 2 in workplace.stored_steps(job_id))
    door.shut()
    send_on(job_id, 3)
    eventually(lambda: "will be repeated" in caplog.text)
    beat = workplace.job(job_id).lease_expires_at
    eventually(lambda: workplace.job(job_id).lease_expires_at > beat)
    send_on(job_id, 5)
    eventually(lambda: workplace.trainer_pid(job_id) is None)
    door.open()
    assert running.result(timeout=60) == "succeeded"
    assert [e.data["step"] for e in workplace.events(job_id) if e.type == "sample"] == [3]


def test_a_student_that_cannot_be_stored_fails_the_job_with_a_reason(
    workplace: Any, doors: Callable[..., Door], send_on: Callable[[str, int], None], eventually: Eventually
) -> None:
    address = urlsplit(workplace.settings.s3_endpoint_url)
    door = doors(address.hostname, address.port)
    changed = workplace.settings.model_copy(update={"s3_endpoint_url": f"http://127.0.0.1:{door.port}"})
    workplace.objects = ObjectStore(changed)
    job_id = workplace.submit_job()
    running = workplace.begin("pauses", upload_patience_seconds=0.5)
    eventually(lambda: 2 in workplace.stored_steps(job_id))
    send_on(job_id, 3)
    eventually(lambda: 4 in workplace.stored_steps(job_id))
    door.shut()
    send_on(job_id, 5)
    assert running.result(timeout=60) == "failed"
    job = workplace.job(job_id)
    assert (job.status, job.reason) == ("failed", "storage_unavailable")
    assert job.hint
    door.open()
