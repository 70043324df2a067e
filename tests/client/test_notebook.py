"""A job in a notebook: what it shows, and that showing it cannot fail."""

import html
import io
from pathlib import Path

import pytest
from PIL import Image

from client import AsyncJob, Condenser, DownloadError
from client.models import JobState, StoredFile
from client.notebook import FINAL_GRID, MAX_GRID_BYTES, job_html, newest_grid
from store.endings import Ending
from tests.client.conftest import Worker
from tests.client.network import relay_to
from tests.client.test_jobs import SPEC, progress


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "grid.png"
    Image.new("RGB", (8, 8), "teal").save(file)
    return file


def data_of(markup: str) -> str:
    assert markup.count("data:") == 1
    return markup.partition("data:image/png;base64,")[2].partition('"')[0]


def test_a_job_shows_its_state_and_its_newest_grid(
    condenser: Condenser, worker: Worker, picture: Path, tmp_path: Path
) -> None:
    job = condenser.jobs.create(SPEC)
    assert (job.grid(), "<img" in job._repr_html_()) == (None, False)
    worker.take(job.id)
    worker.report(("phase", {"phase": "training"}), ("progress", progress(10) | {"eta_seconds": 61.0}))
    worker.leave_file(picture, "samples/step-00000010.png", "sample", step=10)
    shown = job.refresh()._repr_html_()
    for words in ("running", "training", "<progress", "1:01", "tiny → b-small", job.id, "<img"):
        assert words in shown
    first = data_of(shown)

    later = tmp_path / "later.png"
    Image.new("RGB", (8, 8), "red").save(later)
    worker.leave_file(later, FINAL_GRID, "student_file")
    worker.succeed({})
    shown = job.refresh()._repr_html_()
    assert data_of(shown) != first
    assert "<progress" not in shown
    assert job.grid() == later.read_bytes()
    assert Image.open(io.BytesIO(job.grid() or b"")).size == (8, 8)


def test_why_a_job_failed_is_shown(condenser: Condenser, worker: Worker) -> None:
    job = condenser.jobs.create(SPEC)
    worker.take(job.id)
    worker.fail(Ending("diverged", "The loss is not finite.", "Lower the rate."))
    shown = job.refresh()._repr_html_()
    assert "The loss is not finite." in shown
    assert "Lower the rate." in shown


def test_nothing_that_the_service_says_becomes_markup(condenser: Condenser) -> None:
    evil = '<script>alert("1")</script>'
    state = condenser.jobs.create(SPEC).state.model_copy(
        update=dict.fromkeys(("id", "status", "phase", "message", "hint", "teacher", "student"), evil)
    )
    shown = job_html(state, b"<svg onload=alert(1)>")
    assert "<script" not in shown
    assert "<svg" not in shown
    assert shown.count(html.escape(evil)) == 7


def test_a_grid_that_cannot_be_had_is_not_shown(
    condenser: Condenser, worker: Worker, picture: Path, api_url: str, api_key: str, tmp_path: Path
) -> None:
    job = condenser.jobs.create(SPEC)
    worker.take(job.id)
    no_picture = tmp_path / "no.png"
    no_picture.write_bytes(b"picture")
    worker.leave_file(no_picture, "samples/step-00000001.png", "sample", step=1)
    assert "<img" not in job._repr_html_()
    worker.leave_file(picture, "samples/step-00000002.png", "sample", step=2)
    with relay_to(api_url) as relay, Condenser(relay.url, api_key) as far:
        known = far.jobs.get(job.id)
        assert "<img" in known._repr_html_()
        relay.close()
        shown = known._repr_html_()
        assert ("running" in shown, "<img" in shown) == (True, False)
    worker.objects.delete_prefix(f"jobs/{job.id}/")
    with pytest.raises(DownloadError):
        job.grid()
    assert "<img" not in job._repr_html_()


def test_the_newest_grid_is_the_exported_students_and_never_too_large(condenser: Condenser) -> None:
    def file(path: str, kind: str, step: int | None, attempt: int = 1, size: int = 1) -> StoredFile:
        return StoredFile(url="", size=size, sha256="", kind=kind, attempt=attempt, step=step, path=path)

    late, later = file("samples/a.png", "sample", 20), file("samples/b.png", "sample", 10, attempt=2)
    final = file(FINAL_GRID, "student_file", None)
    assert newest_grid([late, later]) == later
    assert newest_grid([final, late, later]) == final
    assert newest_grid([file("samples/c.png", "sample", 1, size=MAX_GRID_BYTES + 1)]) is None
    assert newest_grid([file("log.txt", "log", None)]) is None


def test_an_asynchronous_job_shows_all_but_the_grid(condenser: Condenser) -> None:
    state: JobState = condenser.jobs.create(SPEC).state
    assert AsyncJob(condenser._service._transport, state)._repr_html_() == job_html(state)
