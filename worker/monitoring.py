"""What Prometheus reads of a worker, on a port of its own where the settings name one.

A worker's process supervises one job at a time, so its metrics are those of the process. A worker that hangs
also stops answering or beating: `condenser_worker_heartbeat_age_seconds` of the API tells of it from outside.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from store.settings import Settings
from worker.trainer_events import MetricsEvent

REGISTRY = CollectorRegistry()

ATTEMPTS = Counter(
    "condenser_worker_attempts_total",
    "Attempts that ended here, by what became of the job; queued: given back, lease_lost: taken away.",
    ["outcome"],
    registry=REGISTRY,
)
DECLINED = Counter(
    "condenser_worker_declined_total",
    "Times that no job was taken, as the machine was not fit for one; the log says what it lacked.",
    registry=REGISTRY,
)
RUNNING = Gauge("condenser_worker_running_jobs", "Jobs that the worker has in hand.", registry=REGISTRY)
LAST_HEARTBEAT = Gauge(
    "condenser_worker_last_heartbeat_timestamp_seconds",
    "When the worker last extended the lease of its job.",
    registry=REGISTRY,
)
HEARTBEATS_FAILED = Counter(
    "condenser_worker_heartbeats_failed_total",
    "Heartbeats that the database did not take; each is tried again at once.",
    registry=REGISTRY,
)
STEPS = Counter(
    "condenser_worker_training_steps_total",
    "Optimiser steps that trainers reported; its rate is the step rate.",
    registry=REGISTRY,
)
SAMPLES_PER_SECOND = Gauge(
    "condenser_worker_training_samples_per_second",
    "Speed of the training as the trainer last reported it; 0 while none runs.",
    registry=REGISTRY,
)
ACCELERATOR_MEMORY = Gauge(
    "condenser_worker_accelerator_memory_bytes",
    "The most accelerator memory that the running trainer has held; 0 without an accelerator.",
    registry=REGISTRY,
)
UPLOAD_SECONDS = Histogram(
    "condenser_worker_upload_seconds",
    "Time that one file took to upload, its digest included.",
    buckets=(0.05, 0.25, 1, 5, 15, 60, 300, 1_800),
    registry=REGISTRY,
)
UPLOAD_BYTES = Counter(
    "condenser_worker_upload_bytes_total", "Bytes of the files that were uploaded.", registry=REGISTRY
)
TRANSFERS = Counter(
    "condenser_worker_transfers_total",
    "Transfers of files by result; repeated: a server was away and it is tried again.",
    ["result"],
    registry=REGISTRY,
)
for outcome in ("succeeded", "failed", "cancelled", "paused", "queued", "lease_lost"):
    ATTEMPTS.labels(outcome)
for result in ("done", "repeated", "failed"):
    TRANSFERS.labels(result)


class TrainingMonitor:
    """Follows what one attempt's trainer reports."""

    def __init__(self) -> None:
        self._step: int | None = None

    def take(self, event: MetricsEvent) -> None:
        """Keep the speed and memory that an event tells of, and count the steps since the one before."""
        if self._step is not None:
            STEPS.inc(max(event.step - self._step, 0))
        self._step = event.step
        SAMPLES_PER_SECOND.set(event.values.get("samples_per_second") or 0)
        ACCELERATOR_MEMORY.set(event.values.get("accelerator_memory_bytes") or 0)


@contextmanager
def job_in_hand() -> Iterator[None]:
    """Count a job as running for the length of a ``with`` block."""
    RUNNING.inc()
    LAST_HEARTBEAT.set_to_current_time()
    try:
        yield
    finally:
        RUNNING.dec()
        SAMPLES_PER_SECOND.set(0)
        ACCELERATOR_MEMORY.set(0)


@contextmanager
def upload_timed(size: int) -> Iterator[None]:
    """Time the upload of a file of so many bytes; one that fails is not counted."""
    began = time.perf_counter()
    yield
    UPLOAD_SECONDS.observe(time.perf_counter() - began)
    UPLOAD_BYTES.inc(size)


def serve(settings: Settings) -> None:
    """Answer scrapes in a thread of their own, if the settings name a port."""
    if settings.worker_metrics_port is not None:
        start_http_server(settings.worker_metrics_port, settings.worker_metrics_host, registry=REGISTRY)
