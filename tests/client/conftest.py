"""The real API on real servers, and jobs moved as a worker moves them."""

import json
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from sqlalchemy import Engine

from api.app import create_app
from api.serving import SERVING_OPTIONS
from client import Condenser
from store import jobs, leases
from store.database import server_now, transaction
from store.endings import Ending
from store.events import NewEvent
from store.models import ArtifactKind
from store.objects import ObjectStore
from store.settings import Settings
from tests.conftest import PIPELINE_INDEX

UNET_CONFIG = {
    "in_channels": 4,
    "block_out_channels": [64, 128, 128, 128],
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "attention_head_dim": 8,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}


def write_teacher(folder: Path) -> None:
    """Write as much of a teacher as the API reads: configs, and a weight file of one tensor."""
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps(PIPELINE_INDEX))
    (folder / "unet" / "config.json").write_text(json.dumps(UNET_CONFIG))
    header = json.dumps({"w": {"dtype": "F16", "shape": [4, 4], "data_offsets": [0, 32]}}).encode()
    weights = struct.pack("<Q", len(header)) + header + bytes(32)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(weights)


class Server(uvicorn.Server):
    """A server in a thread; it tells the application of its end as a signal would."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.closing.set()
        await super().shutdown(sockets)


@pytest.fixture
def api_settings(settings: Settings, tmp_path: Path) -> Settings:
    teachers = tmp_path / "teachers"
    write_teacher(teachers / "tiny")
    # Not validated, or the bundled teachers would be added.
    return settings.model_copy(
        update={"teachers_dirs": [teachers], "watch_seconds": 0.05, "ping_seconds": 0.1}
    )


@pytest.fixture
def api_url(api_settings: Settings, eventually: Any) -> Iterator[str]:
    """Where the API of this test is."""
    config = uvicorn.Config(
        create_app(api_settings), host="127.0.0.1", port=0, log_level="warning", **SERVING_OPTIONS
    )
    server = Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def condenser(api_url: str, api_key: str) -> Iterator[Condenser]:
    """A client of the API of this test."""
    with Condenser(api_url, api_key) as client:
        yield client


@dataclass
class Worker:
    """Does what a worker does to a job, without training anything."""

    engine: Engine
    objects: ObjectStore
    claim: jobs.Claim | None = None
    position: int = 0

    def take(self, job_id: str) -> None:
        with transaction(self.engine) as session:
            now = server_now(session)
            self.claim = jobs.claim_job(session, job_id=job_id, worker="test", now=now, lease_seconds=60)
        assert self.claim is not None

    def report(self, *events: tuple[str, dict[str, Any]]) -> None:
        self.position += 1
        with transaction(self.engine) as session:
            leases.record_events(
                session,
                **self._lease(),
                events=[NewEvent(kind, data) for kind, data in events],
                position=self.position,
                now=server_now(session),
            )

    def leave_student(self, archive: Path) -> None:
        self.leave_file(archive, "student.zip", "student_archive")

    def leave_file(self, file: Path, path: str, kind: ArtifactKind, step: int | None = None) -> None:
        assert self.claim is not None
        key = f"jobs/{self.claim.job_id}/attempts/1/{path}"
        stored = self.objects.upload_file(file, key)
        artifact = leases.NewArtifact(
            path=path, kind=kind, step=step, key=key, size=stored.size, sha256=stored.sha256
        )
        with transaction(self.engine) as session:
            leases.add_artifacts(
                session, **self._lease(), artifacts=[artifact], event=None, now=server_now(session)
            )

    def succeed(self, result: dict[str, Any]) -> None:
        with transaction(self.engine) as session:
            jobs.finish_succeeded(session, **self._lease(), result=result, now=server_now(session))

    def fail(self, ending: Ending) -> None:
        with transaction(self.engine) as session:
            jobs.finish_failed(session, **self._lease(), ending=ending, now=server_now(session))

    def _lease(self) -> dict[str, Any]:
        assert self.claim is not None
        return {"job_id": self.claim.job_id, "lease_token": self.claim.lease_token}


@pytest.fixture
def worker(engine: Engine, object_store: ObjectStore) -> Worker:
    return Worker(engine, object_store)
