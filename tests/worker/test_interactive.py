"""Generations drawn by the real process: warm models, a cancel in the midst, files that are gone."""

import errno
import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from core.spec import DistillationSpec
from store import generations, jobs
from store.artifacts import attempt_prefix, find_student_unet
from store.database import server_now, transaction
from store.errors import UnavailableError
from store.generations import Drawing
from store.leases import NewArtifact, add_artifacts
from store.models import Generation, UnclaimedObject
from store.objects import ObjectStore
from store.settings import Settings
from tests.core.conftest import tiny_unet, write_tiny_teacher
from worker.drawer import Drawer
from worker.interactive_supervisor import InteractiveSupervisor

Eventually = Callable[..., Any]


@pytest.fixture(scope="module")
def teachers_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny teacher of core's tests."""
    folder = tmp_path_factory.mktemp("teachers")
    write_tiny_teacher(folder / "weights")
    return folder


@pytest.fixture(scope="module")
def student_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student's files as an attempt leaves them; another U-Net of the same family, with a variant."""
    folder = tmp_path_factory.mktemp("work") / "student" / "unet"
    tiny_unet().save_pretrained(folder)
    (folder / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"not to be fetched")
    return folder


class Room:
    """A worker, and what is asked of it."""

    def __init__(self, engine: Engine, objects: ObjectStore, settings: Settings) -> None:
        self.engine = engine
        self.objects = objects
        self.drawer = Drawer(settings)
        self.stop = threading.Event()
        self.supervisor = InteractiveSupervisor(
            engine=engine, objects=objects, settings=settings, worker="w", drawer=self.drawer
        )

    def finish_job(self, unet: Path) -> str:
        """Leave a job that has succeeded, with its student."""
        with transaction(self.engine) as session:
            now = server_now(session)
            spec = DistillationSpec(teacher="emoji-64")
            job_id = jobs.create_job(session, spec=spec, queue="cpu", now=now).id
        with transaction(self.engine) as session:
            claim = jobs.claim_job(session, job_id=job_id, worker="w", now=now, lease_seconds=60)
            assert claim is not None
        files = []
        for path in sorted(unet.iterdir()):
            name = f"student/unet/{path.name}"
            stored = self.objects.upload_file(path, attempt_prefix(job_id, 1) + name)
            files.append(
                NewArtifact(
                    path=name,
                    kind="student_file",
                    step=None,
                    key=stored.key,
                    size=stored.size,
                    sha256=stored.sha256,
                )
            )
        with transaction(self.engine) as session:
            lease: dict[str, Any] = {"job_id": job_id, "lease_token": claim.lease_token, "now": now}
            add_artifacts(session, **lease, artifacts=files, event=None)
            jobs.finish_succeeded(session, **lease, result={})
        return job_id

    def ask(self, job_id: str, *, steps: int = 2, models: tuple[Any, ...] = ("teacher", "student")) -> str:
        drawings = [
            Drawing(
                model=model,
                job_id=job_id,
                attempt=1,
                teacher="emoji-64",
                teacher_revision=None,
                name=model,
                sampler="ddim",
                steps=steps,
                guidance_scale=2.0,
            )
            for model in models
        ]
        with transaction(self.engine) as session:
            return generations.create_generation(
                session,
                job_id=job_id,
                prompt="small cat",
                seed=5,
                drawings=drawings,
                now=server_now(session),
                watch_seconds=600,
            ).id

    def read(self, generation_id: str) -> Generation:
        with transaction(self.engine) as session:
            return generations.get_generation(session, generation_id)

    def unclaimed(self) -> list[str]:
        with transaction(self.engine) as session:
            return list(session.scalars(select(UnclaimedObject.key)))


@pytest.fixture
def room(engine: Engine, object_store: ObjectStore, settings: Settings, teachers_dir: Path) -> Iterator[Room]:
    room = Room(engine, object_store, settings.model_copy(update={"teachers_dirs": [teachers_dir]}))
    yield room
    room.drawer.close()


@pytest.mark.timeout(600)  # the process that draws imports torch, on a machine that may have much else to do
def test_what_waits_is_drawn_by_one_warm_process_and_given_up_when_nobody_wants_it(
    room: Room, student_dir: Path, eventually: Eventually
) -> None:
    job_id = room.finish_job(student_dir)
    with transaction(room.engine) as session:
        fetched = [file.path for file in find_student_unet(session, job_id, attempt=1).files]
    assert fetched == ["student/unet/config.json", "student/unet/diffusion_pytorch_model.safetensors"]
    first, second = room.ask(job_id), room.ask(job_id)
    with ThreadPoolExecutor(1) as thread:  # the process lives as long as the thread that started it
        assert thread.submit(room.supervisor.run_all, room.stop).result() == ["succeeded"] * 2
        pictures = [room.read(each).drawings for each in (first, second)]
        assert [each["load_seconds"] > 0 for drawn in pictures for each in drawn] == [
            True,
            True,
            False,
            False,
        ]
        for drawn in zip(*pictures, strict=True):
            stored = [room.objects.read_object(each["key"]) for each in drawn]
            assert stored[0].startswith(b"\x89PNG")
            assert stored[0] == stored[1], "the same prompt, seed and model"
            assert hashlib.sha256(stored[0]).hexdigest() == drawn[0]["sha256"]
        assert pictures[0][0]["sha256"] != pictures[0][1]["sha256"], "teacher and student differ"
        assert room.unclaimed() == []

        endless = room.ask(job_id, steps=900)
        running = thread.submit(room.supervisor.run, room.stop)
        eventually(lambda: room.read(endless).status == "running")
        with transaction(room.engine) as session:
            generations.cancel_generation(session, generation_id=endless, now=server_now(session))
        assert running.result(60) == "given_up"
        assert "key" not in room.read(endless).drawings[0]

        again = room.ask(job_id, steps=900)
        running = thread.submit(room.supervisor.run, room.stop)
        eventually(lambda: room.read(again).status == "running")
        room.stop.set()
        assert running.result(60) == "queued"
        assert room.read(again).status == "queued"
        with transaction(room.engine) as session:
            generations.delete_generation(session, generation_id=again, now=server_now(session))
        room.stop.clear()

        gone = room.ask("00000000-0000-7000-8000-000000000009", models=("student",))
        assert thread.submit(room.supervisor.run, room.stop).result() == "failed"
        assert room.read(gone).reason == "model_gone"

        room.drawer.close()  # as if it had ended for idleness, or died
        revived = room.ask(job_id, models=("teacher",))
        assert thread.submit(room.supervisor.run, room.stop).result(120) == "succeeded"
        assert room.read(revived).drawings[0]["sha256"] == pictures[0][0]["sha256"]


@pytest.fixture
def unused(settings: Settings) -> Path:
    """An entry of the cache that nobody holds."""
    entry = settings.cache_dir / "latents" / "old"
    entry.mkdir(parents=True)
    (entry / "shard").write_bytes(b"x")
    return entry


def test_a_full_disk_is_told_and_what_nobody_uses_is_cleared_for_the_next(
    room: Room, unused: Path, student_dir: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = room.finish_job(student_dir)
    full: Any = shutil.disk_usage(settings.data_dir)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)

    def fill(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(room.objects, "download_file", fill)
    asked = room.ask(job_id, models=("student",))
    assert room.supervisor.run_all(room.stop) == ["failed"]
    assert room.read(asked).reason == "storage_full"
    assert not unused.exists()


class ScriptedDrawer(Drawer):
    """Draws one picture at once, and keeps what it is told."""

    def __init__(self, settings: Settings, picture: Path) -> None:
        super().__init__(settings)
        self.picture = picture
        self.told: list[Any] = []

    def _write(self, content: Any) -> bool:
        self.told.append(content)
        if "stop" not in content:
            size = {"width": 1, "height": 1, "seconds": 0.1, "load_seconds": 0.0}
            drawn = {"type": "drawn", "position": 0, "path": str(self.picture), **size}
            self._answers.put({"id": content["id"], **drawn})
            self._answers.put({"id": content["id"], "type": "done"})
        return True

    def _send(self, request: Any) -> None:
        self._write(request)


def test_a_drawing_whose_picture_cannot_be_stored_is_stopped(
    room: Room, student_dir: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = room.ask(room.finish_job(student_dir), models=("teacher", "student"))
    (tmp_path / "0.png").write_bytes(b"a picture")
    drawer = ScriptedDrawer(settings, tmp_path / "0.png")

    def be_away(*_: Any) -> None:
        raise UnavailableError("The object store does not answer.")

    monkeypatch.setattr(room.objects, "upload_file", be_away)
    monkeypatch.setattr(room.supervisor, "_drawer", drawer)
    assert room.supervisor.run(room.stop) == "failed"
    assert room.read(asked).reason == "storage_unavailable"
    assert [set(said) & {"id", "stop"} for said in drawer.told] == [{"id"}, {"stop"}]
    assert drawer.told[1]["stop"] == drawer.told[0]["id"]


@pytest.fixture
def scripted_room(
    engine: Engine,
    object_store: ObjectStore,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Room:
    """A worker whose disk is full, with a cache that may have nothing."""
    room = Room(engine, object_store, settings.model_copy(update={"cache_max_bytes": 0}))
    (tmp_path / "0.png").write_bytes(b"a picture")
    monkeypatch.setattr(room.supervisor, "_drawer", ScriptedDrawer(settings, tmp_path / "0.png"))
    full: Any = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    return room


def test_a_model_that_is_there_is_not_fetched_again_where_room_is_short(
    scripted_room: Room, unused: Path, student_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, fetched = scripted_room, []
    download = room.objects.download_file

    def count(key: str, path: Path, *, sha256: str) -> None:
        fetched.append(path.name)
        download(key, path, sha256=sha256)

    monkeypatch.setattr(room.objects, "download_file", count)
    job_id = room.finish_job(student_dir)
    for _ in range(2):
        room.ask(job_id, models=("student",))
    assert room.supervisor.run_all(room.stop) == ["succeeded"] * 2
    assert sorted(fetched) == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert not unused.exists()


def test_a_model_is_fetched_once_what_nobody_uses_has_made_room(
    scripted_room: Room, unused: Path, student_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = scripted_room
    download = room.objects.download_file

    def need_room(key: str, path: Path, *, sha256: str) -> None:
        if unused.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        download(key, path, sha256=sha256)

    monkeypatch.setattr(room.objects, "download_file", need_room)
    room.ask(room.finish_job(student_dir), models=("student",))
    assert room.supervisor.run_all(room.stop) == ["succeeded"]
