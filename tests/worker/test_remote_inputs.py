"""Teachers and captions in the object store: fetched once, as they were when the job was accepted, or not."""

import fcntl
import json
import shutil
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from api.jobs.validation import resolve_spec
from core.spec import BadTeacherError, DistillationSpec
from store import artifacts
from store.caption_files import begin_upload, delete_caption_file, finish_upload
from store.database import server_now, transaction
from store.errors import InvalidInputError, LeaseLostError, UnusableInputError
from store.job_queries import get_job
from store.jobs import create_job
from store.models import DEFAULT_TENANT_ID
from store.objects import ObjectStore
from store.remote_inputs import find_teacher_files
from store.remote_objects import RemoteObjects
from store.settings import Settings
from tests.conftest import PIPELINE_INDEX
from tests.core.conftest import CAPTIONS, small_spec, write_tiny_teacher
from worker.attempt import Rhythm
from worker.housekeeping import trim_cache
from worker.inputs import FetchedInputs, InputFetcher
from worker.supervisor import Supervisor
from worker.trainer import core_command

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline") / "my-teacher"
    write_tiny_teacher(folder)
    return folder


@pytest.fixture
def allowed(settings: Settings, bucket: str) -> Settings:
    """Settings that allow one prefix of each kind in this test's bucket."""
    changes = {
        "s3_teacher_prefixes": [f"s3://{bucket}/models"],
        "s3_caption_prefixes": [f"s3://{bucket}/texts"],
    }
    return settings.model_copy(update=changes)


@pytest.fixture
def remote(settings: Settings) -> RemoteObjects:
    return RemoteObjects(settings)


@pytest.fixture
def put(object_store: ObjectStore, tmp_path: Path) -> Callable[[str, bytes], None]:
    """Writes an object of the test's bucket."""

    def put(key: str, content: bytes) -> None:
        (tmp_path / "object").write_bytes(content)
        object_store.upload_file(tmp_path / "object", key)

    return put


@pytest.fixture
def teacher(object_store: ObjectStore, teacher_folder: Path, bucket: str) -> str:
    """A reference to a whole teacher, with files beside it that are none of its."""
    for file in teacher_folder.rglob("*"):
        if file.is_file():
            object_store.upload_file(file, f"models/my-teacher/{file.relative_to(teacher_folder)}")
    for extra in (
        "unet/diffusion_pytorch_model.bin",
        "unet/model.py",
        "everything.safetensors",
        ".git/config",
    ):
        object_store.upload_file(teacher_folder / "LICENSE.txt", f"models/my-teacher/{extra}")
    return f"s3://{bucket}/models/my-teacher"


@pytest.fixture
def fetcher(
    engine: Engine, object_store: ObjectStore, remote: RemoteObjects, allowed: Settings
) -> InputFetcher:
    return InputFetcher(engine=engine, objects=object_store, remote=remote, settings=allowed)


def go_on() -> None:
    """Somebody still wants it."""


def fetch(fetcher: InputFetcher, spec: DistillationSpec) -> FetchedInputs:
    return fetcher.fetch(spec.model_dump(mode="json"), DEFAULT_TENANT_ID, go_on)


def test_a_job_on_a_teacher_and_captions_in_s3_runs_to_its_end(
    engine: Engine,
    object_store: ObjectStore,
    allowed: Settings,
    remote: RemoteObjects,
    teacher: str,
    put: Callable[[str, bytes], None],
    bucket: str,
    tmp_path: Path,
) -> None:
    lines = "".join(json.dumps({"caption": text}) + "\n" for text in CAPTIONS)
    put("texts/mine.jsonl", lines.encode())
    asked = small_spec(teacher=teacher, captions={"kind": "s3", "uri": f"s3://{bucket}/texts/mine.jsonl"})
    spec = resolve_spec(asked, allowed, remote)
    assert spec.teacher.startswith(f"{teacher}@")
    with transaction(engine) as session:
        job_id = create_job(session, spec=spec, queue="cpu", now=server_now(session)).id
    supervisor = Supervisor(
        engine=engine,
        objects=object_store,
        settings=allowed,
        worker="test",
        command=core_command(allowed),
        rhythm=Rhythm(poll=0.02, report=0.02, retry=0.05),
    )
    outcome = supervisor.run(threading.Event())
    with transaction(engine) as session:
        job = get_job(session, job_id)
        assert outcome == "succeeded", (job.reason, job.message)
        archive = artifacts.get_student_archive(session, job_id)
    assert job.result is not None
    assert job.result["captions"]["count"] == len(CAPTIONS)
    object_store.download_file(archive.key, tmp_path / "student.zip", sha256=archive.sha256)
    with zipfile.ZipFile(tmp_path / "student.zip") as student:
        manifest = json.loads(student.read("manifest.json"))
        assert "LICENSE.txt" in student.namelist(), "the teacher's licence travels with the student"
    assert manifest["spec"] == spec.model_dump(mode="json"), "as accepted, without a path of the worker's"
    assert str(allowed.data_dir) not in json.dumps(manifest)


def test_of_a_teacher_only_the_pipeline_is_fetched(
    fetcher: InputFetcher, teacher: str, teacher_folder: Path
) -> None:
    folder = fetch(fetcher, small_spec(teacher=teacher)).teacher
    assert folder is not None
    assert folder.name == "my-teacher"

    def files(of: Path) -> dict[str, bytes]:
        return {str(file.relative_to(of)): file.read_bytes() for file in of.rglob("*") if file.is_file()}

    assert files(folder) == files(teacher_folder)


def test_what_was_fetched_is_used_again(
    fetcher: InputFetcher, teacher: str, object_store: ObjectStore, allowed: Settings
) -> None:
    first = fetch(fetcher, small_spec(teacher=teacher)).teacher
    assert first is not None
    made_at = (first / UNET).stat().st_mtime_ns
    assert fetch(fetcher, small_spec(teacher=teacher)).teacher == first
    assert (first / UNET).stat().st_mtime_ns == made_at
    assert trim_cache(allowed.cache_dir, max_bytes=0) == [], "a job still uses it"
    fetcher.release()
    assert trim_cache(allowed.cache_dir, max_bytes=0) == [first.parent]
    assert fetch(fetcher, small_spec(teacher=teacher)).teacher == first
    assert (first / UNET).is_file()


def test_what_is_being_fetched_is_not_cleared_away(
    fetcher: InputFetcher, teacher: str, teacher_folder: Path, allowed: Settings
) -> None:
    removed = []

    def make_room() -> None:
        removed.extend(trim_cache(allowed.cache_dir, max_bytes=0))

    folder = fetcher.fetch_teacher(teacher, make_room)
    assert folder is not None
    assert removed == []
    assert {file.relative_to(folder) for file in folder.rglob("*")} == {
        file.relative_to(teacher_folder) for file in teacher_folder.rglob("*")
    }


def test_what_is_cleared_away_before_it_is_held_is_begun_anew(
    fetcher: InputFetcher, allowed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, removed = fcntl.flock, []

    def make_room_first(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_SH and not removed:
            removed.extend(trim_cache(allowed.cache_dir, max_bytes=0, missing_bytes=1))
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", make_room_first)
    entry = fetcher.entry("captions", "a", lambda folder: (folder / "file").touch(), go_on)
    assert [path.name[:3] for path in removed] == [".a."]
    assert (entry / "file").exists()
    assert trim_cache(allowed.cache_dir, max_bytes=0, missing_bytes=1) == []


def test_another_content_is_refused_once_the_job_is_accepted(
    fetcher: InputFetcher,
    teacher: str,
    allowed: Settings,
    remote: RemoteObjects,
    put: Callable[[str, bytes], None],
    bucket: str,
) -> None:
    put("texts/mine.txt", b"a cat\n")
    captions = {"kind": "s3", "uri": f"s3://{bucket}/texts/mine.txt"}
    spec = resolve_spec(small_spec(teacher=teacher, captions=captions), allowed, remote)
    assert fetch(fetcher, spec).captions is not None
    put("texts/mine.txt", b"a dog\n")
    with pytest.raises(UnusableInputError, match="has changed since revision") as caught:
        fetch(fetcher, spec)
    assert caught.value.reason == "bad_captions"
    put("texts/mine.txt", b"a cat\n")
    put(f"models/my-teacher/{UNET}", b"other weights")
    with pytest.raises(UnusableInputError, match="has changed since revision") as caught:
        fetch(fetcher, spec)
    assert caught.value.reason == "bad_teacher"


def test_a_job_whose_input_is_gone_fails_with_words_for_its_user(
    engine: Engine, object_store: ObjectStore, allowed: Settings, bucket: str
) -> None:
    spec = small_spec(teacher=f"s3://{bucket}/models/gone")
    with transaction(engine) as session:
        job_id = create_job(session, spec=spec, queue="cpu", now=server_now(session)).id
    supervisor = Supervisor(engine=engine, objects=object_store, settings=allowed, worker="test")
    assert supervisor.run(threading.Event()) == "failed"
    with transaction(engine) as session:
        job = get_job(session, job_id)
    assert job.reason == "bad_teacher"
    assert job.message is not None
    assert "holds no model_index.json" in job.message
    assert job.attempts_used == 0


def test_uploaded_captions_are_fetched_and_checked(
    fetcher: InputFetcher, engine: Engine, object_store: ObjectStore, put: Callable[[str, bytes], None]
) -> None:
    with transaction(engine) as session:
        key = begin_upload(session, tenant_id=DEFAULT_TENANT_ID, now=server_now(session))
    upload = object_store.begin_upload(key)
    upload.write(bytearray(b"a cat\na dog\n"))
    stored = upload.complete()
    with transaction(engine) as session:
        file, is_new = finish_upload(
            session,
            tenant_id=DEFAULT_TENANT_ID,
            name="mine.txt",
            stored=stored,
            now=server_now(session),
        )
    assert is_new
    spec = small_spec(captions={"kind": "uploaded", "id": file.id})
    fetched = fetch(fetcher, spec).captions
    assert fetched is not None
    assert (fetched.name, fetched.read_bytes()) == ("mine.txt", b"a cat\na dog\n")
    shutil.rmtree(fetched.parent)
    put(key, b"a cat\na d0g\n")
    with pytest.raises(UnusableInputError, match="is damaged"):
        fetch(fetcher, spec)
    assert not fetched.exists()
    with transaction(engine) as session:
        delete_caption_file(session, file.id, tenant_id=DEFAULT_TENANT_ID, now=server_now(session))
    with pytest.raises(UnusableInputError, match="were deleted"):
        fetch(fetcher, spec)


def test_a_fetch_that_nobody_wants_any_more_leaves_no_entry(
    fetcher: InputFetcher, teacher: str, allowed: Settings
) -> None:
    def give_up() -> None:
        raise LeaseLostError("The attempt is over.")

    with pytest.raises(LeaseLostError):
        fetcher.fetch(small_spec(teacher=teacher).model_dump(mode="json"), DEFAULT_TENANT_ID, give_up)
    assert [entry for entry in allowed.cache_dir.glob("teachers/*") if entry.is_dir()] == []


def find(remote: RemoteObjects, settings: Settings, teacher: str, scratch: Path) -> dict[str, Any]:
    return dict(find_teacher_files(remote, settings, teacher, scratch).files)


def test_a_part_with_pickles_alone_is_refused(
    remote: RemoteObjects, allowed: Settings, teacher: str, object_store: ObjectStore, tmp_path: Path
) -> None:
    object_store.delete_keys([f"models/my-teacher/{UNET}"])
    with pytest.raises(BadTeacherError, match=r"unet has no safetensors weights, only .*\.bin: a pickle"):
        find(remote, allowed, teacher, tmp_path)


def test_a_teacher_that_is_too_large_is_refused(
    remote: RemoteObjects, allowed: Settings, teacher: str, tmp_path: Path
) -> None:
    small = allowed.model_copy(update={"max_teacher_bytes": 1_000})
    with pytest.raises(BadTeacherError, match="1,000 are allowed"):
        find(remote, small, teacher, tmp_path)


def test_a_huge_index_is_not_read(
    remote: RemoteObjects,
    allowed: Settings,
    put: Callable[[str, bytes], None],
    bucket: str,
    tmp_path: Path,
) -> None:
    put("models/huge/model_index.json", b" " * (2**20 + 1))
    with pytest.raises(BadTeacherError, match="1,048,576 are allowed"):
        find(remote, allowed, f"s3://{bucket}/models/huge", tmp_path)


@pytest.mark.parametrize(
    "reference",
    [
        "s3://{bucket}/models-of-others/x",
        "s3://{bucket}/elsewhere",
        "s3://{bucket}/models/../secrets",
        "s3://{bucket}/models//x",
        "s3://{bucket}/models/./x",
        "s3://{bucket}/models/x\\..\\y",
        "s3://other/models/x",
        "s3://../models/x",
        "s3://{bucket}",
        "s3:///models/x",
    ],
)
def test_a_reference_outside_the_allowed_prefixes_is_refused(
    remote: RemoteObjects, allowed: Settings, bucket: str, tmp_path: Path, reference: str
) -> None:
    with pytest.raises(BadTeacherError) as caught:
        find(remote, allowed, reference.format(bucket=bucket), tmp_path)
    assert f"allowed: s3://{bucket}/models;" in caught.value.hint


def test_nothing_is_allowed_by_default(
    remote: RemoteObjects, settings: Settings, teacher: str, put: Callable[[str, bytes], None], bucket: str
) -> None:
    put("texts/mine.txt", b"a cat\n")
    uri = f"s3://{bucket}/texts/mine.txt"
    with pytest.raises(InvalidInputError, match=r"allowed: none; .*S3_TEACHER_PREFIXES") as caught:
        resolve_spec(small_spec(teacher=teacher), settings, remote)
    assert caught.value.field == "teacher"
    with pytest.raises(InvalidInputError, match=r"mine\.json ends in \.json, .*\.jsonl") as caught:
        resolve_spec(small_spec(captions={"kind": "s3", "uri": f"{uri[:-4]}.json"}), settings, remote)
    assert caught.value.field == "captions.uri"
    with pytest.raises(InvalidInputError, match=r"allowed: none; .*S3_CAPTION_PREFIXES") as caught:
        resolve_spec(small_spec(captions={"kind": "s3", "uri": uri}), settings, remote)
    assert caught.value.field == "captions.uri"


@pytest.mark.parametrize(
    ("unet", "said"),
    [
        (b"[]", "holds no JSON object"),
        (b"[" * 100_000, "cannot be read"),
        (b"{}", "cannot be understood"),
        (b'{"down_block_types": 1, "up_block_types": [], "block_out_channels": [1]}', "cannot be understood"),
        (b'{"layers_per_block": 1000000000, "block_out_channels": [1]}', "layers_per_block 1000000000"),
        (b'{"block_out_channels": "abc"}', "block_out_channels 'abc'"),
        (
            b'{"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"],'
            b' "block_out_channels": [0], "attention_head_dim": "x"}',
            "",
        ),
    ],
)
def test_a_hostile_config_is_refused_at_the_door(
    remote: RemoteObjects,
    allowed: Settings,
    teacher: str,
    put: Callable[[str, bytes], None],
    unet: bytes,
    said: str,
) -> None:
    put("models/my-teacher/unet/config.json", unet)
    with pytest.raises(InvalidInputError) as caught:
        resolve_spec(small_spec(teacher=teacher), allowed, remote)
    assert said in caught.value.detail
    assert caught.value.field in {"teacher", "student"}


def test_a_teacher_in_s3_whose_scheduler_is_code_is_refused_at_the_door(
    remote: RemoteObjects, allowed: Settings, teacher: str, put: Callable[[str, bytes], None]
) -> None:
    index = PIPELINE_INDEX | {"scheduler": ["my_scheduler", "MyScheduler"]}
    put("models/my-teacher/model_index.json", json.dumps(index).encode())
    with pytest.raises(InvalidInputError, match="scheduler needs code of its own") as caught:
        resolve_spec(small_spec(teacher=teacher), allowed, remote)
    assert caught.value.field == "teacher"


def test_the_student_is_checked_against_a_teacher_in_s3(
    remote: RemoteObjects, allowed: Settings, teacher: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        resolve_spec(small_spec(teacher=teacher, student={"width": 0.33}), allowed, remote)
    assert caught.value.field == "student.width"


def test_captions_that_are_not_there_or_too_large_are_refused(
    remote: RemoteObjects, allowed: Settings, put: Callable[[str, bytes], None], bucket: str
) -> None:
    captions = {"kind": "s3", "uri": f"s3://{bucket}/texts/mine.txt"}
    spec = small_spec(captions=captions)
    with pytest.raises(InvalidInputError, match="is not there"):
        resolve_spec(spec, allowed, remote)
    put("texts/mine.txt", b"a cat\n")
    small = allowed.model_copy(update={"max_caption_file_bytes": 5})
    with pytest.raises(InvalidInputError, match="6 bytes; 5 are allowed"):
        resolve_spec(spec, small, remote)
