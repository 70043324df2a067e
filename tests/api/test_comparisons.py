"""Comparisons over HTTP: the results of one teacher's jobs in one shape."""

from typing import Any

import httpx
from sqlalchemy import Engine

from store.database import server_now, transaction
from store.jobs import finish_succeeded

COSTS = {"parameters": 100, "gmacs": 2.0, "milliseconds_per_picture": 500.0}
SCORES = {
    "pictures": 16,
    "teacher": {"frechet_distance": 0.1},
    "student": {"frechet_distance": 0.3},
    "intervals": {"teacher": {}, "student": {"frechet_distance": [0.2, 0.4]}},
    "unet_calls": {"teacher": 40, "student": 40},
}


def succeed(engine: Engine, jobs: Any, result: dict[str, Any], **spec: Any) -> str:
    job_id: str = jobs.submit(**spec)
    claim = jobs.claim(job_id)
    with transaction(engine) as session:
        finish_succeeded(
            session,
            job_id=job_id,
            lease_token=claim.lease_token,
            result=result,
            now=server_now(session),
        )
    return job_id


def test_students_are_compared_with_their_teacher(http: httpx.Client, engine: Engine, jobs: Any) -> None:
    result = {
        "teacher": COSTS,
        "student": COSTS | {"name": "c-tiny", "parameters": 40},
        "drawn": SCORES,
    }
    job_id = succeed(engine, jobs, result, student={"max_params": 50}, training={"steps": 7, "batch_size": 3})
    comparison = http.get("/compare", params={"teacher": "tiny"}).raise_for_status().json()
    (student,) = comparison["students"]
    assert (student["job_id"], student["name"], student["pictures"]) == (job_id, "c-tiny", 16)
    assert (student["training_steps"], student["batch_size"], student["sampler_steps"]) == (7, 3, 20)
    assert student["student"] == {
        "parameters": 40,
        "gmacs": 2.0,
        "seconds_per_picture": 0.5,
        "scores": {"drawn": {"frechet_distance": 0.3}},
        "intervals": {"drawn": {"frechet_distance": [0.2, 0.4]}},
    }
    assert student["teacher"]["scores"] == {"drawn": {"frechet_distance": 0.1}}


def test_only_students_that_are_there_are_compared_the_newest_first(
    http: httpx.Client, engine: Engine, jobs: Any
) -> None:
    jobs.submit()
    succeed(engine, jobs, {"student": COSTS, "teacher": COSTS}, teacher="another")
    ids = [succeed(engine, jobs, {"student": COSTS, "teacher": COSTS}) for _ in range(3)]
    first = http.get("/compare", params={"teacher": "tiny", "limit": 2}).json()
    assert [each["job_id"] for each in first["students"]] == ids[:0:-1]
    assert first["has_more"] is True
    rest = http.get("/compare", params={"teacher": "tiny", "after": first["next"]}).json()
    assert [each["job_id"] for each in rest["students"]] == ids[:1]
    assert http.get("/compare", params={"teacher": "another"}).json()["students"]  # though it is gone


def test_without_students_the_teacher_must_be_known(http: httpx.Client) -> None:
    assert http.get("/compare", params={"teacher": "tiny"}).json()["students"] == []
    refused = http.get("/compare", params={"teacher": "nobody"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0] == {
        "field": "teacher",
        "message": "There is no teacher of that id.",
        "allowed": ["emoji-64", "tiny"],
    }
