"""Caption files by the Python client and by the command, against the real API."""

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from client import Condenser, ConflictError, InvalidRequestError, NotFoundError, UploadError
from tests.client.test_commands import environment as environment
from tests.client.test_commands import run as run
from tests.client.test_jobs import SPEC

LINES = "".join(f"caption number {number}\n" for number in range(20_000))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "captions.txt"
    path.write_text(LINES)
    return path


def test_a_file_is_uploaded_listed_and_deleted(condenser: Condenser, file: Path) -> None:
    seen: list[tuple[int, int]] = []
    stored = condenser.captions.upload(file, on_progress=lambda sent, size: seen.append((sent, size)))
    assert stored.sha256 == hashlib.sha256(LINES.encode()).hexdigest()
    assert seen[-1] == (len(LINES), len(LINES))
    assert condenser.captions.get(stored.id) == stored
    assert condenser.captions.upload(file) == stored, "the same file is there already"
    other = condenser.captions.upload(file, name="table.csv")
    assert other.format == "csv"
    assert condenser.captions.list() == [other, stored]
    assert condenser.captions.list(limit=1) == [other]
    condenser.captions.delete(other.id)
    with pytest.raises(NotFoundError):
        condenser.captions.get(other.id)


def test_captions_in_use_are_not_deleted(condenser: Condenser, file: Path) -> None:
    stored = condenser.captions.upload(file)
    job = condenser.jobs.create(SPEC | {"captions": stored.spec})
    with pytest.raises(ConflictError, match=job.id):
        condenser.captions.delete(stored.id)
    job.cancel()
    condenser.captions.delete(stored.id)


def test_a_name_without_a_format_is_refused(condenser: Condenser, file: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"allowed: \*\.txt"):
        condenser.captions.upload(file, name="captions.doc")


def test_a_file_that_changes_meanwhile_is_not_taken(condenser: Condenser, file: Path) -> None:
    def shorten(sent: int, size: int) -> None:
        with file.open("a") as more:
            more.write("one more\n")

    with pytest.raises(UploadError, match="changed while it was sent"):
        condenser.captions.upload(file, on_progress=shorten)
    assert condenser.captions.list() == []


def test_an_upload_whose_connection_breaks_is_sent_again(api_url: str, api_key: str, file: Path) -> None:
    from tests.client.network import relay_to

    with relay_to(api_url) as relay, Condenser(relay.url, api_key) as condenser:
        relay.cut_after = 100
        stored = condenser.captions.upload(file)
        assert stored.size == len(LINES)
        assert relay.connections > 1
        assert condenser.captions.list() == [stored]


def test_the_commands(run: Any, condenser: Condenser, file: Path) -> None:
    file_id = run("captions", "upload", "captions.txt").stdout.strip()
    assert run("captions", "list").stdout.split("\t")[:3] == [file_id, "captions.txt", "text"]
    assert json.loads(run("captions", "list", "--json").stdout)[0]["sha256"]
    run("captions", "delete", file_id)
    assert condenser.captions.list() == []
    assert "Not found" in run("captions", "delete", file_id, code=1).stderr


def test_a_file_that_is_no_utf_8_is_left_to_the_service_to_judge(
    run: Any, condenser: Condenser, tmp_path: Path
) -> None:
    (tmp_path / "latin.txt").write_bytes("café\n".encode("latin-1"))
    run("submit", "--teacher", "tiny", "--captions", "latin.txt")
    assert [file.name for file in condenser.captions.list()] == ["latin.txt"]


def test_a_caption_ends_where_its_line_does(run: Any, condenser: Condenser, tmp_path: Path) -> None:
    captions = ["one\u2028two", "three\x0bfour"]
    (tmp_path / "few.txt").write_text("\n".join(captions), encoding="utf-8")
    job_id = run("submit", "--teacher", "tiny", "--captions", "few.txt").stdout.strip()
    assert condenser.jobs.get(job_id).state.spec["captions"]["texts"] == captions


def test_submit_uploads_what_is_too_much_for_a_request(run: Any, condenser: Condenser, file: Path) -> None:
    job_id = run("submit", "--teacher", "tiny", "--captions", "captions.txt").stdout.strip()
    (stored,) = condenser.captions.list()
    assert condenser.jobs.get(job_id).state.spec["captions"]["id"] == stored.id
    again = run("submit", "--teacher", "tiny", "--captions", stored.id, "--set", "captions.limit=5").stdout
    captions = condenser.jobs.get(again.strip()).state.spec["captions"]
    assert (captions["kind"], captions["id"], captions["limit"]) == ("uploaded", stored.id, 5)


def test_submit_uploads_tables_and_compressed_files(run: Any, condenser: Condenser, tmp_path: Path) -> None:
    (tmp_path / "small.jsonl.gz").write_bytes(gzip.compress(b'{"caption": "a cat"}\n'))
    run("submit", "--teacher", "tiny", "--captions", "small.jsonl.gz")
    (stored,) = condenser.captions.list()
    assert (stored.name, stored.format) == ("small.jsonl.gz", "jsonl")


def test_submit_passes_s3_references_on_and_names_what_is_nothing(run: Any) -> None:
    refused = run("submit", "--teacher", "tiny", "--captions", "s3://data/captions.txt", code=1)
    assert "captions.uri" in refused.stderr
    assert "is no file" in run("submit", "--captions", "nothing.txt", code=2).stderr
