"""Students come whole and unharmed, or not at all."""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from client import Condenser, DownloadError
from client.blocking import run
from client.downloads import Progress, download_student
from client.errors import DirectoryTakenError, NotFoundError
from client.jobs import Job
from client.models import StoredFile
from client.patience import PAUSES_SECONDS
from client.transport import Transport
from store.objects import ObjectStore
from store.settings import Settings
from tests.client.conftest import Worker
from tests.client.network import Relay, relay_to
from tests.client.test_jobs import NOBODY, SPEC, Connect, HastyConnection
from tests.client.test_jobs import hasty as hasty

WEIGHTS_FILE = "unet/weights.safetensors"
WEIGHTS = bytes(range(256)) * 4_000


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w") as content:
        content.writestr(WEIGHTS_FILE, WEIGHTS)
        content.writestr("manifest.json", json.dumps({"format": 1, "files": [{"path": WEIGHTS_FILE}]}))
    return path


@pytest.fixture
def job(condenser: Condenser, worker: Worker, archive: Path) -> Job:
    """A job that has succeeded."""
    job = condenser.jobs.create(SPEC)
    worker.take(job.id)
    worker.leave_student(archive)
    worker.succeed({})
    return job


def download(job: Job, file: StoredFile, folder: Path, on_progress: Progress | None = None) -> None:
    """Download what the service is said to have announced."""

    async def find() -> StoredFile:
        return file

    run(download_student(job._job._transport, find, folder, on_progress))


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_student_is_unpacked_and_nothing_else_is_left(job: Job, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    target = tmp_path / "to" / "student"
    assert job.download(target, on_progress=lambda have, size: seen.append((have, size))) == target
    assert files_of(tmp_path / "to") == ["student/manifest.json", f"student/{WEIGHTS_FILE}"]
    assert (target / WEIGHTS_FILE).read_bytes() == WEIGHTS
    assert seen[-1][0] == seen[-1][1] > len(WEIGHTS)


def test_an_earlier_student_is_replaced(job: Job, tmp_path: Path) -> None:
    target = job.download(tmp_path / "student")
    (target / WEIGHTS_FILE).write_bytes(b"of an earlier student")
    job.download(target)
    assert files_of(target) == ["manifest.json", WEIGHTS_FILE]
    assert (target / WEIGHTS_FILE).read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    "mine",
    [
        {"thesis.txt": "years of work"},
        {"manifest.json": '{"name": "a web app", "icons": []}'},
        {"manifest.json": '{"files": ["content.js"]}', "content.js": ""},
        {"manifest.json": '["index.html"]', "index.html": ""},
        {"manifest.json": '{"files": [{"path": "index.html"}]}', "index.html": "", ".git/config": ""},
    ],
)
def test_a_folder_with_other_files_is_left_alone(job: Job, tmp_path: Path, mine: dict[str, str]) -> None:
    for name, text in mine.items():
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text(text)
    with pytest.raises(DirectoryTakenError, match="other files, which would be lost"):
        job.download(tmp_path / "mine")
    assert files_of(tmp_path / "mine") == sorted(mine)


def test_a_file_that_the_user_adds_to_a_student_or_during_the_download_is_kept(
    job: Job, tmp_path: Path
) -> None:
    target = job.download(tmp_path / "student")
    with pytest.raises(DirectoryTakenError):
        job.download(target, on_progress=lambda *_: (target / "notes.txt").write_text("mine"))
    assert files_of(tmp_path / "student") == ["manifest.json", "notes.txt", WEIGHTS_FILE]
    with pytest.raises(DirectoryTakenError):
        job.download(target)


@dataclass
class Shop:
    """The object store behind a relay, and a client that does not pause."""

    relay: Relay
    file: StoredFile
    transport: Transport
    cut_every: int | None = None

    async def find(self) -> StoredFile:
        self.relay.cut_after = self.cut_every
        return self.file

    def download(self, folder: Path, on_progress: Progress | None = None) -> None:
        run(download_student(self.transport, self.find, folder, on_progress))


@pytest.fixture
def shop(job: Job, settings: Settings, hasty: Connect) -> Iterator[Shop]:
    (file,) = job.artifacts()
    assert settings.s3_endpoint_url is not None
    with relay_to(settings.s3_endpoint_url) as relay:
        # The link is signed together with the host that it names.
        behind_relay = ObjectStore(settings.model_copy(update={"s3_public_endpoint_url": relay.url}))
        key = urlsplit(file.url).path.removeprefix(f"/{settings.s3_bucket}/")
        through_relay = file.model_copy(update={"url": behind_relay.presigned_get(key, expires_seconds=60)})
        yield Shop(relay, through_relay, hasty(NOBODY)._transport)


def test_a_download_goes_on_where_it_broke_off_however_often(shop: Shop, tmp_path: Path) -> None:
    arrived: list[int] = []
    shop.cut_every = 100_000
    shop.download(tmp_path / "student", lambda have, _: arrived.append(have))
    assert shop.relay.connections > 10
    assert (tmp_path / "student" / WEIGHTS_FILE).read_bytes() == WEIGHTS
    assert arrived == sorted(arrived), "nothing was fetched twice"
    assert set(HastyConnection.pauses) == {PAUSES_SECONDS[0]}


def test_a_store_that_is_away_is_waited_for_and_not_for_ever(shop: Shop, tmp_path: Path) -> None:
    shop.relay.refuse = 5
    shop.download(tmp_path / "student")
    assert tuple(HastyConnection.pauses) == PAUSES_SECONDS[:5]
    shop.relay.refuse = 100
    with pytest.raises(DownloadError, match="could not be downloaded"):
        shop.download(tmp_path / "other")
    assert shop.relay.refuse == 94


def test_a_store_that_never_gets_further_is_given_up(shop: Shop, tmp_path: Path) -> None:
    shop.cut_every = 0
    with pytest.raises(DownloadError, match="could not be downloaded"):
        shop.download(tmp_path / "student")
    assert shop.relay.connections == 6


def test_a_broken_remainder_of_an_earlier_try_is_thrown_away(job: Job, tmp_path: Path) -> None:
    (file,) = job.artifacts()
    (tmp_path / f".student.{file.sha256[:16]}.part").write_bytes(b"x" * 1_000)
    job.download(tmp_path / "student")
    assert (tmp_path / "student" / WEIGHTS_FILE).read_bytes() == WEIGHTS


def test_content_that_is_not_as_announced_is_refused(job: Job, tmp_path: Path) -> None:
    (file,) = job.artifacts()
    forged = file.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(DownloadError, match="SHA-256"):
        download(job, forged, tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_a_job_without_a_student_says_so(condenser: Condenser, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="queued and has no student"):
        condenser.jobs.create(SPEC).download(tmp_path / "student")


def test_weights_come_as_one_file(job: Job, archive: Path, tmp_path: Path) -> None:
    target = tmp_path / "to" / "student.zip"
    assert job.download_weights(target, "archive") == target
    assert target.read_bytes() == archive.read_bytes()
    target.write_bytes(b"an earlier one")
    job.download_weights(target, "archive")
    assert target.read_bytes() == archive.read_bytes()
    assert files_of(tmp_path / "to") == ["student.zip"]


def test_a_form_that_the_export_left_out_is_named(job: Job, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="not one file"):
        job.download_weights(tmp_path / "unet.safetensors", "unet")
    assert not (tmp_path / "unet.safetensors").exists()


def test_a_folder_is_not_replaced_by_a_file(job: Job, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(DirectoryTakenError):
        job.download_weights(tmp_path / "mine", "archive")
