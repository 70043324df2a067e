"""What browsers are told of our answers, and what is refused for its size, depth or origin."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from sqlalchemy import Engine

from api.head_limit import MAX_ADDRESS_BYTES, MAX_HEADER_BYTES, MAX_HEADERS
from api.http_protocol import MAX_UNPARSED_BYTES
from api.services import BROKER_THREADS, OBJECT_STORE_THREADS
from store.api_keys import create_key
from store.database import server_now, transaction
from store.leases import NewArtifact, add_artifacts
from store.models import ArtifactKind
from store.settings import Settings
from tests.api.conftest import StallingServer, visit
from tests.conftest import PATIENCE_SECONDS

JSON = {"Content-Type": "application/json"}
UNKNOWN = "019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa"
DEPTH = 100_000
ORIGIN = "https://dashboard.example.org"


def test_every_answer_carries_the_security_headers(offline: httpx.Client) -> None:
    for answer in (
        offline.get("/healthz"),
        offline.get("/nothing"),
        offline.get("/jobs"),
        offline.get("/docs"),
        offline.post("/jobs", content=b"{", headers=JSON),
        offline.get("/healthz", headers={"Host": "elsewhere"}),
        offline.get("/" + "x" * MAX_ADDRESS_BYTES),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-request-id"]
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "*" not in policy


class Links(HTMLParser):
    """Collects what a page loads, and what stands in it that a strict policy forbids."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.forbidden: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "link":
            self.loaded.append(str(attributes["href"]))
        if tag in {"style", "script", "iframe", "img"}:
            self.forbidden.append(tag)
        self.forbidden += [name for name in attributes if name == "style" or name.startswith("on")]


def test_the_reference_needs_nothing_from_elsewhere(offline: httpx.Client) -> None:
    page = offline.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    links = Links()
    links.feed(page.text)
    assert links.forbidden == []
    assert links.loaded == ["/docs/style.css"]
    assert "//" not in re.sub(r"</?[a-z]+>", "", page.text).replace("s3://", ""), "no address of another host"
    style = offline.get("/docs/style.css")
    assert style.headers["content-type"].startswith("text/css")
    assert "@import" not in style.text
    assert "url(" not in style.text


def test_the_reference_names_every_operation(offline: httpx.Client) -> None:
    document, page = offline.get("/openapi.json").json(), offline.get("/docs").text
    for path, operations in document["paths"].items():
        assert f"<code>{path}</code>" in page
        for operation in operations.values():
            assert f'id="{operation["operationId"]}"' in page


@pytest.mark.parametrize(
    "body",
    [
        b"[" * DEPTH,
        b"[" * DEPTH + b"]" * DEPTH,
        b'{"teacher": ' + b"[" * DEPTH + b"]" * DEPTH + b"}",
        b'{"a":' * DEPTH + b"1" + b"}" * DEPTH,
    ],
    ids=["open", "arrays", "in a field", "objects"],
)
def test_a_deeply_nested_body_is_refused_at_once(offline: httpx.Client, body: bytes) -> None:
    for path in ("/jobs", f"/jobs/{UNKNOWN}/clone"):
        began = time.process_time()
        answer = offline.post(path, content=body, headers=JSON)
        assert time.process_time() - began < 1
        assert answer.status_code in {400, 422}
        assert answer.headers["content-type"] == "application/problem+json"
    assert offline.get("/healthz").status_code == 200


def test_nesting_that_the_parser_takes_is_refused_by_field(http: httpx.Client, jobs: Any) -> None:
    job_id = jobs.submit()
    nested = '{"options":' + '{"a":' * 900 + "1" + "}" * 900 + "}"
    for path, body in (("/jobs", '{"teacher": "tiny",' + nested[1:]), (f"/jobs/{job_id}/clone", nested)):
        answer = http.post(path, content=body, headers=JSON)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"].startswith("options.a")


def test_long_addresses_and_large_headers_are_refused(offline: httpx.Client) -> None:
    fits = "teacher=" + "x" * (MAX_ADDRESS_BYTES - len("/jobs?teacher="))
    assert offline.get(f"/jobs?{fits}").status_code == 422, "read, and found too long for a name"
    for address in (f"/jobs?{fits}xx", "/" + "x" * MAX_ADDRESS_BYTES):
        answer = offline.get(address)
        assert answer.status_code == 414
        assert answer.headers["content-type"] == "application/problem+json"
    for headers in ({"X-Large": "x" * MAX_HEADER_BYTES}, {f"X-{n}": "x" for n in range(MAX_HEADERS)}):
        answer = offline.get("/healthz", headers=headers)
        assert answer.status_code == 431
        assert answer.json()["type"] == "urn:condenser:problem:headers_too_large"


@pytest.fixture
def process(offline_settings: Settings, free_port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """The API with the parser that production uses."""
    process = subprocess.Popen(
        [sys.executable, "-m", "api", "--port", str(free_port)],
        env={
            "PYTHONPATH": ":".join(sys.path),
            "DATABASE_URL": offline_settings.database_url,
            "REDIS_URL": offline_settings.redis_url,
            "S3_ENDPOINT_URL": str(offline_settings.s3_endpoint_url),
            "S3_ACCESS_KEY_ID": "nobody",
            "S3_SECRET_ACCESS_KEY": "nothing",
            "API_KEY_PEPPER": offline_settings.required_pepper(),
        },
        stderr=subprocess.DEVNULL,
    )
    yield process
    process.kill()
    process.wait()


HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
UPLOAD = b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_head_without_end_is_cut_off(
    process: "subprocess.Popen[bytes]", free_port: int, eventually: Callable[..., Any]
) -> None:
    def answers(request: bytes) -> bytes:
        assert process.poll() is None
        try:
            with socket.create_connection(("127.0.0.1", free_port), timeout=20) as connection:
                connection.sendall(request)
                return connection.recv(100)
        except ConnectionRefusedError:
            return b""

    eventually(lambda: answers(HEAD + b"\r\n").startswith(b"HTTP/1.1 200"))
    for beginning in (
        b"GET /",
        HEAD + b"X-Large: ",
        HEAD + b"X: y\r\n" * 10_000,
        UPLOAD + b"1\r\n{\r\n0\r\nX-Trailer: ",
        UPLOAD + b"1;extension=",
    ):
        assert is_cut_off(free_port, beginning), beginning[-20:]
    assert answers(HEAD + b"\r\n").startswith(b"HTTP/1.1 200")


def is_cut_off(port: int, beginning: bytes) -> bool:
    """Go on with a request for ever, as long as somebody listens; whether they stop listening in time."""
    block = b"x" * MAX_UNPARSED_BYTES
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            connection.sendall(beginning)
            for _ in range(500):
                connection.sendall(block)
        except ConnectionError:
            return True
    return False


REQUESTS = 25
"""More than threads for the object store or the broker, and than those that all requests share."""

ASK_THE_OBJECT_STORE: dict[str, Callable[[httpx.Client, str], httpx.Response]] = {
    "pictures": lambda http, job_id: http.get(
        f"/ui/jobs/{job_id}/picture", params={"attempt": 1, "path": "grid.png"}, timeout=PATIENCE_SECONDS
    ),
    "logs": lambda http, job_id: http.get(
        f"/ui/jobs/{job_id}/log", params={"attempt": 1}, timeout=PATIENCE_SECONDS
    ),
    "files": lambda http, job_id: http.get(
        http.get(f"/jobs/{job_id}/artifacts").json()["items"][0]["url"], timeout=PATIENCE_SECONDS
    ),
    "submissions": lambda http, job_id: http.post("/jobs", json=REMOTE, timeout=PATIENCE_SECONDS),
    "estimates": lambda http, job_id: http.post("/estimates", json=REMOTE, timeout=PATIENCE_SECONDS),
}
REMOTE = {"teacher": "tiny", "captions": {"kind": "s3", "uri": "s3://captions/of-others.txt"}}


@pytest.fixture
def job_with_files(engine: Engine, jobs: Any) -> str:
    """A job of whose files only the rows are there."""
    claim = jobs.claim(jobs.submit())
    files: list[tuple[str, ArtifactKind]] = [("grid.png", "sample"), ("trainer.log", "log")]
    with transaction(engine) as session:
        add_artifacts(
            session,
            job_id=claim.job_id,
            lease_token=claim.lease_token,
            artifacts=[
                NewArtifact(path=path, kind=kind, step=None, key=f"jobs/{path}", size=1, sha256="0" * 64)
                for path, kind in files
            ],
            event=None,
            now=server_now(session),
        )
    job_id: str = claim.job_id
    return job_id


@pytest.mark.parametrize("what", ASK_THE_OBJECT_STORE)
def test_a_stalling_object_store_holds_up_only_who_asks_it(
    api_settings: Settings,
    serve: Callable[[Settings], Any],
    stalling_server: StallingServer,
    engine: Engine,
    job_with_files: str,
    eventually: Callable[..., Any],
    what: str,
) -> None:
    with transaction(engine) as session:
        now, pepper = server_now(session), api_settings.required_pepper()
        visitor = create_key(session, name="a visitor", scopes=["read"], pepper=pepper, now=now).row.id
    stalling = {
        "s3_endpoint_url": f"http://{stalling_server.address}",
        "s3_caption_prefixes": ["s3://captions"],
        "files_through_api": True,
    }
    with serve(api_settings.model_copy(update=stalling)) as http, ThreadPoolExecutor(REQUESTS) as pool:
        visit(http, visitor)
        asked = [pool.submit(ASK_THE_OBJECT_STORE[what], http, job_with_files) for _ in range(REQUESTS)]
        try:
            eventually(lambda: stalling_server.taken >= OBJECT_STORE_THREADS)
            assert http.get("/jobs").status_code == 200
            assert http.post(f"/jobs/{job_with_files}/cancel").status_code == 200
        finally:
            stalling_server.close()
        assert {request.result().status_code for request in asked} == {503}


def test_a_stalling_broker_holds_up_no_submission(
    api_settings: Settings,
    serve: Callable[[Settings], Any],
    stalling_server: StallingServer,
    eventually: Callable[..., Any],
) -> None:
    stalling = {"redis_url": f"redis://{stalling_server.address}/0", "rate_limit_per_minute": None}
    with serve(api_settings.model_copy(update=stalling)) as http, ThreadPoolExecutor(REQUESTS) as pool:
        asked = [pool.submit(http.post, "/jobs", json={"teacher": "tiny"}) for _ in range(REQUESTS)]
        try:
            assert {request.result().status_code for request in asked} == {201}
            eventually(lambda: stalling_server.taken >= BROKER_THREADS)
            assert len(http.get("/jobs", params={"limit": 100}).json()["items"]) == REQUESTS
        finally:
            stalling_server.close()


def test_no_foreign_page_reads_answers_by_default(offline: httpx.Client) -> None:
    answer = offline.get("/healthz", headers={"Origin": ORIGIN})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    preflight = offline.options("/jobs", headers={"Origin": ORIGIN, "Access-Control-Request-Method": "POST"})
    assert preflight.status_code == 403


def test_pages_of_allowed_origins_may_use_the_api(
    offline_settings: Settings, serve: Callable[[Settings], Any]
) -> None:
    with serve(offline_settings.model_copy(update={"cors_origins": [ORIGIN]})) as client:
        preflight = client.options(
            "/jobs",
            headers={
                "Origin": ORIGIN,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "Authorization, Idempotency-Key, Content-Type",
            },
        )
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == ORIGIN
        routes = client.get("/openapi.json").json()["paths"].values()
        methods = {method.upper() for route in routes for method in route} & {
            "DELETE",
            "GET",
            "PATCH",
            "POST",
            "PUT",
        }
        assert set(preflight.headers["access-control-allow-methods"].split(", ")) == methods
        answer = client.get("/healthz", headers={"Origin": ORIGIN})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "access-control-allow-credentials" not in answer.headers
        assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
        assert client.get("/healthz", headers={"Origin": f"{ORIGIN}.evil.example"}).status_code == 403


@pytest.mark.parametrize(
    "origin", ["*", "null", "example.org", "https://example.org/path", "ftp://example.org"]
)
def test_only_whole_origins_can_be_allowed(offline_settings: Settings, origin: str) -> None:
    with pytest.raises(ValidationError, match="is no origin"):
        Settings.model_validate(offline_settings.model_dump() | {"cors_origins": origin})
