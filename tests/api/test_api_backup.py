"""A backup that was really restored: a job's weights are downloadable from servers that never saw it."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from embedded.stack import running
from store.artifacts import attempt_prefix
from store.backup import BackupError, Copied, restore, save
from store.database import server_now, transaction
from store.leases import NewArtifact, add_artifacts
from store.objects import ObjectStore
from store.settings import Settings

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
