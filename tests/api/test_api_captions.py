"""Caption files come in by streams of any size, whole or not at all."""

import gzip
import hashlib
import select
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from api.captions.slots import MAX_UPLOADS, MAX_UPLOADS_OF_TENANT, UploadSlots
from api.captions.uploading import PIECE_BYTES
from api.errors import TooManyUploadsError
from store.caption_files import begin_upload
from store.database import server_now, transaction
from store.models import DEFAULT_TENANT_ID
from store.objects import ObjectStore
from store.settings import Settings
from store.sweeper import remove_unclaimed_objects
from store.unclaimed import UPLOAD_ENDS
from tests.worker.doors import Door

CAPTIONS = b"a cat\na dog\n"
UNKNOWN = "019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa"


def upload(http: httpx.Client, content: Any, name: str = "captions.txt") -> httpx.Response:
    return http.post("/captions", params={"name": name}, content=content)


@pytest.fixture
def leftovers(engine: Engine, object_store: ObjectStore) -> Callable[[], dict[str, list[str]]]:
    """Sweeps, then says what of captions is anywhere."""

    def sweep() -> dict[str, list[str]]:
        with transaction(engine) as session:
            now = server_now(session)
        remove_unclaimed_objects(engine, object_store, now)
        with engine.connect() as connection:
            rows = list(connection.execute(text("SELECT name FROM caption_files")).scalars())
            unclaimed = list(connection.execute(text("SELECT key FROM unclaimed_objects")).scalars())
        listed = object_store._client.list_multipart_uploads(Bucket=object_store.bucket)
        return {
            "rows": rows,
            "unclaimed": unclaimed,
            "objects": object_store.list_keys("captions/"),
            "multiparts": [found["Key"] for found in listed.get("Uploads", [])],
        }

    return sweep


NOTHING: dict[str, list[str]] = {"rows": [], "unclaimed": [], "objects": [], "multiparts": []}


def stored_content(engine: Engine, object_store: ObjectStore, file_id: str, path: Path) -> bytes:
    with engine.connect() as connection:
        query = text("SELECT key, sha256 FROM caption_files WHERE id = :id")
        key, sha256 = connection.execute(query, {"id": file_id}).one()
    object_store.download_file(key, path, sha256=sha256)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("captions.txt", "text"),
        ("a b.csv", "csv"),
        ("c.TSV.tsv.gz", "tsv"),
        ("d.jsonl.zst", "jsonl"),
        ("e.ndjson", "jsonl"),
        ("f.parquet", "parquet"),
    ],
)
def test_a_file_is_stored_as_it_is(
    http: httpx.Client,
    engine: Engine,
    object_store: ObjectStore,
    tmp_path: Path,
    name: str,
    format_: str,
) -> None:
    answer = upload(http, CAPTIONS, name)
    assert answer.status_code == 201
    file = answer.json()
    assert file | {"id": "", "created_at": ""} == {
        "id": "",
        "name": name,
        "format": format_,
        "size": len(CAPTIONS),
        "sha256": hashlib.sha256(CAPTIONS).hexdigest(),
        "created_at": "",
    }
    assert answer.headers["location"] == f"/captions/{file['id']}"
    assert http.get(answer.headers["location"]).json() == file
    assert stored_content(engine, object_store, file["id"], tmp_path / "fetched") == CAPTIONS


def test_a_compressed_body_is_not_taken_apart(
    http: httpx.Client, engine: Engine, object_store: ObjectStore, tmp_path: Path
) -> None:
    packed = gzip.compress(CAPTIONS)
    file = upload(http, packed, "captions.txt.gz").json()
    assert stored_content(engine, object_store, file["id"], tmp_path / "fetched") == packed


def test_pieces_are_put_together_in_order(
    http: httpx.Client, engine: Engine, object_store: ObjectStore, tmp_path: Path
) -> None:
    content = b"".join(b"caption number %d\n" % number for number in range(1_200_000))
    assert len(content) > 2 * PIECE_BYTES
    file = upload(http, content).json()
    assert stored_content(engine, object_store, file["id"], tmp_path / "fetched") == content


def test_the_same_content_is_one_object(
    http: httpx.Client, leftovers: Callable[[], dict[str, list[str]]]
) -> None:
    first = upload(http, CAPTIONS)
    again = upload(http, CAPTIONS)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    other_name = upload(http, CAPTIONS, "table.csv")
    assert other_name.status_code == 201
    left = leftovers()
    assert sorted(left["rows"]) == ["captions.txt", "table.csv"]
    assert len(left["objects"]) == 1
    assert http.delete(f"/captions/{first.json()['id']}").status_code == 204
    assert len(leftovers()["objects"]) == 1, "the other row still speaks of it"
    assert http.delete(f"/captions/{other_name.json()['id']}").status_code == 204
    assert leftovers() == NOTHING


def test_equal_uploads_at_once_are_one_file(
    http: httpx.Client, leftovers: Callable[[], dict[str, list[str]]]
) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: upload(http, CAPTIONS), range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    left = leftovers()
    assert (len(left["rows"]), len(left["objects"])) == (1, 1)


def test_files_are_listed_in_pages(http: httpx.Client) -> None:
    ids = [upload(http, b"caption %d\n" % number).json()["id"] for number in range(3)]
    page = http.get("/captions", params={"limit": 2}).json()
    assert [file["id"] for file in page["items"]] == [ids[2], ids[1]]
    rest = http.get("/captions", params={"after": page["next"]}).json()
    assert [file["id"] for file in rest["items"]] == [ids[0]]
    assert not rest["has_more"]
    assert http.get("/captions", params={"after": "x"}).status_code == 422


@pytest.mark.parametrize(
    "name", ["captions", "captions.exe", "captions.gz", "a/b.txt", "..\\b.txt", "a\x00.txt", "", "x" * 201]
)
def test_a_name_that_says_no_format_or_is_a_path_is_refused(offline: httpx.Client, name: str) -> None:
    answer = upload(offline, CAPTIONS, name)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "name"


def test_a_form_and_an_empty_body_are_refused(
    http: httpx.Client, leftovers: Callable[[], dict[str, list[str]]]
) -> None:
    form = http.post("/captions", params={"name": "a.txt"}, files={"file": CAPTIONS})
    assert form.status_code == 415
    assert upload(http, b"").json()["errors"][0]["field"] == "body"
    assert leftovers() == NOTHING


def test_unknown_files_are_not_found(http: httpx.Client) -> None:
    for file_id in (UNKNOWN, "nonsense", "%00"):
        assert http.get(f"/captions/{file_id}").status_code == 404
        assert http.delete(f"/captions/{file_id}").status_code == 404


def endless(size: int) -> Iterator[bytes]:
    block = b"a caption like any other\n" * 2_621
    for _ in range(0, size, len(block)):
        yield block


@pytest.mark.parametrize("announced", [True, False])
def test_a_file_over_the_cap_leaves_nothing(
    api_settings: Settings,
    serve: Any,
    leftovers: Callable[[], dict[str, list[str]]],
    announced: bool,
) -> None:
    cap = PIECE_BYTES + 2**20
    settings = api_settings.model_copy(update={"max_caption_file_bytes": cap})
    content = b"".join(endless(cap + 2**20))
    with serve(settings) as http:
        answer = upload(http, content if announced else endless(len(content)))
        assert answer.status_code == 413
        assert answer.json()["detail"] == f"A request body may have at most {cap} bytes."
        assert leftovers() == NOTHING
        assert upload(http, content[: cap - 1]).status_code == 201


def test_other_routes_keep_their_own_limit(offline: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    assert offline.post("/jobs", content=b" " * 5 * 2**20, headers=headers).status_code == 413


def begin_by_hand(http: httpx.Client, *, announced: int, sent: bytes) -> socket.socket:
    """Send the beginning of an upload over a connection of its own."""
    connection = socket.create_connection((http.base_url.host, http.base_url.port), timeout=20)
    head = [
        "POST /captions?name=a.txt HTTP/1.1",
        "Host: localhost",
        f"Authorization: {http.headers['Authorization']}",
        f"Content-Length: {announced}",
    ]
    connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + sent)
    return connection


def test_a_client_that_goes_away_leaves_nothing(
    http: httpx.Client,
    leftovers: Callable[[], dict[str, list[str]]],
    object_store: ObjectStore,
    eventually: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    connection = begin_by_hand(http, announced=50_000_000, sent=b"".join(endless(2 * PIECE_BYTES)))
    client = object_store._client
    eventually(lambda: client.list_multipart_uploads(Bucket=object_store.bucket).get("Uploads"))
    assert leftovers()["unclaimed"], "the key is known before the upload ends"
    connection.close()
    eventually(lambda: leftovers() == NOTHING)
    assert "failed" not in caplog.text, "a client's doing is no failure of ours"


def test_a_client_that_falls_silent_is_given_up(
    api_settings: Settings, serve: Any, leftovers: Callable[[], dict[str, list[str]]]
) -> None:
    settings = api_settings.model_copy(update={"upload_silence_seconds": 0.2})
    with serve(settings) as http:
        with begin_by_hand(http, announced=100, sent=b"x") as connection, connection.makefile("rb") as answer:
            assert answer.readline().startswith(b"HTTP/1.1 408 ")
        assert leftovers() == NOTHING


def test_uploads_of_a_tenant_at_once_are_bounded(http: httpx.Client, eventually: Callable[..., Any]) -> None:
    held = [begin_by_hand(http, announced=100, sent=b"x") for _ in range(MAX_UPLOADS_OF_TENANT + 1)]
    try:
        # Whichever came last has its answer; the others are waited for.
        readable, _, _ = select.select(held, [], [], 20)
        assert len(readable) == 1
        answer = readable[0].recv(65_536)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: " in answer.lower()
        assert b"urn:condenser:problem:too_many_uploads" in answer
    finally:
        for connection in held:
            connection.close()
    eventually(lambda: upload(http, CAPTIONS).status_code in {200, 201})


def test_one_tenant_leaves_slots_to_the_others() -> None:
    slots = UploadSlots()
    with ExitStack() as held:
        for _ in range(MAX_UPLOADS_OF_TENANT):
            held.enter_context(slots.take("greedy"))
        with pytest.raises(TooManyUploadsError, match="of yours"), slots.take("greedy"):
            pass
        for number in range(MAX_UPLOADS - MAX_UPLOADS_OF_TENANT):
            held.enter_context(slots.take(f"modest {number}"))
        with pytest.raises(TooManyUploadsError, match="Other uploads"), slots.take("late"):
            pass
    with slots.take("late"), slots.take("greedy"):
        assert slots.taken.total() == 2


def test_an_object_store_that_fails_midway_leaves_nothing(
    api_settings: Settings,
    serve: Any,
    leftovers: Callable[[], dict[str, list[str]]],
    object_store: ObjectStore,
    eventually: Callable[..., Any],
) -> None:
    address = httpx.URL(str(api_settings.s3_endpoint_url))
    assert address.port is not None
    door = Door(address.host, address.port)
    settings = api_settings.model_copy(
        update={"s3_endpoint_url": f"http://127.0.0.1:{door.port}", "reconcile_seconds": 3_600}
    )
    began, go_on = threading.Event(), threading.Event()

    def blocks() -> Iterator[bytes]:
        yield from endless(PIECE_BYTES + 2**17)
        began.set()
        go_on.wait(20)
        yield from endless(PIECE_BYTES + 2**17)

    try:
        with serve(settings) as http, ThreadPoolExecutor(1) as pool:
            uploading = pool.submit(upload, http, blocks())
            assert began.wait(20)
            client = object_store._client
            eventually(lambda: client.list_multipart_uploads(Bucket=object_store.bucket).get("Uploads"))
            door.shut()
            go_on.set()
            assert uploading.result(60).status_code == 503
    finally:
        door.shut()
    listed = object_store._client.list_multipart_uploads(Bucket=object_store.bucket)
    assert listed.get("Uploads"), "the broken upload could not be reached"
    assert leftovers() == NOTHING, "once the store is back, the next pass removes it"


def test_what_a_killed_process_left_is_swept(engine: Engine, object_store: ObjectStore) -> None:
    with transaction(engine) as session:
        now = server_now(session)
        key = begin_upload(session, tenant_id=DEFAULT_TENANT_ID, now=now)
    begun = object_store.begin_upload(key)
    begun.write(bytearray(b"x"))
    assert remove_unclaimed_objects(engine, object_store, now + UPLOAD_ENDS - timedelta(minutes=1)) == []
    assert remove_unclaimed_objects(engine, object_store, now + UPLOAD_ENDS) == [key]
    assert not object_store._client.list_multipart_uploads(Bucket=object_store.bucket).get("Uploads")


def test_captions_stay_while_a_job_reads_them(http: httpx.Client, jobs: Any) -> None:
    file_id = upload(http, CAPTIONS).json()["id"]
    captions = {"kind": "uploaded", "id": file_id}
    answer = http.post("/jobs", json={"teacher": "tiny", "captions": captions})
    assert answer.status_code == 201
    assert answer.json()["spec"]["captions"]["id"] == file_id
    refused = http.delete(f"/captions/{file_id}")
    assert refused.status_code == 409
    assert refused.json()["type"] == "urn:condenser:problem:captions_in_use"
    assert answer.json()["id"] in refused.json()["detail"]
    jobs.succeed(jobs.claim(answer.json()["id"]))
    assert http.delete(f"/captions/{file_id}").status_code == 204


def test_a_job_whose_captions_were_deleted_is_not_queued_again(http: httpx.Client, jobs: Any) -> None:
    file_id = upload(http, CAPTIONS).json()["id"]
    captions = {"kind": "uploaded", "id": file_id}
    job = http.post("/jobs", json={"teacher": "tiny", "captions": captions}).json()
    http.post(f"/jobs/{job['id']}/cancel")
    assert http.post(f"/jobs/{job['id']}/retry").json()["status"] == "queued"
    http.post(f"/jobs/{job['id']}/cancel")
    assert http.delete(f"/captions/{file_id}").status_code == 204
    refused = http.post(f"/jobs/{job['id']}/retry")
    assert refused.status_code == 409
    assert refused.json()["type"] == "urn:condenser:problem:captions_gone"
    assert http.get(f"/jobs/{job['id']}").json()["status"] == "cancelled"


def test_a_job_on_captions_that_were_never_uploaded_is_refused(http: httpx.Client) -> None:
    for file_id in (UNKNOWN, "nonsense"):
        answer = http.post("/jobs", json={"teacher": "tiny", "captions": {"kind": "uploaded", "id": file_id}})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "captions.id"
    assert http.get("/jobs").json()["items"] == []
