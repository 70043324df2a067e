"""Pictures through the client and the command, from the real API, drawn by who stands in for the worker."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from client import Condenser, ConflictError, GenerationFailedError, WaitTimeoutError
from store import generations
from store.database import server_now, transaction
from store.generation_endings import generation_ending
from store.objects import ObjectStore
from store.unclaimed import announce
from tests.client.conftest import Worker
from tests.client.test_commands import environment as environment
from tests.client.test_commands import run as run
from tests.client.test_jobs import SPEC


class Painter:
    """Does what an interactive worker does, with pictures of its own."""

    def __init__(self, engine: Engine, objects: ObjectStore, folder: Path) -> None:
        self.engine = engine
        self.objects = objects
        self.folder = folder
        self.failing = False
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.paint)

    def paint(self) -> None:
        while not self.over.wait(0.1):
            self.paint_next()

    def paint_next(self) -> None:
        with transaction(self.engine) as session:
            claim = generations.claim_next_generation(
                session, worker="w", now=server_now(session), lease_seconds=60
            )
        if claim is not None:
            self.draw(claim)

    def draw(self, claim: generations.GenerationClaim) -> None:
        lease: dict[str, Any] = {"generation_id": claim.generation_id, "lease_token": claim.lease_token}
        for position, drawing in enumerate(claim.drawings):
            file = self.folder / "picture.png"
            file.write_text(
                f"{claim.prompt} by {drawing['model']} from {claim.seed}, {drawing['steps']} steps"
            )
            key = generations.picture_key(claim.generation_id, claim.lease_token, position)
            with transaction(self.engine) as session:
                announce(session, key, now=server_now(session))
            stored = self.objects.upload_file(file, key)
            picture = generations.Picture(
                key=key,
                size=stored.size,
                sha256=stored.sha256,
                width=1,
                height=1,
                seconds=0.5,
                load_seconds=0.0,
            )
            with transaction(self.engine) as session:
                generations.add_picture(session, **lease, position=position, picture=picture)
        with transaction(self.engine) as session:
            now = server_now(session)
            if self.failing:
                generations.fail_generation(
                    session, **lease, ending=generation_ending("out_of_memory"), now=now
                )
            else:
                generations.finish_generation(session, **lease, now=now)


@pytest.fixture
def painter(engine: Engine, object_store: ObjectStore, tmp_path: Path) -> Iterator[Painter]:
    (tmp_path / "studio").mkdir()
    painter = Painter(engine, object_store, tmp_path / "studio")
    yield painter
    painter.over.set()
    if painter.thread.is_alive():
        painter.thread.join()


@pytest.fixture
def job_id(condenser: Condenser, worker: Worker, tmp_path: Path) -> str:
    """A job that has succeeded and left a student."""
    job = condenser.jobs.create(SPEC)
    worker.take(job.id)
    archive = tmp_path / "student.zip"
    archive.write_bytes(b"a student")
    worker.leave_student(archive)
    worker.succeed({})
    return job.id


def test_pictures_are_waited_for_and_saved(
    condenser: Condenser, painter: Painter, job_id: str, run: Any, tmp_path: Path
) -> None:
    with pytest.raises(WaitTimeoutError, match="No interactive worker"):
        condenser.generate(job_id, "cat", timeout_seconds=0.1)
    painter.thread.start()
    drawn = condenser.generate(job_id, "cat", seed=3, steps=9)
    assert [(each.model, each.steps, each.seconds) for each in drawn.pictures] == [
        ("teacher", 9, 0.5),
        ("student", 9, 0.5),
    ]
    saved = drawn.save(1, tmp_path / "student.png")
    assert saved.read_text() == "cat by student from 3, 9 steps"
    with pytest.raises(ConflictError):
        drawn.cancel()
    drawn.delete()

    options = ("--seed", "4", "--steps", "8", "--out", "apple.png")
    told = run("generate", job_id, "red apple", *options, "--json").stdout
    assert [each["model"] for each in json.loads(told)["pictures"]] == ["teacher", "student"]
    assert (tmp_path / "apple-teacher.png").read_text() == "red apple by teacher from 4, 8 steps"
    assert (tmp_path / "apple-student.png").read_text() == "red apple by student from 4, 8 steps"
    line = run("generate", job_id, "pear", "--only", "student", *options).stdout
    student = condenser.jobs.get(job_id).state.student
    assert line == f"student\t{student}\t0.50\t{tmp_path / 'apple.png'}\n"
    assert (tmp_path / "apple.png").read_text() == "pear by student from 4, 8 steps"

    painter.failing = True
    with pytest.raises(GenerationFailedError, match="memory of the worker is used up") as failed:
        condenser.generate(job_id, "cat")
    assert failed.value.generation.reason == "out_of_memory"


def test_what_is_drawn_as_the_time_is_over_is_not_thrown_away(
    condenser: Condenser, painter: Painter, job_id: str
) -> None:
    late = condenser.generate(job_id, "cat", wait=False)
    assert late.wait(lambda _: painter.paint_next(), timeout_seconds=0).state.status == "succeeded"
    painter.failing = True
    failed = condenser.generate(job_id, "cat", wait=False)
    with pytest.raises(GenerationFailedError, match="memory of the worker is used up"):
        failed.wait(lambda _: painter.paint_next(), timeout_seconds=0)
