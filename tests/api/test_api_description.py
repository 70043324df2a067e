"""The OpenAPI document says everything that the service does."""

import json
import re
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from api.jobs.requests import Submission


@pytest.fixture(scope="module")
def document(offline: httpx.Client) -> dict[str, Any]:
    answer: dict[str, Any] = offline.get("/openapi.json").json()
    return answer


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]


def test_operations_have_short_names_a_tag_and_words(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations(document)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)+", name) for name in names)
    known = {tag["name"] for tag in document["tags"]}
    for operation in operations(document):
        assert set(operation["tags"]) <= known
        assert operation["summary"]
        assert operation["description"]


def test_every_error_is_declared_as_a_problem(document: dict[str, Any]) -> None:
    for operation in operations(document):
        errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert {"403", "421", "500"} <= errors.keys()
        for answer in errors.values():
            assert list(answer["content"]) == ["application/problem+json"]
    create = document["paths"]["/jobs"]["post"]["responses"]
    assert {"201", "400", "409", "413", "415", "422", "503"} <= create.keys()
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = set(re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references
    assert references <= document["components"]["schemas"].keys()


def test_the_examples_are_valid(document: dict[str, Any]) -> None:
    body = document["paths"]["/jobs"]["post"]["requestBody"]["content"]["application/json"]
    assert body["examples"]
    for entry in body["examples"].values():
        TypeAdapter(Submission).validate_python(entry["value"])
    clone = document["paths"]["/jobs/{job_id}/clone"]["post"]["requestBody"]["content"]["application/json"]
    for entry in clone["examples"].values():
        TypeAdapter(Submission).validate_python({"teacher": "emoji-64"} | entry["value"])
    for name in ("Problem", "JobSummary", "Job", "JobEvent", "Teacher", "CaptionFile", "Generation"):
        assert document["components"]["schemas"][name]["examples"], name
