"""Processes that are killed, with the reconciler, the leases and their clock as they are in production."""

import os
import signal
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from store.artifacts import list_artifacts
from store.database import transaction
from store.queue import count_hints
from tests.faults.conftest import LEASE_SECONDS
from tests.faults.servers import OwnServers
from tests.faults.states import assert_one_right_result, student_steps

Eventually = Callable[..., Any]
StartWorker = Callable[..., Any]
# What the reconciler and a busy machine may add to a lease.
MARGIN_SECONDS = 3


@pytest.fixture
def service_environment(own_environment: dict[str, str]) -> dict[str, str]:
    return own_environment


@pytest.mark.usefixtures("reconciler")
def test_a_killed_trainer_costs_no_step_that_was_stored_and_no_attempt_of_a_job_that_gets_further(
    workplace: Any, start_worker: StartWorker, at_step: Callable[[str, int], int], eventually: Eventually
) -> None:
    start_worker()
    job_id = workplace.submit_job()
    killed = at_step(job_id, 4)
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: workplace.job(job_id).status == "succeeded")
    assert_one_right_result(workplace, job_id)
    assert [process == killed for _, process in student_steps(workplace, job_id)] == [True] * 4 + [False] * 2
    job = workplace.job(job_id)
    assert (job.attempt, job.attempts_used) == (2, 0)
    (crash,) = (event.data for event in workplace.events(job_id) if event.data.get("reason"))
    assert crash["reason"] == "trainer_crashed"
    assert "SIGKILL" in crash["message"]


@pytest.mark.usefixtures("reconciler")
def test_a_killed_worker_is_noticed_within_its_lease(
    workplace: Any, start_worker: StartWorker, at_step: Callable[[str, int], int], eventually: Eventually
) -> None:
    worker = start_worker()
    job_id = workplace.submit_job()
    killed = at_step(job_id, 4)
    worker.kill()
    eventually(
        lambda: workplace.job(job_id).status == "queued", within_seconds=LEASE_SECONDS + MARGIN_SECONDS
    )
    eventually(lambda: workplace.is_gone(killed))
    job = workplace.job(job_id)
    assert (job.transitions[-1].reason, job.attempts_used) == ("worker_lost", 1)
    with transaction(workplace.engine) as session:
        (log,) = list_artifacts(session, job_id, kinds=["log"])
    assert workplace.objects.read_object(log.key) == b"hello from the trainer\n"
    start_worker()
    eventually(lambda: workplace.job(job_id).status == "succeeded")
    assert_one_right_result(workplace, job_id)
    assert [process == killed for _, process in student_steps(workplace, job_id)] == [True] * 4 + [False] * 2
    job = workplace.job(job_id)
    assert (job.attempt, job.attempts_used) == (2, 0)


@pytest.mark.usefixtures("reconciler")
def test_a_worker_killed_in_the_middle_of_an_upload_leaves_no_checkpoint(
    workplace: Any,
    start_worker: StartWorker,
    doors: Callable[..., Any],
    at_step: Callable[[str, int], int],
    send_on: Callable[[str, int], None],
    eventually: Eventually,
) -> None:
    address = urlsplit(workplace.settings.s3_endpoint_url)
    door = doors(address.hostname, address.port)
    worker = start_worker(S3_ENDPOINT_URL=f"http://127.0.0.1:{door.port}")
    job_id = workplace.submit_job()
    killed = at_step(job_id, 2)
    # The state goes through, and the file of the optimiser in part.
    door.shut_after(100_000)
    send_on(job_id, 3)
    eventually(lambda: not door.is_open)
    eventually(lambda: "pauses at step 5" in workplace.trainer_said(job_id))
    worker.kill()
    sent = workplace.objects.list_keys(f"jobs/{job_id}/attempts/1/checkpoints/step-00000004/")
    assert not any(key.endswith(("manifest.json", "state.json")) for key in sent)
    assert workplace.stored_steps(job_id) == {2}
    start_worker()
    eventually(lambda: workplace.job(job_id).status == "succeeded")
    assert_one_right_result(workplace, job_id)
    assert [process == killed for _, process in student_steps(workplace, job_id)] == [True] * 2 + [False] * 4


def test_an_api_killed_between_commit_and_message_loses_no_job(
    workplace: Any,
    servers: OwnServers,
    start_api: Callable[[], Any],
    start_worker: StartWorker,
    send_on: Callable[[str, int], None],
    eventually: Eventually,
) -> None:
    first = start_api()
    # The broker takes connections and answers none: the message cannot leave the API.
    servers.process("valkey").suspend()
    try:
        job_id = first.submit()
        first.process.kill()
        first.process.wait()
    finally:
        servers.process("valkey").resume()
    assert count_hints(workplace.settings, "cpu") == 0
    assert workplace.job(job_id).status == "queued"
    start_worker()
    start_api()
    eventually(lambda: workplace.trainer_pid(job_id))
    send_on(job_id, 3)
    send_on(job_id, 5)
    eventually(lambda: workplace.job(job_id).status == "succeeded")
    assert_one_right_result(workplace, job_id)
    assert workplace.job(job_id).attempt == 1
