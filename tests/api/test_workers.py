"""The list of workers over HTTP and on its page."""

from datetime import timedelta
from typing import Any

import httpx
from sqlalchemy import Engine

from store.api_keys import create_key
from store.database import server_now, transaction
from store.workers import Announcement, announce
from tests.api.conftest import visit


def tell(engine: Engine, name: str, *, silent_for: timedelta = timedelta(0)) -> None:
    told = Announcement(name, "training", f"host of {name}", "gpu", "0.1.0", "NVIDIA H100", 1, 80 * 2**30)
    with transaction(engine) as session:
        now = server_now(session) - silent_for
        announce(session, told, started_at=now, now=now)


def test_workers_are_busy_idle_or_silent(http: httpx.Client, engine: Engine, jobs: Any) -> None:
    assert http.get("/workers").json() == {"items": [], "has_more": False, "next": None}
    job_id = jobs.submit()
    jobs.claim(job_id)  # by the worker "test"
    tell(engine, "test")
    tell(engine, "gone", silent_for=timedelta(seconds=61))
    tell(engine, "free", silent_for=timedelta(seconds=30))
    workers = {each["name"]: each for each in http.get("/workers").json()["items"]}
    assert {name: each["state"] for name, each in workers.items()} == {
        "free": "idle",
        "gone": "silent",
        "test": "busy",
    }
    assert (workers["test"]["job_ids"], workers["test"]["other_jobs"]) == ([job_id], 0)
    assert workers["test"]["memory_bytes"] == 80 * 2**30


def test_a_job_of_another_tenant_is_counted_and_not_named(
    http: httpx.Client, engine: Engine, jobs: Any, tenant_id: Any, api_settings: Any
) -> None:
    job_id = jobs.submit()
    jobs.claim(job_id)
    tell(engine, "test")
    with transaction(engine, tenant_id=tenant_id("b")) as session:
        pepper = api_settings.required_pepper()
        key = create_key(session, name="b", scopes=["read"], pepper=pepper, now=server_now(session))
    seen = http.get("/workers", headers={"Authorization": f"Bearer {key.key}"})
    (worker,) = seen.json()["items"]
    assert (worker["state"], worker["job_ids"], worker["other_jobs"]) == ("busy", [], 1)
    assert job_id not in seen.text
    with httpx.Client(base_url=http.base_url, trust_env=False) as stranger:
        visit(stranger, key.row.id)
        page = stranger.get("/ui/workers").text
    assert "1 job of other tenants" in page
    assert job_id not in page
