"""The load benchmark: its clients see what a service does wrong, and its page says what was found."""

import asyncio
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from benchmarks.load import bulk, mover
from benchmarks.load.clients import Observations, Plan, put_under_load
from benchmarks.load.outcome import await_jobs, summary
from benchmarks.load.page import write_page
from benchmarks.load.service import serving, started
from core.spec import DistillationSpec
from store.database import server_now, transaction
from store.job_queries import get_job
from store.jobs import claim_job, create_job, finish_succeeded
from store.leases import record_events
from store.metrics import list_metric_names, list_metric_points
from store.settings import Settings


@pytest.fixture
def ended_job(engine: Engine) -> str:
    with transaction(engine) as session:
        now = server_now(session)
        job = create_job(session, spec=DistillationSpec(teacher="emoji-64"), queue="cpu", now=now)
        claim = claim_job(session, job_id=job.id, worker="w", now=now, lease_seconds=60)
        assert claim is not None
        lease: dict[str, Any] = {"job_id": job.id, "lease_token": claim.lease_token, "now": now}
        record_events(session, **lease, events=mover._report(1), position=1)
        finish_succeeded(session, **lease, result={})
        return job.id


def test_a_database_is_filled_with_copies_of_a_job(
    engine: Engine, settings: Settings, ended_job: str
) -> None:
    bulk.fill(settings.database_url.replace("+psycopg", ""), ended_job, jobs=50, points=50 * 8)
    with transaction(engine) as session:
        original = get_job(session, ended_job)
        ids = list(session.connection().exec_driver_sql("SELECT id::text FROM jobs ORDER BY id").scalars())
        assert len(ids) == 51
        copy = get_job(session, ids[0])
        assert copy.id != original.id
        assert copy.spec == original.spec
        assert [move.status for move in copy.transitions] == [move.status for move in original.transitions]
        assert list_metric_names(session, copy.id) == sorted(bulk.CURVES)
        assert len(list_metric_points(session, copy.id)) == 8


def test_load_goes_to_loopback_only() -> None:
    with pytest.raises(ValueError, match="not on loopback"):
        asyncio.run(put_under_load(["http://example.org"], Plan()))


@pytest.fixture
def small_load(tmp_path: Path) -> Callable[[int], Any]:
    def run(jobs: int) -> Any:
        plan = Plan(jobs=jobs, seconds=1.0, pollers=2, waiters=2, streamers=2, poll_seconds=0.1)
        with serving(tmp_path / "data") as service:
            command = [sys.executable, "-m", "benchmarks.load.mover"]
            with started(command, service.environment, tmp_path / "mover.log"):
                seen = asyncio.run(put_under_load([service.url], plan, service.api_key))
                lost = await_jobs(service, seen.job_ids)
            url = service.environment["DATABASE_URL"]
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("UPDATE jobs SET attempt = 2 WHERE id = %s", [seen.job_ids[0]])
            return seen, lost, await_jobs(service, seen.job_ids, patience_seconds=0)

    return run


def test_a_small_load_loses_nothing_and_a_doubled_job_is_noticed(small_load: Callable[[int], Any]) -> None:
    seen, lost, lost_after_damage = small_load(6)
    assert seen.errors == []
    assert len(set(seen.job_ids)) == 6
    assert lost == 0
    assert lost_after_damage == 1
    assert seen.seconds.keys() >= {"POST /jobs", "GET /jobs/{id}"}


def test_a_service_that_is_not_there_is_an_error(unused_port: int) -> None:
    plan = Plan(jobs=2, seconds=0.1, pollers=1, waiters=0, streamers=0)
    seen = asyncio.run(put_under_load([f"http://127.0.0.1:{unused_port}"], plan))
    assert len(seen.errors) == 2
    assert seen.job_ids == []


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_the_page_says_what_was_found(tmp_path: Path) -> None:
    seen = Observations(job_ids=["a"], events=7, changes=3)
    seen.seconds = {"GET /jobs/{id}": [0.001] * 98 + [0.040] * 2, "POST /jobs": [0.1, 0.2]}
    figures = summary(seen) | {
        "lost": 0,
        "seconds": 2.24,
        "cores": {"api": 0.5},
        "memory_mib": {"api": [100.0, 101.0]},
    }
    slower = json.loads(json.dumps(figures))
    for row in slower["latency"].values():
        row["p99_ms"] *= 1.5
    found = {
        "shares": [{"share": 0.25, **figures}],
        "empty": figures,
        "spread": figures | {"cores": {"api": 0.3, "second api": 0.25}},
        "filled": slower,
        "filled_jobs": 100_000,
        "filled_points": 10_000_000,
        "fill_seconds": 60.0,
        "machine": {"processors": 2, "memory_gib": 24, "python": "3.11", "load_before": 0.1},
        "plan": {
            "jobs": 1,
            "seconds": 60.0,
            "pollers": 1,
            "waiters": 1,
            "streamers": 1,
            "poll_seconds": 1.0,
        },
        "seconds": 300,
        "supervising": {
            "steps": 10,
            "alone": [{"seconds": 10.0}],
            "supervised": [{"seconds": 10.1}],
            "wall_ratio": 1.01,
            "processor_share": 0.004,
        },
    }
    write_page(tmp_path / "load.md", found)
    text = (tmp_path / "load.md").read_text()
    assert "| `GET /jobs/{id}` | empty | 100 | 1 ms | 1 ms | 40 ms | 40 ms | 100 ms |" in text
    assert "| 0.25 | 1 | 1 ms and 40 ms | 150 ms and 199 ms | 0.50 |" in text
    assert "| 1 | 2 | 1 ms and 40 ms | 150 ms and 199 ms | 0.30 and 0.25 |" in text
    assert "by a factor of 1.50" in text
    assert "| api | 0.50 | 0.50 | 100 → 101 → 101 MiB |" in text
    assert "took 10.0 ms of processor time" in text
    assert "past about 100 answers a second" in " ".join(text.split())
    assert "took 0.40 % of what its trainer took" in text
