"""What is refused at the door, with a problem document that names the field and the allowed values.

The servers behind the API are all down here, so none of these answers can have touched one.
"""

import errno
import json
import os
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from store.settings import Settings

JSON = {"Content-Type": "application/json"}


def problem_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


def inline(*texts: str) -> dict[str, Any]:
    return {"kind": "inline", "texts": list(texts)}


PRESETS = [
    *("b-base", "b-small", "b-tiny", "c-base", "c-small", "c-tiny", "c-micro"),
    *("koala-1b", "koala-700m"),
]
BAD_SPECS: list[tuple[dict[str, Any], str, list[str] | None]] = [
    ({"teacher": "unknown"}, "teacher", ["emoji-64", "tiny"]),
    ({"teacher": None}, "teacher", None),
    ({"student": "b-smal"}, "student", PRESETS),
    ({"student": 5}, "student", PRESETS),
    ({"student": "c-base"}, "student", ["b-base", "b-small", "b-tiny", "c-micro"]),
    ({"student": {"width": 0.66}}, "student.width", ["0.5", "1"]),
    ({"student": {"width": 2}}, "student.width", ["at most 1.0"]),
    ({"student": {"widht": 0.5}}, "student.width", None),
    ({"student": {"max_params": 0}}, "student.max_params", ["greater than 0"]),
    ({"student": {"max_params": 1_000}}, "student.max_params", None),
    ({"student": {"max_macs": 1_000}}, "student.max_macs", None),
    ({"captions": inline()}, "captions.texts", ["length of at least 1"]),
    ({"captions": inline(*["a"] * 10_001)}, "captions.texts", ["length of at most 10000"]),
    ({"captions": inline("cat", " ")}, "captions.texts.1", ["length of at least 1"]),
    ({"captions": inline("a" * 1_001)}, "captions.texts.0", ["length of at most 1000"]),
    ({"captions": inline("a\x00b")}, "captions.texts.0", None),
    ({"captions": inline("\ud800")}, "captions.texts.0", None),
    (
        {"captions": {"kind": "elsewhere"}},
        "captions.kind",
        ["inline", "file", "uploaded", "s3", "hub", "bundled"],
    ),
    ({"captions": {}}, "captions.kind", ["bundled", "file", "hub", "inline", "s3", "uploaded"]),
    ({"captions": {"kind": "uploaded", "id": "nonsense"}}, "captions.id", None),
    ({"captions": {"kind": "s3", "uri": "http://bucket/key"}}, "captions.uri", None),
    ({"captions": {"kind": "s3", "uri": "s3://bucket/a/../b"}}, "captions.uri", None),
    ({"captions": {"kind": "s3", "uri": "s3://bucket/captions.txt"}}, "captions.uri", None),
    ({"captions": {"kind": "hub", "dataset": "text", "column": "text"}}, "captions.dataset", None),
    ({"teacher": "s3://bucket/teacher"}, "teacher", None),
    ({"teacher": "s3://bucket"}, "teacher", None),
    ({"captions": []}, "captions", None),
    ({"captions": inline("a", "a"), "drawn": {"count": 2}}, "drawn.count", ["1 to 1"]),
    ({"drawn": {"count": 0}}, "drawn.count", ["at least 1"]),
    ({"drawn": {"texts": []}}, "drawn.texts", ["length of at least 1"]),
    ({"drawn": {"texts": ["\x00"]}}, "drawn.texts.0", None),
    (
        {"training": {"batch_size": 6, "micro_batch_size": 4}},
        "training.micro_batch_size",
        ["1", "2", "3", "6"],
    ),
    ({"training": {"stepz": 1}}, "training.stepz", None),
    ({"training": {"steps": 1_000_000, "log_every": 9}}, "training.log_every", ["10 or more"]),
    ({"training": {"steps": 1_000_000, "sample_every": 1}}, "training.sample_every", ["100 or more"]),
    ({"training": {"steps": 1_000_000, "checkpoint_every": 1}}, "training.checkpoint_every", ["100 or more"]),
    (
        {"training": {"steps": 1_000_000}, "evaluation": {"score_every": 99}},
        "evaluation.score_every",
        ["100 or more"],
    ),
    ({"seed": float("nan")}, "seed", None),
    ({"seed": 2**32}, "seed", ["less than 4294967296"]),
    ({"few_step": {"stepz": 1}}, "few_step.stepz", None),
    ({"few_step": {"steps": 4, "start_steps": 4}}, "few_step.steps", None),
    ({"method": {"noise_matching_steps": 9}}, "method.noise_matching_steps", None),
    ({"evaluation": {"grid_prompts": ["\x00"]}}, "evaluation.grid_prompts.0", None),
    ({"\ud800": 1}, "body", None),
    ({"x" * 10_000: 1}, "x" * 200, None),
]


@pytest.mark.parametrize(("change", "field", "allowed"), BAD_SPECS, ids=lambda value: repr(value)[:50])
def test_a_bad_specification_is_named_by_field_and_allowed_values(
    offline: httpx.Client, change: dict[str, Any], field: str, allowed: list[str] | None
) -> None:
    body = json.dumps({"teacher": "tiny"} | change)
    answer = offline.post("/jobs", content=body, headers=JSON)
    assert answer.status_code == 422
    problem = problem_of(answer)
    assert problem["type"] == "urn:condenser:problem:invalid_input"
    assert problem["errors"][0]["field"] == field
    if allowed is not None:
        assert problem["errors"][0]["allowed"] == allowed


@pytest.mark.parametrize(("number", "status"), [(errno.ESTALE, 503), (errno.EACCES, 422)])
def test_a_teacher_that_cannot_be_read_just_now_is_asked_for_again(
    offline: httpx.Client,
    teachers_dir: Path,
    number: int,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scandir = os.scandir

    def refuse(path: str | os.PathLike[str]) -> Any:
        if os.fspath(path) == str(teachers_dir / "tiny" / "unet"):
            raise OSError(number, os.strerror(number), os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for path in ("/jobs", "/estimates"):
        answer = offline.post(path, json={"teacher": "tiny"})
        assert answer.status_code == status
        assert str(teachers_dir) not in problem_of(answer)["detail"]
    assert ("retry-after" in answer.headers) == (status == 503)


def test_an_unknown_field_is_answered_with_the_known_ones(offline: httpx.Client) -> None:
    errors = problem_of(offline.post("/jobs", json={"teacher": "tiny", "method": {"lambda": 5}}))["errors"]
    assert errors == [
        {
            "field": "method.lambda",
            "message": "There is no such field",
            "allowed": [
                "blank_probability",
                "features",
                "noise_matching_steps",
                "output_weight",
                "random_conditioning",
                "task_weight",
            ],
        }
    ]


def test_a_flood_of_errors_is_cut_short(offline: httpx.Client) -> None:
    answer = offline.post("/jobs", json={"teacher": "tiny", "captions": inline(*[" "] * 10_000)})
    assert answer.status_code == 422
    assert len(problem_of(answer)["errors"]) == 20


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed_json"),
        (b'{"teacher": "\xff"}', 400, "bad_request"),
        (b"[" * 100_000, 400, "bad_request"),
        (b'{"seed": 1' + b"0" * 5_000 + b"}", 400, "bad_request"),
        (b"", 422, "invalid_input"),
        (b"null", 422, "invalid_input"),
        (b"[]", 422, "invalid_input"),
    ],
)
def test_what_is_no_json_object_is_refused(
    offline: httpx.Client, body: bytes, status: int, code: str
) -> None:
    answer = offline.post("/jobs", content=body, headers=JSON)
    assert answer.status_code == status
    assert problem_of(answer)["type"] == f"urn:condenser:problem:{code}"


@pytest.mark.parametrize("media_type", [None, "text/plain", "application/x-www-form-urlencoded", "json"])
def test_a_body_that_a_foreign_form_could_send_is_refused(
    offline: httpx.Client, media_type: str | None
) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    answer = offline.post("/jobs", content=b'{"teacher": "tiny"}', headers=headers)
    assert answer.status_code == 415
    problem_of(answer)


def test_a_large_body_is_refused_by_its_announced_length(offline: httpx.Client) -> None:
    answer = offline.post("/jobs", content=b" " * (4 * 2**20 + 1), headers=JSON)
    assert answer.status_code == 413
    assert problem_of(answer)["type"] == "urn:condenser:problem:content_too_large"


def test_a_client_that_asks_first_is_refused_before_it_sends(offline: httpx.Client) -> None:
    request = (
        f"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: {2**30}\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection((offline.base_url.host, offline.base_url.port), timeout=20) as connection:
        connection.sendall(request.encode())
        assert connection.makefile("rb").readline().split()[1] == b"413"


def test_a_large_body_is_refused_while_it_arrives(offline: httpx.Client) -> None:
    chunks = (b" " * 2**16 for _ in range(100))
    answer = offline.post("/jobs", content=chunks, headers=JSON)
    assert answer.status_code == 413
    assert problem_of(answer)["detail"] == "A request body may have at most 4194304 bytes."


def test_a_body_without_end_is_cut_off(offline: httpx.Client) -> None:
    sent = 0

    def chunks() -> Any:
        nonlocal sent
        while True:
            sent += 2**16
            yield b" " * 2**16

    try:
        answer = offline.post("/jobs", content=chunks(), headers=JSON)
    except (httpx.WriteError, httpx.ReadError):
        pass  # the server hung up on a client that was still sending
    else:
        assert answer.status_code == 413
    assert sent < 64 * 2**20


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 256, '""'])
def test_a_malformed_idempotency_key_is_refused(offline: httpx.Client, key: str) -> None:
    headers = httpx.Headers({"Idempotency-Key": key}, encoding="latin-1")
    answer = offline.post("/jobs", json={"teacher": "tiny"}, headers=headers)
    assert answer.status_code == 400
    assert problem_of(answer)["type"] == "urn:condenser:problem:malformed_idempotency_key"


@pytest.mark.parametrize("job_id", ["nothing", "%00", "1", "%2e%2e", "é" * 50])
@pytest.mark.parametrize("part", ["", "/events", "/metrics", "/samples", "/checkpoints", "/logs", "/weights"])
def test_what_is_no_id_is_not_found(offline: httpx.Client, job_id: str, part: str) -> None:
    answer = offline.get(f"/jobs/{job_id}{part}")
    assert answer.status_code == 404
    problem_of(answer)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=lost", "status"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=many", "limit"),
        ("teacher=%00", "teacher"),
    ],
)
def test_a_bad_query_is_named_by_parameter(offline: httpx.Client, query: str, field: str) -> None:
    answer = offline.get(f"/jobs?{query}")
    assert answer.status_code == 422
    assert problem_of(answer)["errors"][0]["field"] == field


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("PUT", "/jobs", 405)])
def test_what_there_is_no_route_for_gets_a_problem(
    offline: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = offline.request(method, path)
    assert answer.status_code == status
    problem_of(answer)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:80"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "rebound.example"}, 421),
        ({"Host": "127.0.0.1.rebound.example"}, 421),
        ({"Host": "[::1"}, 421),
        ({"Host": "localhost", "Origin": "http://localhost"}, 200),
        ({"Host": "localhost", "Origin": "https://elsewhere.example"}, 403),
        ({"Host": "localhost:8000", "Origin": "http://localhost:3000"}, 403),
        ({"Host": "localhost", "Origin": "null"}, 403),
    ],
)
def test_requests_of_foreign_pages_are_refused(
    offline: httpx.Client, headers: dict[str, str], status: int
) -> None:
    answer = offline.get("/healthz", headers=headers)
    assert answer.status_code == status
    if status != 200:
        problem_of(answer)


@pytest.mark.parametrize(
    ("public_hosts", "headers", "status"),
    [
        ("a.example, B.example", {"Host": "b.example:443"}, 200),
        ("a.example", {"Host": "localhost"}, 200),
        ("a.example", {"Host": "c.example"}, 421),
        ("a.example", {"Host": "localhost:8000", "Origin": "https://a.example"}, 200),
        ("a.example", {"Host": "a.example", "Origin": "https://c.example"}, 403),
        ("*", {"Host": "10.0.0.7:8000"}, 200),
        ("*", {"Host": "a.example", "Origin": "https://c.example"}, 403),
    ],
)
def test_public_hosts_are_answered_beside_those_of_loopback(
    offline_settings: Settings, serve: Any, public_hosts: str, headers: dict[str, str], status: int
) -> None:
    settings = Settings.model_validate(offline_settings.model_dump() | {"public_hosts": public_hosts})
    with serve(settings) as client:
        assert client.get("/healthz", headers=headers).status_code == status


def test_caption_files_lie_in_the_captions_folder(
    offline: httpx.Client, offline_settings: Settings, tmp_path: Path
) -> None:
    folder = offline_settings.captions_folder
    folder.mkdir(exist_ok=True)
    (folder / "animals.txt").write_text("cat\ndog\n")
    secret = tmp_path / "secret.txt"
    secret.write_text("password\n")
    (folder / "link.txt").unlink(missing_ok=True)
    (folder / "link.txt").symlink_to(secret)
    for path in (
        "../captions.txt",
        str(secret),
        "link.txt",
        "/etc/passwd",
        "missing.txt",
        ".",
        "x" * 4_000,
        "\x00",
    ):
        spec = {"teacher": "tiny", "captions": {"kind": "file", "path": path}}
        answer = offline.post("/jobs", json=spec)
        assert answer.status_code == 422, path
        assert problem_of(answer)["errors"][0]["field"] == "captions.path"
        assert "password" not in answer.text
    (folder / "animals.json").write_text('["cat", "dog"]')
    spec = {"teacher": "tiny", "captions": {"kind": "file", "path": "animals.json"}}
    (error,) = problem_of(offline.post("/jobs", json=spec))["errors"]
    assert (error["field"], ".jsonl" in error["message"]) == ("captions.path", True)
    # Only the database is missing for a file that may be read.
    spec = {"teacher": "tiny", "captions": {"kind": "file", "path": "animals.txt"}}
    assert offline.post("/jobs", json=spec).status_code == 503


def test_a_dependency_that_is_down_is_not_told_apart_to_clients(offline: httpx.Client) -> None:
    answer = offline.post("/jobs", json={"teacher": "tiny"})
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert "127.0.0.1" not in answer.text
    assert "Postgres" not in answer.text
