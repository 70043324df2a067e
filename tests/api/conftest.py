"""A served API for each test: uvicorn on a free port of loopback, on this test's own servers."""

import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy import Engine, text

from api.app import create_app
from api.serving import SERVING_OPTIONS
from core.spec import DistillationSpec
from store.api_keys import Caller
from store.database import server_now, transaction
from store.events import NewEvent
from store.jobs import Claim, claim_job, create_job, finish_succeeded
from store.key_format import new_key
from store.leases import record_events
from store.models import DEFAULT_TENANT_ID
from store.session_tokens import new_session_token, session_cookie
from store.settings import Settings
from tests.conftest import PIPELINE_INDEX, TEST_PEPPER

TEACHER = "tiny"
UNET_CONFIG = {
    "in_channels": 4,
    "block_out_channels": [64, 128, 128, 128],
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "attention_head_dim": 8,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}

# In a transaction that does not end, it keeps requests with this key waiting, and nothing else.
UNFINISHED = text(
    "INSERT INTO idempotency_records (key, fingerprint, created_at, expires_at)"
    " VALUES ('k', '', now(), now() + interval '1 day')"
)


@pytest.fixture(scope="session")
def teachers_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one small teacher: real configs and a weight file of one tensor."""
    return write_teacher(tmp_path_factory.mktemp("teachers"))


def write_teacher(folder: Path) -> Path:
    """Write the small teacher into a folder of teachers."""
    unet = folder / TEACHER / "unet"
    unet.mkdir(parents=True)
    (unet.parent / "model_index.json").write_text(json.dumps(PIPELINE_INDEX))
    (unet / "config.json").write_text(json.dumps(UNET_CONFIG))
    header = json.dumps({"w": {"dtype": "F16", "shape": [4, 4], "data_offsets": [0, 32]}}).encode()
    weights = struct.pack("<Q", len(header)) + header + bytes(32)
    (unet / "diffusion_pytorch_model.safetensors").write_bytes(weights)
    return folder


@pytest.fixture
def api_settings(settings: Settings, teachers_dir: Path) -> Settings:
    """This test's servers, and waits that are short."""
    changes: dict[str, Any] = {
        "teachers_dirs": [teachers_dir],
        "watch_seconds": 0.05,
        "ping_seconds": 0.1,
        "key_cache_seconds": 3_600,
    }
    return Settings.model_validate(settings.model_dump() | changes)


def closed_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def free_port() -> int:
    """A port of loopback to listen on."""
    return closed_port()


@pytest.fixture(scope="session")
def offline_settings(teachers_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings whose servers are all down."""
    nowhere = f"127.0.0.1:{closed_port()}"
    return Settings.model_validate(
        {
            "database_url": f"postgresql://nobody@{nowhere}/nothing",
            "redis_url": f"redis://{nowhere}/0",
            "s3_endpoint_url": f"http://{nowhere}",
            "s3_access_key_id": "nobody",
            "s3_secret_access_key": "nothing",
            "data_dir": tmp_path_factory.mktemp("data"),
            "teachers_dirs": [teachers_dir],
            "api_key_pepper": TEST_PEPPER,
            "key_cache_seconds": 3_600,
        }
    )


class StallingServer:
    """Takes connections, and never comes to the end of an answer: a byte now and then, so nobody gives up."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._closed = threading.Event()
        self._taken: list[socket.socket] = []
        self._threads = [threading.Thread(target=work) for work in (self._take, self._stall)]
        for thread in self._threads:
            thread.start()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def taken(self) -> int:
        """How many connections it has taken."""
        return len(self._taken)

    def close(self) -> None:
        """Cut all connections, and take no more."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for used in (self._listener, *self._taken):
            used.close()

    def _take(self) -> None:
        with suppress(OSError):
            while True:
                self._taken.append(self._listener.accept()[0])

    def _stall(self) -> None:
        while not self._closed.wait(1):
            for connection in list(self._taken):
                with suppress(OSError):
                    connection.send(b"+")


@pytest.fixture
def stalling_server() -> Iterator[StallingServer]:
    """A server that answers nobody."""
    server = StallingServer()
    yield server
    server.close()


class Server(uvicorn.Server):
    """A server in a thread, which tells the application that it stops as a signal would."""

    def __init__(self, settings: Settings) -> None:
        self.app = create_app(settings)
        super().__init__(
            uvicorn.Config(self.app, host="127.0.0.1", port=0, log_level="warning", **SERVING_OPTIONS)
        )
        self.answers = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.answers.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.app.state.closing.set()
        await super().shutdown(sockets)

    @property
    def url(self) -> str:
        port = self.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"


OWNER_KEY = new_key()
OWNER = Caller(DEFAULT_TENANT_ID, "019ab2c4-0000-7c3a-9d52-0b6a4be1d9aa", frozenset({"write", "admin"}))


def check_declared(app: FastAPI, response: httpx.Response) -> None:
    """Fail the test whose request is answered in a way that the OpenAPI document does not declare."""
    request = response.request
    declared = {
        template: operations[request.method.lower()]["responses"]
        for template, operations in app.openapi()["paths"].items()
        if request.method.lower() in operations
        and re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template)), request.url.path)
    }
    if not declared:  # there is no such route
        return
    assert len(declared) == 1, f"{request.url.path} is one of {list(declared)}"
    [(template, responses)] = declared.items()
    status, media_type = str(response.status_code), response.headers.get("content-type", "").partition(";")[0]
    name = f"{request.method} {template}"
    assert status in responses, f"{name} answered {status}, and declares {sorted(responses)} only"
    contents = responses[status].get("content", {})
    assert not media_type or media_type in contents, f"{name} answered {status} as undeclared {media_type}"


def visit(client: httpx.Client, key_id: str) -> None:
    """Give a client the cookie of a session, as the sign-in does."""
    expires_at = datetime.now(UTC) + timedelta(hours=1)
    token = new_session_token(key_id, expires_at=expires_at, pepper=TEST_PEPPER)
    client.cookies.set(session_cookie(TEST_PEPPER), token, domain="127.0.0.1")


@contextmanager
def serving(settings: Settings) -> Iterator[httpx.Client]:
    """Serve an application, and give a client of it with a key that the application checked a moment ago."""
    server = Server(settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert server.answers.wait(20)
        server.app.state.services.keys.remember(OWNER_KEY, OWNER)
        headers = {"Authorization": f"Bearer {OWNER_KEY}"}
        hooks = {"response": [partial(check_declared, server.app)]}
        with httpx.Client(
            base_url=server.url, timeout=20, trust_env=False, headers=headers, event_hooks=hooks
        ) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture(scope="session")
def serve() -> Callable[[Settings], AbstractContextManager[httpx.Client]]:
    """Serve an application with settings of the test's choice."""
    return serving


@pytest.fixture
def http(api_settings: Settings) -> Iterator[httpx.Client]:
    """A client of an API on this test's servers."""
    with serving(api_settings) as client:
        yield client


@pytest.fixture(scope="module")
def offline(offline_settings: Settings) -> Iterator[httpx.Client]:
    """A client of an API whose servers are all down: what is refused at the door needs none of them."""
    with serving(offline_settings) as client:
        yield client


@dataclass
class Jobs:
    """What submitters and workers do to jobs, without HTTP."""

    engine: Engine

    def submit(self, **spec: Any) -> str:
        """Write a queued job."""
        with transaction(self.engine) as session:
            now = server_now(session)
            parsed = DistillationSpec.model_validate({"teacher": TEACHER} | spec)
            return create_job(session, spec=parsed, queue="cpu", now=now).id

    def claim(self, job_id: str) -> Claim:
        """Take a job as a worker does."""
        with transaction(self.engine) as session:
            now = server_now(session)
            claim = claim_job(session, job_id=job_id, worker="test", now=now, lease_seconds=60)
        assert claim is not None
        return claim

    def report(self, claim: Claim, events: list[NewEvent], *, position: int) -> None:
        """Record a trainer's events."""
        with transaction(self.engine) as session:
            record_events(
                session,
                job_id=claim.job_id,
                lease_token=claim.lease_token,
                events=events,
                position=position,
                now=server_now(session),
            )

    def succeed(self, claim: Claim) -> None:
        """End a job well."""
        with transaction(self.engine) as session:
            finish_succeeded(
                session,
                job_id=claim.job_id,
                lease_token=claim.lease_token,
                result={"frechet_distance": 1.5},
                now=server_now(session),
            )

    def run_through(self, **spec: Any) -> str:
        """Let a job go through its phases as a worker reports them."""
        job_id = self.submit(**spec)
        claim = self.claim(job_id)
        phases = ("captions", "latents", "training", "evaluation", "export")
        for position, phase in enumerate(phases, start=1):
            self.report(claim, [NewEvent("phase", {"phase": phase})], position=position)
        self.succeed(claim)
        return job_id


@pytest.fixture
def jobs(engine: Engine) -> Jobs:
    """Moves jobs without HTTP."""
    return Jobs(engine)
