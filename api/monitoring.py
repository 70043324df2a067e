"""What Prometheus reads of an API process.

Figures of the job table are read at most every few seconds, whoever asks and however often, so that many
scrapes cost the database no more than one. Every API process reads the same table: of those figures take the
maximum over processes, of all others the sum.
"""

import logging
import threading
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from store.database import Engine, pool_use, server_now, transaction
from store.errors import UnavailableError
from store.monitoring import Snapshot, read_snapshot
from store.quotas import NO_LIMITS, Quotas
from store.reconciler import Reconciled

LOGGER = logging.getLogger(__name__)

SNAPSHOT_SECONDS = 5.0
LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

KINDS = ("request", "poll", "stream")
"""A poll waits for a change as long as it was told to, a stream lasts: their times say nothing of speed."""


class ApiMetrics:
    """The metrics of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.request_seconds = Histogram(
            "condenser_http_request_seconds",
            "From a request to the beginning of its answer, by route template, status and kind.",
            ["method", "route", "status", "kind"],
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.open_requests = Gauge(
            "condenser_http_open_requests",
            "Requests that are being answered: ordinary ones, long polls and event streams.",
            ["kind"],
            registry=self.registry,
        )
        self.reconciled = Counter(
            "condenser_reconciled_jobs_total",
            "Jobs that this process's reconciler took back from lost workers, hinted anew, ended or settled.",
            ["action"],
            registry=self.registry,
        )
        self.reconciler_pass = Gauge(
            "condenser_reconciler_last_pass_timestamp_seconds",
            "When this process's reconciler last made a pass, or saw that another process was making one.",
            registry=self.registry,
        )
        for kind in KINDS:
            self.open_requests.labels(kind)
        for action in ("taken_back", "hinted", "over_time", "settled"):
            self.reconciled.labels(action)

    def watch(self, engine: Engine, *, lease_seconds: float, quotas: Quotas = NO_LIMITS) -> None:
        """Add what is asked of the pool and the job table when the metrics are read."""
        self.registry.register(_PoolCollector(engine))
        self.registry.register(_JobsCollector(engine, lease_seconds, quotas))

    def text(self) -> bytes:
        """Write all metrics in Prometheus's text format."""
        return generate_latest(self.registry)

    def observe_pass(self, done: Reconciled | None) -> None:
        """Count what a pass of the reconciler did; None when another process was making one."""
        self.reconciler_pass.set_to_current_time()
        if done is None:
            return
        self.reconciled.labels("taken_back").inc(len(done.taken_back))
        self.reconciled.labels("hinted").inc(len(done.hinted))
        self.reconciled.labels("over_time").inc(len(done.over_time))
        self.reconciled.labels("settled").inc(len(done.settled))


class _PoolCollector(Collector):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        use = pool_use(self._engine)
        connections = GaugeMetricFamily(
            "condenser_database_connections", "Connections of this process's pool.", labels=["state"]
        )
        connections.add_metric(["in_use"], use.in_use)
        connections.add_metric(["idle"], use.idle)
        yield connections
        yield GaugeMetricFamily(
            "condenser_database_connections_limit", "The most that the pool will open.", value=use.limit
        )


class _JobsCollector(Collector):
    def __init__(self, engine: Engine, lease_seconds: float, quotas: Quotas) -> None:
        self._engine = engine
        self._lease_seconds = lease_seconds
        self._quotas = quotas
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._read_at = -SNAPSHOT_SECONDS

    def collect(self) -> Iterator[Metric]:
        snapshot = self._latest()
        yield GaugeMetricFamily(
            "condenser_database_up", "Whether the job table could be read.", value=float(snapshot is not None)
        )
        if snapshot is not None:
            yield from _describe(snapshot)

    def _latest(self) -> Snapshot | None:
        """Read the table unless that was done, or tried in vain, a moment ago."""
        with self._lock:
            if time.monotonic() - self._read_at >= SNAPSHOT_SECONDS:
                try:
                    self._snapshot = self._read()
                except UnavailableError as error:
                    LOGGER.warning("the job table cannot be read for its metrics: %s", error.detail)
                    self._snapshot = None
                self._read_at = time.monotonic()
            return self._snapshot

    def _read(self) -> Snapshot:
        with transaction(self._engine) as session:
            return read_snapshot(
                session, now=server_now(session), lease_seconds=self._lease_seconds, quotas=self._quotas
            )


def _describe(snapshot: Snapshot) -> Iterator[Metric]:
    jobs = GaugeMetricFamily(
        "condenser_jobs", "Jobs that have not ended, by queue and status.", labels=["queue", "status"]
    )
    depth = GaugeMetricFamily(
        "condenser_queue_depth",
        "Queued jobs that workers may take at once, of no tenant more than it may run.",
        labels=["queue"],
    )
    oldest = GaugeMetricFamily(
        "condenser_oldest_job_seconds",
        "How long the oldest job has had its status; of queued jobs, the oldest that may be taken.",
        labels=["queue", "status"],
    )
    for group in snapshot.live:
        jobs.add_metric([group.queue, group.status], group.count)
        oldest.add_metric([group.queue, group.status], group.oldest_seconds)
        if group.status == "queued":
            depth.add_metric([group.queue], group.due)
    ended = GaugeMetricFamily("condenser_ended_jobs", "Jobs that have ended, by status.", labels=["status"])
    for status, count in snapshot.ended.items():
        ended.add_metric([status], count)
    beats = GaugeMetricFamily(
        "condenser_worker_heartbeat_age_seconds",
        "How long ago a worker that has a job gave its last sign of life.",
        labels=["worker"],
    )
    for worker, seconds in snapshot.beat_seconds.items():
        beats.add_metric([worker], seconds)
    yield from (jobs, depth, oldest, ended, beats)
