"""What Prometheus and the log say of a worker."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from store.queue import send_job_hint
from worker import monitoring
from worker.trainer_events import MetricsEvent, _parse

Eventually = Callable[..., Any]


def value(name: str, **labels: str) -> float:
    sample = monitoring.REGISTRY.get_sample_value(name, labels)
    assert sample is not None, name
    return sample


def test_an_attempt_is_counted_with_its_steps_and_uploads(workplace: Any) -> None:
    names = ("training_steps_total", "upload_bytes_total", "upload_seconds_count")
    before = {name: value(f"condenser_worker_{name}") for name in names}
    succeeded = value("condenser_worker_attempts_total", outcome="succeeded")
    done = value("condenser_worker_transfers_total", result="done")
    workplace.submit_job()
    assert workplace.run("steady") == "succeeded"
    grown = {name: value(f"condenser_worker_{name}") - before[name] for name in names}
    # The first report only says where the count begins; the small trainer reports each of its six steps.
    assert grown["training_steps_total"] == 5
    assert grown["upload_seconds_count"] >= 5
    assert grown["upload_bytes_total"] > 0
    assert value("condenser_worker_attempts_total", outcome="succeeded") == succeeded + 1
    assert value("condenser_worker_transfers_total", result="done") > done
    assert value("condenser_worker_running_jobs") == 0


def test_a_crash_counts_as_given_back(workplace: Any) -> None:
    given_back = value("condenser_worker_attempts_total", outcome="queued")
    workplace.submit_job()
    assert workplace.run("crash") == "queued"
    assert value("condenser_worker_attempts_total", outcome="queued") == given_back + 1


def test_speed_and_memory_are_those_of_the_job_in_hand() -> None:
    monitor = monitoring.TrainingMonitor()
    with monitoring.job_in_hand():
        for step in (50, 100, 60):  # a resumed trainer goes back to its checkpoint
            values = {"samples_per_second": 12.5, "accelerator_memory_bytes": 2.0**30}
            monitor.take(MetricsEvent(type="metrics", step=step, values=values))
        assert value("condenser_worker_training_samples_per_second") == 12.5
        assert value("condenser_worker_accelerator_memory_bytes") == 2.0**30
    assert value("condenser_worker_training_samples_per_second") == 0
    assert value("condenser_worker_accelerator_memory_bytes") == 0


def test_a_refused_line_of_the_trainer_is_logged_without_its_captions(
    caplog: pytest.LogCaptureFixture,
) -> None:
    line = {"type": "sample", "step": -1, "path": "../x", "prompts": ["my private caption"]}
    assert _parse(json.dumps(line).encode()) is None
    assert "passed over" in caplog.text
    assert "private" not in caplog.text


def test_a_worker_answers_scrapes_and_logs_json_with_the_jobs_ids(
    workplace: Any,
    start_worker: Callable[..., Any],
    at_step: Callable[[str, int], int],
    send_on: Callable[[str, int], None],
    eventually: Eventually,
    service_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    worker = start_worker(WORKER_METRICS_PORT=str(port))
    job_id = workplace.submit_job()
    send_job_hint(workplace.settings, job_id, "cpu")
    at_step(job_id, 4)
    scraped = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=20).text
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(scraped)
        for sample in family.samples
    }
    assert samples["condenser_worker_running_jobs"] == 1
    assert samples["condenser_worker_last_heartbeat_timestamp_seconds"] > 0
    send_on(job_id, 5)
    eventually(lambda: workplace.job(job_id).status == "succeeded")
    worker.terminate()
    worker.wait(30)
    text = (tmp_path / "worker-0.log").read_text()
    lines = [line for line in text.splitlines() if line.startswith("{")]
    entries = [json.loads(line) for line in lines]
    assert {entry["process"] for entry in entries} == {"worker"}
    assert any(entry["logger"].startswith("celery") for entry in entries)
    ended = next(entry for entry in entries if entry["message"] == "ended: succeeded")
    assert (ended["job_id"], ended["attempt"]) == (job_id, 1)
    assert "a cat" not in text
    assert service_environment["S3_SECRET_ACCESS_KEY"] not in text
