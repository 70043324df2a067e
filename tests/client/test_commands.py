"""The ``condenser`` command as people and scripts run it, against the real API."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from client import Condenser
from store.database import server_now, transaction
from store.endings import Ending, ending_of
from store.workers import Announcement, announce
from tests.client.conftest import Worker
from tests.client.network import ANOTHER_SERVICE, REDIRECT, SIGN_IN, answer, relay_to
from tests.client.test_downloads import archive as archive
from tests.client.test_downloads import job as succeeded_job
from tests.client.test_jobs import SPEC, progress

REPOSITORY = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from client.cli import app; app()"]
job = succeeded_job


@pytest.fixture
def environment(api_url: str, api_key: str) -> dict[str, str]:
    named = {"CONDENSER_URL": api_url, "CONDENSER_API_KEY": api_key, "PYTHONPATH": str(REPOSITORY)}
    return {**os.environ, **named}


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Any:
    """Run the command to its end, in a folder of the test's own."""

    def run(*arguments: str, code: int = 0, text: str | None = None) -> "subprocess.CompletedProcess[str]":
        ended = subprocess.run(
            [*COMMAND, *arguments], input=text, capture_output=True, text=True, env=environment, cwd=tmp_path
        )
        assert ended.returncode == code, ended.stderr
        return ended

    return run


def test_submit_from_a_file_with_options_over_it(run: Any, condenser: Condenser, tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(json.dumps(SPEC | {"student": "b-tiny", "seed": 1}))
    (tmp_path / "captions.txt").write_text("one\n\ntwo \nthree\n")
    ended = run(
        *("submit", "spec.json", "--student", "0.5", "--captions", "captions.txt", "--drawn", "2"),
        *("--steps", "7", "--set", "training.ema_decay=0.5", "--set", "evaluation.sampler=ddim"),
    )
    spec = condenser.jobs.get(ended.stdout.strip()).state.spec
    assert spec["student"]["width"] == 0.5
    assert spec["captions"]["texts"] == ["one", "two", "three"]
    assert spec["drawn"]["count"] == 2
    assert (spec["training"]["steps"], spec["training"]["ema_decay"]) == (7, 0.5)
    assert (spec["evaluation"]["sampler"], spec["seed"]) == ("ddim", 1)


def test_submit_from_standard_input(run: Any) -> None:
    assert json.loads(run("submit", "-", "--json", text=json.dumps(SPEC)).stdout)["status"] == "queued"


def test_a_refused_submission_names_field_and_choice(run: Any) -> None:
    refused = run("submit", "--teacher", "nobody", code=1)
    assert refused.stdout == ""
    assert "teacher: There is no teacher of that id. (allowed: tiny)" in refused.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("submit", "--teacher", "tiny", "--learning-rate", "nan"),
        ("submit", "--teacher", "tiny", "--set", "training.ema_decay=Infinity"),
        ("show", "\udcff"),
    ],
)
def test_what_cannot_be_sent_is_told_in_words(command: tuple[str, ...], run: Any) -> None:
    refused = run(*command, code=1)
    assert "what was given cannot be sent" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_list_and_show(run: Any, condenser: Condenser) -> None:
    job = condenser.jobs.create(SPEC)
    assert run("list").stdout.split("\t")[:2] == [job.id, "queued"]
    assert [known["id"] for known in json.loads(run("list", "--json").stdout)] == [job.id]
    assert json.loads(run("show", job.id, "--json").stdout)["spec"]["teacher"] == "tiny"
    assert "queued" in run("show", job.id).stdout
    assert "Not found" in run("show", "nothing", code=1).stderr


def test_cancel(run: Any, condenser: Condenser) -> None:
    job = condenser.jobs.create(SPEC)
    assert run("cancel", job.id).stdout == "cancelled\n"
    assert "already" in run("cancel", job.id, code=1).stderr


def test_pause_resume_retry_clone_and_delete(run: Any, condenser: Condenser, worker: Worker) -> None:
    job_id = run(
        "submit", "-", "--priority", "2", "--max-runtime", "60", text=json.dumps(SPEC)
    ).stdout.strip()
    assert run("pause", job_id).stdout == "paused\n"
    assert run("resume", job_id).stdout == "queued\n"
    worker.take(job_id)
    assert "yet to begin" in run("save-now", job_id, code=1).stderr
    worker.report(("phase", {"phase": "training"}))
    assert run("save-now", job_id).stdout == "running, and asked to save a checkpoint\n"
    assert json.loads(run("sample-now", job_id, "--json").stdout)["sample_requested"] is True
    assert run("pause", job_id).stdout.startswith("running, and asked to stop")
    worker.fail(ending_of("out_of_memory"))
    assert run("retry", "--from-scratch", job_id).stdout == "queued\n"
    clone = condenser.jobs.get(run("clone", job_id, "--set", "training.steps=3").stdout.strip())
    assert (clone.state.spec["training"]["steps"], clone.state.priority) == (3, 2)
    assert json.loads(run("delete", job_id, "--json").stdout) == {"id": job_id, "deleted": True}
    assert "Not found" in run("show", job_id, code=1).stderr


def test_teachers(run: Any) -> None:
    assert run("teachers").stdout.startswith("tiny\tsd1\t0.0M\tnot stated\tb-base ")
    assert json.loads(run("teachers", "--json").stdout)[0]["id"] == "tiny"


def test_workers(run: Any, engine: Any) -> None:
    assert run("workers").stdout == ""
    told = Announcement("gpu-07:9", "training", "gpu-07", "gpu", "0.1.0", "NVIDIA H100", 2, 80_000_000_000)
    with transaction(engine) as session:
        now = server_now(session)
        announce(session, told, started_at=now, now=now)
    assert run("workers").stdout.startswith("gpu-07:9\tidle\t\tNVIDIA H100\t2\t80,000.0 MB\tgpu\t0.1.0\t")
    assert json.loads(run("workers", "--json").stdout)[0]["state"] == "idle"


def test_an_estimate_submits_nothing(run: Any, condenser: Condenser) -> None:
    told = dict(
        line.split("\t")
        for line in run("submit", "-", "--estimate", text=json.dumps(SPEC)).stdout.splitlines()
    )
    assert told["student"] == "b-small"
    assert told["teacher pictures"] == "2"
    assert told["time"].startswith("not known")
    in_full = json.loads(run("submit", "-", "--estimate", "--json", text=json.dumps(SPEC)).stdout)
    assert in_full["student_parameters"] < in_full["teacher_parameters"]
    assert condenser.jobs.list() == []
    assert (
        "training.steps"
        in run("submit", "-", "--estimate", "--steps", "0", text=json.dumps(SPEC), code=1).stderr
    )


def test_compare(run: Any, condenser: Condenser, worker: Worker) -> None:
    assert run("compare", "tiny").stdout == ""
    submitted = condenser.jobs.create(SPEC)
    worker.take(submitted.id)
    worker.succeed(
        {
            "teacher": {"parameters": 20_000_000, "gmacs": 2.0, "milliseconds_per_picture": 500.0},
            "student": {"parameters": 5_000_000, "gmacs": 0.5, "milliseconds_per_picture": 250.0},
        }
    )
    student, teacher = (line.split("\t") for line in run("compare", "tiny").stdout.splitlines())
    assert student == ["b-small", submitted.id, "5.0M", "0.5", "0.25", "", ""]
    assert teacher == ["tiny", submitted.id, "20.0M", "2", "0.5", "", ""]
    assert "allowed: tiny" in run("compare", "nobody", code=1).stderr


def test_watch_tells_the_figures_and_the_end(run: Any, condenser: Condenser, worker: Worker) -> None:
    job = condenser.jobs.create(SPEC)
    worker.take(job.id)
    worker.report(
        ("phase", {"phase": "training"}),
        ("metrics", {"step": 1, "values": {"loss": 0.25, "samples_per_second": 12.0}}),
        ("progress", progress(10) | {"eta_seconds": 61.0}),
    )
    worker.succeed({})
    told = run("watch", job.id).stderr
    assert "training  10/20 steps  loss 0.25  12 samples/s  ETA 1:01" in told
    assert "succeeded" in told


def test_watch_of_a_failed_job_fails_with_the_hint(run: Any, condenser: Condenser, worker: Worker) -> None:
    job = condenser.jobs.create(SPEC)
    worker.take(job.id)
    worker.fail(Ending("diverged", "The loss is not finite.", "Lower the rate."))
    events = [json.loads(line) for line in run("watch", "--json", job.id, code=1).stdout.splitlines()]
    assert [event["data"]["status"] for event in events] == ["queued", "running", "failed"]
    assert "Lower the rate." in run("watch", job.id, code=1).stderr


def test_ctrl_c_ends_the_watching_and_not_the_job(
    environment: dict[str, str], condenser: Condenser, worker: Worker
) -> None:
    job = condenser.jobs.create(SPEC)
    worker.take(job.id)
    watching = subprocess.Popen(
        [*COMMAND, "watch", job.id], stderr=subprocess.PIPE, text=True, env=environment, cwd=REPOSITORY
    )
    assert watching.stderr is not None
    assert watching.stderr.readline() == "queued\n"
    watching.send_signal(signal.SIGINT)
    _, told = watching.communicate()
    assert watching.returncode == 130
    assert "the job goes on" in told
    assert condenser.jobs.get(job.id).status == "running"


def test_download(run: Any, job: Any, tmp_path: Path) -> None:
    folder = json.loads(run("download", job.id, "--json").stdout)["path"]
    assert Path(folder) == tmp_path / f"student-{job.id}"
    assert (Path(folder) / "manifest.json").is_file()


def test_a_place_that_cannot_be_written_to_is_told_in_words(run: Any, job: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = run("download", job.id, "file/of/student", code=1).stderr
    assert "Not a directory" in told
    assert "Traceback" not in told


def test_without_a_service_the_command_says_how_to_get_one(tmp_path: Path) -> None:
    without = {name: value for name, value in os.environ.items() if name != "CONDENSER_URL"}
    ended = subprocess.run(
        [*COMMAND, "list"],
        capture_output=True,
        text=True,
        env=without | {"PYTHONPATH": str(REPOSITORY)},
        cwd=tmp_path,
    )
    assert ended.returncode == 1
    assert "condenser up" in ended.stderr


@pytest.mark.parametrize(
    ("strange", "words"),
    [
        (SIGN_IN, "200 OK, text/html"),
        (ANOTHER_SERVICE, "200 OK, application/json"),
        (REDIRECT, "302 Found, text/html, which leads to https://sso.example/in"),
        (answer("404 Not Found", "<html>"), "see whether it runs there"),
    ],
)
def test_another_server_at_the_address_is_told_in_words(
    run: Any, api_url: str, strange: bytes, words: str
) -> None:
    with relay_to(api_url) as relay:
        relay.answers = [strange]
        told = run("--url", relay.url, "list", code=1).stderr
    assert f"{relay.url}/jobs" in told
    assert words in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    "address", ["http://[::1", "127.0.0.1:8000", "http://", "ftp://a", "http://a:b", "http://a:99999"]
)
def test_an_address_that_is_none_is_told_in_words(address: str, run: Any) -> None:
    told = run("--url", address, "list", code=1).stderr
    assert told.startswith(f"condenser: {address!r} is not the address of a service")
    assert "--url" in told
    assert "Traceback" not in told


def test_the_command_starts_without_torch() -> None:
    script = "import sys, client.cli; sys.exit('torch' in sys.modules or 'psycopg' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=REPOSITORY)
