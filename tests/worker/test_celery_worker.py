"""The Celery worker as a real process: its queue, hints, a warm shutdown, a sudden death."""

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import redis

from store.database import transaction
from store.queue import send_job_hint
from store.workers import WorkerAtWork, list_workers

Eventually = Callable[..., Any]


def workers(workplace: Any) -> list[WorkerAtWork]:
    with transaction(workplace.engine) as session:
        return list_workers(session)


def test_a_hint_runs_a_job_even_after_the_broker_was_emptied(
    workplace: Any,
    start_worker: Callable[[], Any],
    at_step: Callable[[str, int], int],
    send_on: Callable[[str, int], None],
    eventually: Eventually,
) -> None:
    start_worker()
    for emptied in (False, True):
        if emptied:
            with redis.Redis.from_url(workplace.settings.redis_url) as client:
                client.flushdb()
        job_id = workplace.submit_job()
        for _ in range(3):
            send_job_hint(workplace.settings, job_id, "cpu")
        at_step(job_id, 4)
        send_on(job_id, 5)
        eventually(lambda job_id=job_id: workplace.job(job_id).status == "succeeded")
        assert workplace.job(job_id).attempt == 1


def test_a_worker_serves_the_class_of_its_device_and_those_before_it(
    workplace: Any,
    start_worker: Callable[..., Any],
    nvidia_smi: Path,
    eventually: Eventually,
) -> None:
    start_worker(
        PATH=f"{nvidia_smi.parent}:{os.environ['PATH']}",
        ACCELERATOR_CLASSES="cpu=8,gpu=24,gpu-80gb=80,gpu-141gb=141",
        SMALL_TRAINER_BEHAVIOUR="steady",
    )
    for queue in ("gpu-80gb", "cpu"):
        job_id = workplace.submit_job(queue=queue)
        send_job_hint(workplace.settings, job_id, queue)
        eventually(lambda job_id=job_id: workplace.job(job_id).status == "succeeded")
    (told,) = [each.worker for each in workers(workplace)]
    assert (told.queue, told.device_count) == ("gpu-80gb", 2)
    assert (told.device, told.memory_bytes) == ("NVIDIA H100 80GB HBM3", 81_559 * 2**20)


def test_a_worker_of_a_class_that_its_machine_is_not_of_does_not_start(
    workplace: Any, start_worker: Callable[..., Any], tmp_path: Path
) -> None:
    worker = start_worker(WORKER_QUEUE="gpu", ACCELERATOR_CLASSES="cpu,gpu=24", CUDA_VISIBLE_DEVICES="")
    assert worker.wait(60) == 1
    said = (tmp_path / "worker-0.log").read_text()
    assert "WORKER_QUEUE is gpu, and gpu is a class of accelerators." in said
    assert "Traceback" not in said
    assert workers(workplace) == []


def test_a_worker_told_to_end_gives_its_job_back_and_another_finishes_it(
    workplace: Any,
    start_worker: Callable[[], Any],
    at_step: Callable[[str, int], int],
    eventually: Eventually,
) -> None:
    first = start_worker()
    job_id = workplace.submit_job()
    send_job_hint(workplace.settings, job_id, "cpu")
    trainer = at_step(job_id, 4)
    (told,) = workers(workplace)
    assert (told.worker.queue, told.job_ids) == ("cpu", [job_id])
    assert told.worker.name == workplace.job(job_id).worker
    assert told.worker.device_count >= 1
    eventually(lambda: workers(workplace)[0].worker.beat_at > told.worker.beat_at)
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) == 0
    assert workers(workplace) == []
    job = workplace.job(job_id)
    assert (job.status, job.attempts_used, job.transitions[-1].reason) == ("queued", 0, "worker_stopped")
    assert workplace.is_gone(trainer)
    start_worker()
    report = workplace.reconcile(timedelta(0))
    assert report.hinted == [job_id]
    eventually(lambda: workplace.job(job_id).status == "succeeded")
    assert workplace.job(job_id).attempt == 2


def test_a_killed_worker_takes_its_trainer_along_and_the_job_goes_on_elsewhere(
    workplace: Any,
    start_worker: Callable[[], Any],
    at_step: Callable[[str, int], int],
    eventually: Eventually,
) -> None:
    first = start_worker()
    job_id = workplace.submit_job()
    send_job_hint(workplace.settings, job_id, "cpu")
    trainer = at_step(job_id, 4)
    first.kill()
    first.wait()
    eventually(lambda: workplace.is_gone(trainer))
    assert workplace.job(job_id).status == "running"
    start_worker()
    assert workplace.take_back(job_id, eventually).hinted == [job_id]
    eventually(lambda: workplace.job(job_id).status == "succeeded")
    job = workplace.job(job_id)
    assert (job.attempt, job.attempts_used) == (2, 0)
    events = workplace.events(job_id)
    assert [event.sequence for event in events] == list(range(1, job.last_sequence + 1))
