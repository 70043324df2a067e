"""What the browser's tests stand on: an API that can be restarted, and jobs without a trainer."""

import json
import socket
import threading
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import uvicorn
from sqlalchemy import Engine

from api.app import create_app
from api.serving import SERVING_OPTIONS
from core.spec import DistillationSpec
from store import job_queries, jobs, leases
from store.database import server_now, transaction
from store.endings import ending_of
from store.events import NewEvent
from store.settings import Settings
from store.workers import Announcement, announce


class _Server(uvicorn.Server):
    """A server in a thread; it tells the application of its end as a signal would."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.closing.set()
        await super().shutdown(sockets)


class Site:
    """An API on one port of loopback, again and again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        config = uvicorn.Config(
            create_app(self._settings),
            host="127.0.0.1",
            port=self._port,
            log_level="warning",
            **SERVING_OPTIONS,
        )
        self._server = _Server(config)
        started = threading.Event()
        startup = self._server.startup

        async def tell_when_started(sockets: list[socket.socket] | None = None) -> None:
            await startup(sockets)
            started.set()

        self._server.startup = tell_when_started  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        assert started.wait(20)

    def stop(self) -> None:
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive(), "the server did not stop"
        self._server = None


@dataclass
class Jobs:
    """What submitters and workers do to jobs, without HTTP."""

    engine: Engine

    def submit(self, count: int = 1, **spec: Any) -> list[str]:
        """Write queued jobs, all in one transaction."""
        parsed = DistillationSpec.model_validate({"teacher": "emoji-64"} | spec)
        with transaction(self.engine) as session:
            now = server_now(session)
            return [jobs.create_job(session, spec=parsed, queue="none", now=now).id for _ in range(count)]

    def claim(self, job_id: str) -> jobs.Claim:
        """Take a job as a worker does."""
        with transaction(self.engine) as session:
            now = server_now(session)
            claim = jobs.claim_job(session, job_id=job_id, worker="test", now=now, lease_seconds=600)
        assert claim is not None
        return claim

    def report(self, claim: jobs.Claim, position: int, *events: tuple[str, dict[str, Any]]) -> None:
        """Record what a trainer says."""
        with transaction(self.engine) as session:
            leases.record_events(
                session,
                job_id=claim.job_id,
                lease_token=claim.lease_token,
                events=[NewEvent(kind, data) for kind, data in events],
                position=position,
                now=server_now(session),
            )

    def fail(self, claim: jobs.Claim) -> None:
        """End a job badly."""
        with transaction(self.engine) as session:
            jobs.finish_failed(
                session,
                job_id=claim.job_id,
                lease_token=claim.lease_token,
                ending=ending_of("diverged"),
                now=server_now(session),
            )

    def succeed(self, claim: jobs.Claim, result: dict[str, Any]) -> None:
        """End a job well."""
        with transaction(self.engine) as session:
            jobs.finish_succeeded(
                session,
                job_id=claim.job_id,
                lease_token=claim.lease_token,
                result=result,
                now=server_now(session),
            )

    def announce(self, name: str, *, silent_for: timedelta = timedelta(0)) -> None:
        """Tell of a worker as it does itself."""
        device = ("NVIDIA H100 80GB HBM3", 2, 80 * 2**30)
        told = Announcement(name, "training", f"{name}.example", "gpu", "0.1.0", *device)
        with transaction(self.engine) as session:
            now = server_now(session)
            announce(session, told, started_at=now - timedelta(hours=5), now=now - silent_for)

    def status(self, job_id: str) -> str:
        with transaction(self.engine) as session:
            return job_queries.get_job(session, job_id).status


class Figures:
    """Figures that a run measured, in a file beside its pictures; nowhere without a folder for them."""

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / "figures.json"

    @property
    def are_kept(self) -> bool:
        return self._path is not None

    def keep(self, name: str, value: Any) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        known = json.loads(self._path.read_text()) if self._path.exists() else {}
        self._path.write_text(json.dumps(known | {name: value}, indent=2) + "\n")
