"""The broker loses everything, or is away for a while: jobs are delayed, and none is lost or doubled."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from store.errors import UnavailableError
from store.queue import send_job_hint
from tests.faults.states import assert_one_right_result

Eventually = Callable[..., Any]
SendOn = Callable[[str, int], None]


@pytest.fixture
def finish(workplace: Any, send_on: SendOn, eventually: Eventually) -> Callable[[str], None]:
    """Sees a job through its pauses to its end."""

    def finish(job_id: str) -> None:
        eventually(lambda: workplace.trainer_pid(job_id))
        send_on(job_id, 3)
        send_on(job_id, 5)
        eventually(lambda: workplace.job(job_id).status == "succeeded")
        assert_one_right_result(workplace, job_id)
        assert workplace.job(job_id).attempt == 1

    return finish


def test_a_broker_that_lost_everything_is_told_again(
    workplace: Any, start_worker: Callable[..., Any], finish: Callable[[str], None]
) -> None:
    job_ids = sorted(workplace.submit_job() for _ in range(2))
    for job_id in job_ids:
        send_job_hint(workplace.settings, job_id, "cpu")
    with redis.Redis.from_url(workplace.settings.redis_url) as client:
        client.flushdb()  # the server's other databases belong to other tests
    start_worker()
    report = workplace.reconcile(timedelta(minutes=1))
    assert sorted(report.hinted) == job_ids
    for job_id in job_ids:
        finish(job_id)


def test_a_broker_that_is_away_holds_up_no_job_that_runs_and_loses_none_that_waits(
    workplace: Any,
    start_worker: Callable[..., Any],
    doors: Callable[..., Any],
    at_step: Callable[[str, int], int],
    send_on: SendOn,
    finish: Callable[[str], None],
    eventually: Eventually,
) -> None:
    address = urlsplit(workplace.settings.redis_url)
    door = doors(address.hostname, address.port)
    password, _, _ = address.netloc.rpartition("@")
    through = address._replace(netloc=f"{password}@127.0.0.1:{door.port}").geturl()
    start_worker(REDIS_URL=through)
    running = workplace.submit_job()
    send_job_hint(workplace.settings, running, "cpu")
    at_step(running, 4)
    door.shut()
    waiting = workplace.submit_job()
    with pytest.raises(UnavailableError):
        send_job_hint(workplace.settings.model_copy(update={"redis_url": through}), waiting, "cpu")
    send_on(running, 5)
    eventually(lambda: workplace.job(running).status == "succeeded")
    assert_one_right_result(workplace, running)
    assert workplace.job(waiting).status == "queued"
    door.open()
    assert workplace.reconcile(timedelta(minutes=1)).hinted == [waiting]
    finish(waiting)
