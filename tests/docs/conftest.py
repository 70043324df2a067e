"""The service as the manual's reader has it: an API, a worker whose trainer counts, and one that draws."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Engine

from client import Condenser
from store.objects import ObjectStore
from store.settings import Settings
from tests.client.conftest import api_url as api_url
from tests.client.conftest import condenser as condenser
from tests.client.conftest import write_teacher
from tests.client.test_generations import Painter
from tests.docs.pages import ROOT, Command
from tests.worker.conftest import Workplace

FOLDERS = ("deploy", "docker", "docs", "teachers")
CAPTION_FILES = ("captions.jsonl.zst", "captions.parquet")


@pytest.fixture
def api_settings(settings: Settings, tmp_path: Path, bucket: str) -> Settings:
    """A teacher of one's own beside the bundled ones, and one in the bucket."""
    own = tmp_path / "models"
    write_teacher(own / "my-teacher")
    return settings.model_copy(
        update={
            "teachers_dirs": [own, *settings.teachers_dirs],
            "s3_teacher_prefixes": [f"s3://{bucket}/models"],
            "watch_seconds": 0.05,
            "ping_seconds": 0.1,
        }
    )


@pytest.fixture
def workers(
    engine: Engine, object_store: ObjectStore, api_settings: Settings, tmp_path: Path
) -> Iterator[None]:
    """Two workers that take what comes: one trains, one draws."""
    (tmp_path / "studio").mkdir()
    over = threading.Event()
    place = Workplace(engine, object_store, api_settings)
    painter = Painter(engine, object_store, tmp_path / "studio")

    def train() -> None:
        supervisor = place.supervisor("quick")
        while not over.wait(0.2):
            supervisor.run(place.stop)

    trainer = threading.Thread(target=train)
    threads = [trainer, painter.thread]
    for thread in threads:
        thread.start()
    yield
    over.set()
    painter.over.set()
    place.stop.set()
    for thread in threads:
        thread.join()
    place.pool.shutdown()


class Reader:
    """Types what a page says, in a folder that has what the page takes for granted."""

    def __init__(self, condenser: Condenser, folder: Path, names: dict[str, str], environment: Any) -> None:
        self._condenser = condenser
        self._folder = folder
        self._names = names
        self._environment = environment

    def type(self, command: Command) -> None:
        """Run a command, and fail if it does."""
        text = self._filled_in(command.text)
        # A shell puts its last command in its own place, and completion asks which shell it was called from.
        shell = ["bash", "-euo", "pipefail", "-c", f"{text}\n:"]
        ended = subprocess.run(
            [sys.executable, "-c", text] if command.is_python else shell,
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert ended.returncode == 0, f"{command.page}: {command.text}\n{ended.stdout}"

    def _filled_in(self, text: str) -> str:
        """Put this test's own names in the place of those that stand for the reader's."""
        for name, own in self._names.items():
            text = text.replace(name, own)
        words = text.replace("/", " ").replace("?", " ").replace("'", " ").split()
        if "JOB" in words:
            newest = self._condenser.jobs.list(limit=1)[0].wait(timeout_seconds=60)
            text = text.replace("JOB", newest.id)
        if "ID" in words:
            text = text.replace("ID", self._condenser.captions.list(limit=1)[0].id)
        return text


@pytest.fixture
def reader(
    condenser: Condenser,
    api_url: str,
    api_key: str,
    bucket: str,
    object_store: ObjectStore,
    service_environment: dict[str, str],
    workers: None,
    tmp_path: Path,
) -> Reader:
    """A reader in an empty folder with the repository's own folders in it."""
    folder = tmp_path / "reader"
    folder.mkdir()
    for name in FOLDERS:
        (folder / name).symlink_to(ROOT / name)
    (folder / "captions.txt").write_text("".join(f"caption {number}\n" for number in range(12_000)))
    for name in CAPTION_FILES:
        (folder / name).write_bytes(b"read by a worker, and this one reads nothing")
    (folder / ".curlrc").write_text("fail-with-body\nno-progress-meter\nmax-time = 60\n")
    teacher = tmp_path / "models" / "my-teacher"
    for file in teacher.rglob("*.*"):
        object_store.upload_file(file, f"models/my-teacher/{file.relative_to(teacher)}")
    address = urlsplit(api_url).netloc
    names = {
        "localhost:8000": address,
        "127.0.0.1:8000": address,
        "s3://models": f"s3://{bucket}/models",
        "/backups": str(tmp_path / "backups"),
    }
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "CONDENSER_URL": api_url,
        "CONDENSER_API_KEY": api_key,
        "AUTH": f"Authorization: Bearer {api_key}",
    }
    return Reader(condenser, folder, names, service_environment | environment)
