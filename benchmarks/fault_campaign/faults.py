"""What is done to the service, as a table: a fault, and what undoes it some faults later."""

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

import httpx
import redis

from benchmarks.fault_campaign.service import Service
from store.errors import UnavailableError
from store.queue import send_job_hint
from tests.faults.servers import ServerName

Undo = Callable[[], object]
USERS_VERBS = ("cancel", "pause", "resume", "retry")


@dataclass(frozen=True)
class Fault:
    """What was done.

    Attributes
    ----------
    target
        To whom; empty where there was nobody to do it to.
    undo
        Puts it right again, where it does not pass by itself.
    """

    target: str
    undo: Undo | None = None


NOTHING = Fault("")


def kill_trainer(service: Service, jobs: list[str], random: Random) -> Fault:
    """Kill one of the trainers that run."""
    trainers = service.trainers()
    if not trainers:
        return NOTHING
    trainer = random.choice(trainers)
    trainer.kill()
    return Fault(f"process {trainer.pid}")


def kill_worker(service: Service, jobs: list[str], random: Random) -> Fault:
    """Kill a worker; its trainer dies with it."""
    return _end_worker(service, random, signal.SIGKILL)


def terminate_worker(service: Service, jobs: list[str], random: Random) -> Fault:
    """Tell a worker to end, as a deploy does."""
    return _end_worker(service, random, signal.SIGTERM)


def _end_worker(service: Service, random: Random, how: signal.Signals) -> Fault:
    host = random.choice(service.hosts)
    service.workers[host].send_signal(how)
    return Fault(f"host {host}", lambda: service.start_worker(host))


def stop_worker(service: Service, jobs: list[str], random: Random) -> Fault:
    """Freeze a worker, often past its lease, while its trainer goes on."""
    host = random.choice(service.hosts)
    worker = service.workers[host]
    worker.send_signal(signal.SIGSTOP)
    return Fault(f"host {host}", lambda: worker.poll() is None and worker.send_signal(signal.SIGCONT))


def crash_postgres(service: Service, jobs: list[str], random: Random) -> Fault:
    """Kill Postgres."""
    return _crash(service, "postgres")


def crash_valkey(service: Service, jobs: list[str], random: Random) -> Fault:
    """Kill Valkey."""
    return _crash(service, "valkey")


def crash_object_store(service: Service, jobs: list[str], random: Random) -> Fault:
    """Kill SeaweedFS."""
    return _crash(service, "seaweedfs")


def _crash(service: Service, name: ServerName) -> Fault:
    if not service.servers.is_running(name):
        return NOTHING
    service.servers.kill(name)
    return Fault(name, lambda: service.servers.start(name))


def empty_valkey(service: Service, jobs: list[str], random: Random) -> Fault:
    """Lose every message."""
    try:
        with redis.Redis.from_url(service.settings.redis_url) as client:
            client.flushall()
    except redis.RedisError:
        return NOTHING
    return Fault("all messages")


def repeat_messages(service: Service, jobs: list[str], random: Random) -> Fault:
    """Send the message of a job, whatever its status, five times more."""
    job_id = random.choice(jobs)
    try:
        for _ in range(5):
            send_job_hint(service.settings, job_id, service.settings.worker_queue)
    except UnavailableError:
        return NOTHING
    return Fault(job_id)


def kill_api(service: Service, jobs: list[str], random: Random) -> Fault:
    """Kill the API and the reconciler in it."""
    if service.api is None or service.api.poll() is not None:
        return NOTHING
    service.api.kill()
    return Fault("the API", service.start_api)


def ask(verb: str) -> Callable[[Service, list[str], Random], Fault]:
    """Make the fault of a user who asks something of a job; being refused is no fault."""

    def fault(service: Service, jobs: list[str], random: Random) -> Fault:
        job_id = random.choice(jobs)
        if verb == "cancel":
            service.cancel_asked.add(job_id)  # before the answer, which may be lost
        try:
            answer = service.http.post(f"/jobs/{job_id}/{verb}")
        except httpx.TransportError:
            return NOTHING
        if answer.status_code not in {200, 409, 503}:
            raise AssertionError(f"{verb} of {job_id}: {answer.status_code} {answer.text}")
        return Fault(job_id) if answer.is_success else NOTHING

    return fault


# Each with how often it comes in comparison.
FAULTS: Mapping[str, tuple[Callable[[Service, list[str], Random], Fault], int]] = {
    "kill -9 of a trainer": (kill_trainer, 4),
    "kill -9 of a worker": (kill_worker, 3),
    "SIGTERM to a worker": (terminate_worker, 2),
    "SIGSTOP of a worker, SIGCONT later": (stop_worker, 3),
    "crash of Postgres": (crash_postgres, 3),
    "crash of Valkey": (crash_valkey, 2),
    "crash of the object store": (crash_object_store, 3),
    "Valkey emptied": (empty_valkey, 2),
    "five messages more for a job": (repeat_messages, 3),
    "kill -9 of the API": (kill_api, 1),
    "a user cancels": (ask("cancel"), 1),
    "a user pauses": (ask("pause"), 2),
    "a user resumes": (ask("resume"), 2),
    "a user retries": (ask("retry"), 2),
}
