"""The asynchronous client against the real API; what both clients do alike is tested by the other's tests."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import client
from client import AsyncCondenser, Condenser, ConflictError, JobFailedError, WaitTimeoutError
from client.asynchronous.condenser import AsyncTeachers, AsyncWorkers
from client.condenser import Teachers, Workers
from client.jobs import Job
from store.endings import Ending
from tests.client.conftest import Worker
from tests.client.network import relay_to
from tests.client.test_downloads import WEIGHTS
from tests.client.test_downloads import archive as archive
from tests.client.test_downloads import job as job
from tests.client.test_generations import Painter
from tests.client.test_generations import job_id as job_id
from tests.client.test_generations import painter as painter
from tests.client.test_jobs import SPEC, progress

Scene = Callable[[AsyncCondenser], Coroutine[Any, Any, None]]
TWINS = [
    (client.Condenser, client.AsyncCondenser),
    (client.Jobs, client.AsyncJobs),
    (client.Job, client.AsyncJob),
    (client.Generation, client.AsyncGeneration),
    (client.Captions, client.AsyncCaptions),
    (client.Keys, client.AsyncKeys),
    (Teachers, AsyncTeachers),
    (Workers, AsyncWorkers),
]


@pytest.fixture
def play(api_url: str, api_key: str) -> Callable[[Scene], None]:
    """Run a scene with a client of the API of this test."""

    def play(scene: Scene) -> None:
        async def played() -> None:
            async with AsyncCondenser(api_url, api_key) as condenser:
                await scene(condenser)

        asyncio.run(played())

    return play


@pytest.mark.parametrize(("blocking", "asynchronous"), TWINS)
def test_both_clients_have_the_same_calls(blocking: type, asynchronous: type) -> None:
    def calls(of: type) -> dict[str, list[tuple[str, Any]]]:
        found = inspect.getmembers(of, lambda member: callable(member) or isinstance(member, property))
        public = {name: member for name, member in found if not name.startswith("_")}
        return {
            name: [(each.name, each.default) for each in inspect.signature(member).parameters.values()]
            if callable(member)
            else []
            for name, member in public.items()
        }

    assert calls(blocking) == calls(asynchronous)


def test_a_job_is_submitted_watched_and_waited_for(play: Callable[[Scene], None], worker: Worker) -> None:
    async def scene(condenser: AsyncCondenser) -> None:
        job = await condenser.jobs.create(SPEC)
        seen: list[str] = []

        waits = asyncio.Event()

        async def note(changed: client.AsyncJob) -> None:
            seen.append(changed.status)
            waits.set()

        async def work() -> None:
            await waits.wait()
            await asyncio.to_thread(worker.take, job.id)
            await asyncio.to_thread(worker.report, ("progress", progress(10)))
            await asyncio.to_thread(worker.succeed, {"steps": 3})

        async def watch() -> list[str]:
            return [event.type async for event in job.events()]

        # Each of the three can only go on while the others wait.
        waited, told, _ = await asyncio.gather(job.wait(note), watch(), work())
        assert waited.result == {"steps": 3}
        assert (seen[0], seen[-1]) == ("queued", "succeeded")
        assert told == ["status", "status", "progress", "status"]

    play(scene)


def test_waiting_ends_with_a_typed_error(play: Callable[[Scene], None], worker: Worker) -> None:
    async def scene(condenser: AsyncCondenser) -> None:
        job = await condenser.jobs.create(SPEC)
        with pytest.raises(WaitTimeoutError, match="queued"):
            await job.wait(timeout_seconds=0.1)
        worker.take(job.id)
        worker.fail(Ending("diverged", "The loss is not finite.", "Lower the rate."))
        with pytest.raises(JobFailedError, match="Lower the rate"):
            await job.wait()
        assert (await (await job.retry()).cancel()).status == "cancelled"
        clone = await job.clone({"training": {"steps": 3}})
        assert clone.state.spec["training"]["steps"] == 3
        await clone.cancel()
        with pytest.raises(ConflictError):
            await clone.cancel()
        await clone.delete()
        assert [known.id async for known in condenser.jobs.iterate()] == [job.id]

    play(scene)


def test_a_wait_that_is_cancelled_leaves_the_client_usable(play: Callable[[Scene], None]) -> None:
    async def scene(condenser: AsyncCondenser) -> None:
        job = await condenser.jobs.create(SPEC)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(job.wait(), 0.1)
        assert (await job.cancel()).status == "cancelled"

    play(scene)


def test_lists_are_read_page_by_page_as_they_are_asked_for(
    play: Callable[[Scene], None], condenser: Condenser, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [condenser.jobs.create(SPEC).id for _ in range(5)]
    monkeypatch.setattr("client.transport.PAGE", 2)

    async def scene(condenser: AsyncCondenser) -> None:
        asked: list[str] = []
        read = condenser._transport.read

        async def counted(model: Any, path: str, **options: Any) -> Any:
            asked.append(path)
            return await read(model, path, **options)

        condenser._transport.read = counted  # type: ignore[method-assign]
        jobs = condenser.jobs.iterate()
        assert [(await anext(jobs)).id, (await anext(jobs)).id] == ids[:2:-1]
        assert len(asked) == 1
        assert [job.id async for job in jobs] == ids[2::-1]
        assert len(asked) == 3
        assert [job.id for job in await condenser.jobs.list(limit=3)] == ids[:1:-1]

    play(scene)


def test_a_lost_answer_makes_one_job_and_a_broken_stream_goes_on(
    api_url: str, api_key: str, worker: Worker
) -> None:
    async def scene(url: str, relay: Any) -> None:
        async with AsyncCondenser(url, api_key) as condenser:
            relay.lose_answers = 1
            job = await condenser.jobs.create(SPEC)
            assert [known.id for known in await condenser.jobs.list()] == [job.id]
        worker.take(job.id)
        worker.report(*(("progress", progress(done)) for done in range(20)))
        worker.succeed({})
        async with AsyncCondenser(url, api_key) as condenser:
            relay.cut_after = 1_500
            events = [event.sequence async for event in job_of(condenser, job).events()]
            assert events == list(range(1, 24))

    with relay_to(api_url) as relay:
        asyncio.run(scene(relay.url, relay))
        assert relay.connections == 4


def job_of(condenser: AsyncCondenser, job: client.AsyncJob) -> client.AsyncJob:
    return client.AsyncJob(condenser._transport, job.state)


def test_files_come_and_go(play: Callable[[Scene], None], job: Job, archive: Path, tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("one\ntwo\n")
    arrived: list[tuple[int, int]] = []
    sent: list[tuple[int, int]] = []

    async def note(have: int, size: int) -> None:
        arrived.append((have, size))

    async def scene(condenser: AsyncCondenser) -> None:
        found = await condenser.jobs.get(job.id)
        folder = await found.download(tmp_path / "student", note)
        assert (folder / "unet" / "weights.safetensors").read_bytes() == WEIGHTS
        assert arrived[-1] == (archive.stat().st_size, archive.stat().st_size)
        file = await found.download_weights(tmp_path / "student.zip", "archive")
        assert file.read_bytes() == archive.read_bytes()
        captions = await condenser.captions.upload(
            tmp_path / "captions.txt", on_progress=lambda *news: sent.append(news)
        )
        assert sent == [(8, 8)]
        assert await condenser.captions.list() == [await condenser.captions.get(captions.id)]
        await condenser.captions.delete(captions.id)

    play(scene)


def test_what_else_can_be_asked(play: Callable[[Scene], None]) -> None:
    async def scene(condenser: AsyncCondenser) -> None:
        teachers, workers, estimate, students = await asyncio.gather(
            condenser.teachers.list(),
            condenser.workers.list(),
            condenser.estimate(SPEC),
            condenser.compare("tiny"),
        )
        assert [teacher.id for teacher in teachers] == ["tiny"]
        assert (workers, students, estimate.drawn_pictures) == ([], [], 2)
        made = await condenser.keys.create("nightly", ["read"])
        await condenser.keys.revoke(made.id)
        assert [key.name for key in await condenser.keys.list()] == ["nightly", "test"]

    play(scene)


def test_pictures_are_waited_for_and_saved(
    play: Callable[[Scene], None], painter: Painter, job_id: str, tmp_path: Path
) -> None:
    async def scene(condenser: AsyncCondenser) -> None:
        drawn = await condenser.generate(job_id, "cat", seed=3, steps=9)
        paths = [await drawn.save(position, tmp_path / f"{position}.png") for position in (0, 1)]
        assert paths[1].read_text() == "cat by student from 3, 9 steps"
        await drawn.delete()

    painter.thread.start()
    play(scene)


def test_the_client_that_blocks_does_so_within_a_running_loop_too(condenser: Condenser) -> None:
    async def notebook() -> list[str]:
        job = condenser.jobs.create(SPEC).cancel()
        first = partial(next, job.events())
        return [first().type, *(event.type for event in job.events())]

    assert asyncio.run(notebook()) == ["status"] * 3
