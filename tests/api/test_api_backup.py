"""A backup that was really restored: a job's weights are downloadable from servers that never saw it."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from embedded.stack import running
from store import backup as backups
from store.artifacts import attempt_prefix
from store.backup import BackupError, Copied, restore, save
from store.database import server_now, transaction
from store.jobs import Claim
from store.leases import NewArtifact, add_artifacts, forget_checkpoints
from store.objects import ObjectStore
from store.settings import Settings
from store.sweeper import remove_unclaimed_objects

REPOSITORY = Path(__file__).resolve().parents[2]
WEIGHTS = bytes(range(256)) * 4_000


@pytest.fixture
def finished_job(jobs: Any, engine: Engine, object_store: ObjectStore, tmp_path: Path) -> str:
    """A job that has succeeded and left its weights."""
    job_id: str = jobs.submit()
    claim = jobs.claim(job_id)
    archive = tmp_path / "student.zip"
    archive.write_bytes(WEIGHTS)
    stored = object_store.upload_file(archive, attempt_prefix(job_id, 1) + "student.zip")
    artifact = NewArtifact(
        path="student.zip",
        kind="student_archive",
        step=None,
        key=stored.key,
        size=stored.size,
        sha256=stored.sha256,
    )
    with transaction(engine) as session:
        add_artifacts(
            session,
            job_id=job_id,
            lease_token=claim.lease_token,
            artifacts=[artifact],
            event=None,
            now=server_now(session),
        )
    jobs.succeed(claim)
    return job_id


def test_uploaded_captions_are_saved_and_what_is_not_ours_is_not(
    http: Any, api_settings: Settings, object_store: ObjectStore, tmp_path: Path
) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    answer = http.post("/captions", params={"name": "a.txt"}, content=b"cat\n", headers=headers)
    assert answer.status_code == 201
    foreign = object_store.begin_upload("foreign")
    foreign.write(bytearray(b"somebody else's"))
    foreign.complete()
    assert save(api_settings, tmp_path / "backup") == Copied(objects=1, copied=1)
    (file,) = (path for path in (tmp_path / "backup" / "objects").rglob("*") if path.is_file())
    assert file.read_bytes() == b"cat\n"


def test_weights_are_downloadable_after_a_restore_into_fresh_servers(
    finished_job: str,
    api_settings: Settings,
    serve: Callable[[Settings], AbstractContextManager[httpx.Client]],
    teachers_dir: Path,
    tmp_path: Path,
) -> None:
    backup = tmp_path / "backup"
    assert save(api_settings, backup) == Copied(objects=1, copied=1)
    assert save(api_settings, backup) == Copied(objects=1, copied=0)
    with running(tmp_path / "fresh", environ={}, durable=False) as stack:
        pepper = api_settings.required_pepper()
        variables = stack.environment() | {"API_KEY_PEPPER": pepper}
        fresh = Settings.model_validate(
            {**{name.lower(): value for name, value in variables.items()}, "teachers_dirs": [teachers_dir]}
        )
        restored = subprocess.run(
            [sys.executable, "-m", "store.backup", "restore", str(backup)],
            cwd=REPOSITORY,
            env={"PYTHONPATH": str(REPOSITORY), **variables},
            capture_output=True,
            text=True,
        )
        assert restored.returncode == 0, restored.stderr
        assert "1 objects, 1 of them copied" in restored.stderr
        with serve(fresh) as client:
            job = client.get(f"/jobs/{finished_job}").json()
            assert job["status"] == "succeeded"
            assert [move["status"] for move in job["transitions"]] == ["queued", "running", "succeeded"]
            weights = client.get(f"/jobs/{finished_job}/weights", follow_redirects=True)
            assert weights.content == WEIGHTS
            # The restored service takes jobs, too.
            assert client.post("/jobs", json={"teacher": "tiny"}).status_code == 201
        with pytest.raises(BackupError, match="already exists"):
            restore(fresh, backup)


@dataclass
class Training:
    """A job at work that stores checkpoints and gives the old ones up."""

    claim: Claim
    engine: Engine
    objects: ObjectStore
    folder: Path

    def store(self, step: int) -> str:
        file = self.folder / f"step-{step}"
        file.write_text(f"weights of step {step}")
        path = f"checkpoints/{step}/weights"
        stored = self.objects.upload_file(file, attempt_prefix(self.claim.job_id, 1) + path)
        artifact = NewArtifact(
            path=path,
            kind="checkpoint_file",
            step=step,
            key=stored.key,
            size=stored.size,
            sha256=stored.sha256,
        )
        with transaction(self.engine) as session:
            add_artifacts(session, **self._lease(session), artifacts=[artifact], event=None)
        return stored.key

    def give_up(self, step: int) -> list[str]:
        """Forget a checkpoint, and say what sweepers then removed."""
        with transaction(self.engine) as session:
            forget_checkpoints(session, **self._lease(session), steps_by_attempt=[(1, step)])
        return self.sweep()

    def sweep(self) -> list[str]:
        with transaction(self.engine) as session:
            now = server_now(session)
        return remove_unclaimed_objects(self.engine, self.objects, now)

    def _lease(self, session: Session) -> dict[str, Any]:
        claim = self.claim
        return {"job_id": claim.job_id, "lease_token": claim.lease_token, "now": server_now(session)}


@pytest.fixture
def training(jobs: Any, engine: Engine, object_store: ObjectStore, tmp_path: Path) -> Training:
    return Training(jobs.claim(jobs.submit()), engine, object_store, tmp_path)


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has something happen when the dump is made, or the bucket listed, and nothing copied of it yet."""
    dump, list_keys = backups._dump, ObjectStore.list_keys

    def happen(*, dumped: Callable[[], Any] = list, listed: Callable[[], Any] = list) -> None:
        def dump_then(settings: Settings, folder: Path) -> None:
            dump(settings, folder)
            dumped()

        def list_then(objects: ObjectStore, prefix: str) -> list[str]:
            keys = list_keys(objects, prefix)
            listed()
            return keys

        monkeypatch.setattr(backups, "_dump", dump_then)
        monkeypatch.setattr(ObjectStore, "list_keys", list_then)

    return happen


def test_every_checkpoint_of_the_dump_is_saved_although_the_training_gives_it_up_meanwhile(
    training: Training, between: Callable[..., None], settings: Settings, tmp_path: Path
) -> None:
    of_the_dump = [training.store(1), training.store(2)]
    swept: list[str] = []

    def go_on() -> None:
        training.store(3)
        swept.extend(training.give_up(1))

    between(dumped=go_on)
    assert save(settings, tmp_path / "backup") == Copied(objects=3, copied=3)
    for step, key in enumerate(of_the_dump, start=1):
        assert (tmp_path / "backup" / "objects" / key).read_text() == f"weights of step {step}"
    assert swept == []
    assert training.sweep() == of_the_dump[:1], "sweepers go on once the checkpoints are copied"


def test_what_is_gone_before_it_is_copied_is_counted(
    finished_job: str,
    training: Training,
    between: Callable[..., None],
    object_store: ObjectStore,
    settings: Settings,
    tmp_path: Path,
) -> None:
    gone = object_store.upload_file(
        _write(tmp_path / "picture.png", b"deleted"), "generations/picture.png"
    ).key
    kept = training.store(1)
    swept: list[str] = []

    def go_on() -> None:
        object_store.delete_keys([gone])
        swept.extend(training.give_up(1))

    between(listed=go_on)
    done = save(settings, tmp_path / "backup")
    assert done == Copied(objects=2, copied=2, gone=1)
    assert str(done) == "2 objects, 2 of them copied, 1 gone before they could be"
    assert swept == [kept]
    assert (tmp_path / "backup" / "objects" / kept).read_text() == "weights of step 1"


def test_a_damaged_object_is_named_once_all_others_are_copied(
    finished_job: str,
    object_store: ObjectStore,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    object_store.upload_file(_write(tmp_path / "damaged", b"something"), "damaged")
    digest = ObjectStore.recorded_digest
    monkeypatch.setattr(
        ObjectStore, "recorded_digest", lambda self, key: "0" * 64 if key == "damaged" else digest(self, key)
    )
    with pytest.raises(BackupError, match=r"1 objects are damaged and were not copied.*: damaged$"):
        save(settings, tmp_path / "backup")
    copies = {path.name for path in (tmp_path / "backup" / "objects").rglob("*") if path.is_file()}
    assert copies == {"student.zip"}


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_folder_without_a_dump_is_refused(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="There is no database"):
        restore(settings, tmp_path)


def test_a_damaged_copy_is_fetched_again(
    finished_job: str, settings: Settings, object_store: ObjectStore, tmp_path: Path
) -> None:
    save(settings, tmp_path / "backup")
    copy = tmp_path / "backup" / "objects" / attempt_prefix(finished_job, 1) / "student.zip"
    copy.write_bytes(b"x" + WEIGHTS[1:])
    assert save(settings, tmp_path / "backup") == Copied(objects=1, copied=1)
    assert copy.read_bytes() == WEIGHTS
