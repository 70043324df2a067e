"""Servers that crash at the worst moments and come back: Postgres, Valkey, SeaweedFS, all real."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from store.errors import UnavailableError
from store.queue import count_hints, send_job_hint
from store.settings import Settings
from tests.faults.servers import OwnServers
from tests.faults.states import assert_one_right_result, student_steps

Eventually = Callable[..., Any]
StartWorker = Callable[..., Any]
SendOn = Callable[[str, int], None]
AtStep = Callable[[str, int], int]


@pytest.fixture
def service_environment(own_environment: dict[str, str]) -> dict[str, str]:
    return own_environment


@pytest.fixture
def log(tmp_path: Path) -> Callable[[], str]:
    """Reads the first worker's log."""
    return (tmp_path / "worker-0.log").read_text


def finish(workplace: Any, send_on: SendOn, eventually: Eventually, job_id: str) -> None:
    """See a job through its pauses to its one right end, at the first attempt."""
    eventually(lambda: workplace.trainer_pid(job_id))
    send_on(job_id, 3)
    send_on(job_id, 5)
    eventually(lambda: workplace.job(job_id).status == "succeeded")
    assert_one_right_result(workplace, job_id)
    assert workplace.job(job_id).attempt == 1


def test_a_submission_without_a_broker_succeeds_and_the_job_runs_when_it_is_back(
    workplace: Any,
    servers: OwnServers,
    start_api: Callable[[], Any],
    start_worker: StartWorker,
    at_step: AtStep,
    send_on: SendOn,
    eventually: Eventually,
) -> None:
    start_worker()
    api = start_api()
    running = api.submit()
    at_step(running, 4)
    with servers.without("valkey"):
        waiting = api.submit()
        with pytest.raises(UnavailableError):
            count_hints(workplace.settings, "cpu")
        send_on(running, 5)
        eventually(lambda: workplace.job(running).status == "succeeded")
        assert workplace.job(waiting).status == "queued"
    assert_one_right_result(workplace, running)
    assert workplace.job(running).attempt == 1
    finish(workplace, send_on, eventually, waiting)


def test_a_crash_of_postgres_under_a_running_job_is_waited_out(
    workplace: Any,
    servers: OwnServers,
    start_worker: StartWorker,
    at_step: AtStep,
    send_on: SendOn,
    eventually: Eventually,
    log: Callable[[], str],
) -> None:
    start_worker(LEASE_SECONDS="60")
    job_id = workplace.submit_job()
    send_job_hint(workplace.settings, job_id, "cpu")
    trainer = at_step(job_id, 2)
    said = workplace.settings.work_dir / job_id / "1" / "events.jsonl"
    with servers.without("postgres"):
        # Nobody can ask Postgres whose process it is: the trainer goes on by itself.
        os.kill(trainer, signal.SIGUSR1)
        eventually(lambda: "pauses at step 5" in said.read_text())
        eventually(lambda: "no heartbeat" in log() and "will be repeated" in log())
    eventually(lambda: 4 in workplace.stored_steps(job_id))
    send_on(job_id, 5)
    eventually(lambda: workplace.job(job_id).status == "succeeded")
    assert_one_right_result(workplace, job_id)
    assert {process for _, process in student_steps(workplace, job_id)} == {trainer}
    assert workplace.job(job_id).attempt == 1


class LastCommit:
    """Holds the transaction that ends a job, before its commit or after it.

    Before: the transaction waits for a lock that this object holds. After: the commit is written, and its
    confirmation waits for a standby server that does not exist, so that the worker never hears of it.
    """

    def __init__(self, servers: OwnServers, settings: Settings, *, committed: bool) -> None:
        url = make_url(settings.database_url).set(drivername="postgresql")
        self._url = url.render_as_string(hide_password=False)
        self._servers = servers
        self.committed = committed
        self._lock: psycopg.Connection[Any] | None = None

    def prepare(self) -> None:
        if self.committed:
            self._configure("SET synchronous_commit = 'local'", "SET synchronous_standby_names = 'nobody'")
            action = "set_config('synchronous_commit', 'on', true)"
        else:
            self._lock = psycopg.connect(self._url, autocommit=True)
            self._lock.execute("SELECT pg_advisory_lock(42)")
            action = "pg_advisory_xact_lock(42)"
        with psycopg.connect(self._url) as connection:
            connection.execute(
                "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS"
                f" $$ BEGIN PERFORM {action}; RETURN NEW; END $$".encode()
            )
            connection.execute(
                "CREATE TRIGGER hold BEFORE INSERT ON job_transitions FOR EACH ROW"
                " WHEN (NEW.status = 'succeeded') EXECUTE FUNCTION hold()"
            )

    def is_held(self) -> bool:
        waits_for = "SyncRep" if self.committed else "advisory"
        with psycopg.connect(self._url) as connection:
            held = connection.execute(
                "SELECT 1 FROM pg_stat_activity WHERE wait_event = %s AND datname = current_database()",
                [waits_for],
            ).fetchone()
        return held is not None

    def let_go(self) -> None:
        """Let the repeated transaction, if there is one, pass."""
        if self._lock is not None:
            self._lock.close()

    def clear(self) -> None:
        self._servers.start()
        self._configure("RESET synchronous_standby_names", "RESET synchronous_commit")

    def _configure(self, *changes: str) -> None:
        for change in changes:
            self._servers.administer(f"ALTER SYSTEM {change}")
            self._servers.administer("SELECT pg_reload_conf()")


@pytest.fixture(params=[False, True], ids=["before the commit", "after the commit, before its confirmation"])
def last_commit(
    request: pytest.FixtureRequest, servers: OwnServers, settings: Settings
) -> Iterator[LastCommit]:
    held = LastCommit(servers, settings, committed=request.param)
    held.prepare()
    yield held
    held.let_go()
    held.clear()


def test_a_crash_of_postgres_in_the_last_commit_makes_one_end(
    workplace: Any,
    servers: OwnServers,
    last_commit: LastCommit,
    start_worker: StartWorker,
    at_step: AtStep,
    send_on: SendOn,
    eventually: Eventually,
    log: Callable[[], str],
) -> None:
    start_worker(LEASE_SECONDS="60")
    job_id = workplace.submit_job()
    send_job_hint(workplace.settings, job_id, "cpu")
    at_step(job_id, 4)
    send_on(job_id, 5)
    eventually(last_commit.is_held)
    with servers.without("postgres"):
        last_commit.let_go()
        eventually(lambda: "the job's end is not recorded yet" in log())
    if last_commit.committed:
        eventually(lambda: "the lease was lost" in log())
    eventually(lambda: workplace.job(job_id).status == "succeeded")
    assert_one_right_result(workplace, job_id)
    assert workplace.job(job_id).attempt == 1


def test_an_object_store_that_crashes_under_a_checkpoint_and_under_the_student_is_waited_out(
    workplace: Any,
    servers: OwnServers,
    start_worker: StartWorker,
    at_step: AtStep,
    send_on: SendOn,
    eventually: Eventually,
    log: Callable[[], str],
) -> None:
    start_worker()
    job_id = workplace.submit_job()
    send_job_hint(workplace.settings, job_id, "cpu")
    trainer = at_step(job_id, 2)
    # Its sample of step 3 is on its way: repeated, it would stand before the checkpoint.
    eventually(lambda: "sample" in {event.type for event in workplace.events(job_id)})
    with servers.without("seaweedfs"):
        send_on(job_id, 3)
        eventually(lambda: "store checkpoints/step-00000004: will be repeated" in log())
        beat = workplace.job(job_id).lease_expires_at
        eventually(lambda: workplace.job(job_id).lease_expires_at > beat)
        assert workplace.stored_steps(job_id) == {2}
    eventually(lambda: 4 in workplace.stored_steps(job_id))
    with servers.without("seaweedfs"):
        send_on(job_id, 5)
        eventually(lambda: workplace.is_gone(trainer))
        eventually(lambda: "store checkpoints/step-00000006: will be repeated" in log())
        assert workplace.job(job_id).status == "running"
    eventually(lambda: workplace.job(job_id).status == "succeeded")
    assert_one_right_result(workplace, job_id)
    assert {process for _, process in student_steps(workplace, job_id)} == {trainer}
    assert workplace.job(job_id).attempt == 1
