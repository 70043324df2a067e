"""Estimates over HTTP: counted at once, timed by what an earlier job took."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from store.objects import ObjectStore
from store.settings import Settings
from tests.conftest import PIPELINE_INDEX

SPEC: dict[str, Any] = {
    "teacher": "tiny",
    "captions": {"kind": "inline", "texts": ["cat", "dog", "fish"]},
    "drawn": {"count": 2},
    "training": {"steps": 100, "batch_size": 8},
}


def test_an_estimate_is_counted_and_nothing_is_submitted(http: httpx.Client) -> None:
    estimate = http.post("/estimates", json=SPEC).raise_for_status().json()
    assert estimate["student"] == "b-small"
    assert 0 < estimate["student_parameters"] < estimate["teacher_parameters"]
    assert estimate["drawn_pictures"] == 2
    assert (estimate["seconds"], estimate["total_seconds"], estimate["measured_on"]) == (None, None, None)
    longer = http.post("/estimates", json=SPEC | {"training": {"steps": 200, "batch_size": 8}}).json()
    assert longer["flops"]["training"] == pytest.approx(2 * estimate["flops"]["training"])
    assert http.get("/jobs").json()["items"] == []


def test_a_budget_tells_which_student_it_chooses(http: httpx.Client) -> None:
    whole = http.post("/estimates", json=SPEC).json()["teacher_parameters"]
    chosen = http.post("/estimates", json=SPEC | {"student": {"max_params": whole // 2}}).json()
    assert chosen["student"] in {"b-tiny", "c-tiny", "c-micro", "width-0.5", "width-0.75"}
    assert chosen["student_parameters"] <= whole // 2


def test_times_are_reckoned_from_a_job_that_has_run_through(http: httpx.Client, jobs: Any) -> None:
    job_id = jobs.run_through(**SPEC)
    same = http.post("/estimates", json=SPEC).raise_for_status().json()
    assert same["measured_on"]["job_id"] == job_id
    assert same["seconds"].keys() == {"latents", "training", "evaluation"}
    assert same["total_seconds"] == pytest.approx(sum(same["seconds"].values()))
    longer = http.post("/estimates", json=SPEC | {"training": {"steps": 300, "batch_size": 8}}).json()
    assert longer["seconds"]["training"] == pytest.approx(3 * same["seconds"]["training"])
    assert longer["seconds"]["evaluation"] == pytest.approx(same["seconds"]["evaluation"])
    transfer = SPEC | {"few_step": {"training_steps": 10}}
    assert http.post("/estimates", json=transfer).json()["seconds"]["few_step"] > 0


def test_a_job_says_how_far_its_estimate_was_off(http: httpx.Client, jobs: Any) -> None:
    first = jobs.run_through(**SPEC)
    alone = http.get(f"/jobs/{first}/estimate").raise_for_status().json()
    assert (alone["seconds"], alone["error"], alone["measured_on"]) == (None, None, None)
    assert alone["taken_seconds"].keys() == {"captions", "latents", "training", "evaluation", "export"}

    waiting = jobs.submit(**SPEC | {"training": {"steps": 200, "batch_size": 8}})
    jobs.submit(**SPEC)
    jobs.run_through(**SPEC)  # after the others were submitted, so it tells nothing about them
    estimate = http.get(f"/jobs/{waiting}/estimate").raise_for_status().json()
    assert estimate["measured_on"]["job_id"] == first
    assert estimate["seconds"]["training"] == pytest.approx(2 * alone["taken_seconds"]["training"])
    assert (estimate["taken_seconds"], estimate["error"], estimate["total_error"]) == ({}, None, None)

    done = jobs.run_through(**SPEC)
    estimate = http.get(f"/jobs/{done}/estimate").raise_for_status().json()
    assert estimate["measured_on"]["job_id"] not in {first, done}
    taken, phases = estimate["taken_seconds"], {"latents", "training", "evaluation"}
    assert estimate["error"] == {
        phase: pytest.approx(estimate["seconds"][phase] / taken[phase] - 1) for phase in phases
    }
    assert estimate["total_taken_seconds"] == pytest.approx(sum(taken[phase] for phase in phases))
    expected = estimate["total_seconds"] / estimate["total_taken_seconds"] - 1
    assert estimate["total_error"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"teacher": "nobody"}, "no teacher 'nobody'"),
        ({"student": {"max_params": 5}}, "no student of this teacher keeps within 5"),
    ],
    ids=["gone", "another one by now"],
)
def test_a_job_whose_teacher_is_not_here_has_no_estimate(
    http: httpx.Client, jobs: Any, change: dict[str, Any], reason: str
) -> None:
    job_id = jobs.run_through(**SPEC | change)
    answer = http.get(f"/jobs/{job_id}/estimate")
    assert answer.status_code == 404
    assert reason in answer.json()["detail"]


def test_a_job_of_another_class_of_machine_tells_no_time(
    http: httpx.Client, jobs: Any, api_settings: Settings, serve: Callable[..., Any]
) -> None:
    jobs.run_through(**SPEC)  # on the queue "cpu"
    with serve(api_settings.model_copy(update={"worker_queue": "h100"})) as other:
        assert other.post("/estimates", json=SPEC).json()["measured_on"] is None


def test_of_a_teacher_in_an_object_store_it_is_said_that_there_is_no_estimate(
    api_settings: Settings,
    object_store: ObjectStore,
    teachers_dir: Path,
    tmp_path: Path,
    serve: Callable[..., Any],
) -> None:
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps(PIPELINE_INDEX))
    for file in (index, *(teachers_dir / "tiny" / "unet").iterdir()):
        folder = "" if file is index else "unet/"
        object_store.upload_file(file, f"models/tiny/{folder}{file.name}")
    prefix = f"s3://{api_settings.s3_bucket}/models"
    with serve(api_settings.model_copy(update={"s3_teacher_prefixes": [prefix]})) as http:
        spec = SPEC | {"teacher": f"{prefix}/tiny"}
        refused = http.post("/estimates", json=spec)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "teacher")
        assert "There is no estimate" in refused.json()["detail"]
        assert http.post("/jobs", json=spec).status_code == 201
    away = api_settings.model_copy(
        update={"s3_endpoint_url": "http://127.0.0.1:1", "s3_teacher_prefixes": [prefix]}
    )
    with serve(away) as http:
        again = http.post("/estimates", json=spec)
        assert again.json()["errors"] == refused.json()["errors"], "the object store is not even asked"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"training": {"steps": 0}}, "training.steps"),
        ({"teacher": "nobody"}, "teacher"),
        ({"student": {"width": 0.123}}, "student.width"),
        ({"student": {"max_params": 5}}, "student.max_params"),
        ({"drawn": {"count": 4}}, "drawn.count"),
    ],
)
def test_what_would_be_refused_is_refused(offline: httpx.Client, change: dict[str, Any], field: str) -> None:
    answer = offline.post("/estimates", json=SPEC | change)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


def test_a_job_is_put_into_the_least_class_that_holds_it_or_refused(
    api_settings: Settings, serve: Callable[..., Any], http: httpx.Client
) -> None:
    needed = http.post("/estimates", json=SPEC).json()["training_memory_bytes"]
    one = needed / 2**30

    def queue_of(*sizes: float) -> str | None:
        classes = [f"{name}={size}" for name, size in zip(("small", "great"), sizes, strict=True)]
        with serve(api_settings.model_copy(update={"accelerator_classes": classes})) as http:
            for path in ("/estimates", "/jobs"):
                answer = http.post(path, json=SPEC)
                if answer.status_code == 422:
                    assert "GiB at its peak" in answer.json()["errors"][0]["message"]
            return None if answer.status_code == 422 else answer.raise_for_status().json()["queue"]

    assert [queue_of(one * 1.01, 80), queue_of(one / 2, 80), queue_of(one / 4, one / 2)] == [
        "small",
        "great",
        None,
    ]
