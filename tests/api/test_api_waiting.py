"""Long polls and event streams: they wake when a job changes, and cost nothing while it does not."""

import asyncio
import itertools
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from api.jobs.watch import JobWatch
from store.events import NewEvent
from store.settings import Settings

SSE = {"Accept": "text/event-stream"}


def progress(done: int) -> NewEvent:
    return NewEvent("progress", {"phase": "training", "done": done, "total": 10, "unit": "steps"})


@contextmanager
def in_background(call: Callable[[], Any]) -> Iterator[list[Any]]:
    """Run a call in a thread; its result is in the list once the block has been left."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    yield results
    thread.join(20)
    assert results, "the call did not return"


def events_of(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Parse a stream; comments and the retry field are left out."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":") or line.startswith("retry:"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            event = json.loads(fields["data"])
            assert fields["id"] == str(event["sequence"])
            assert fields["event"] == event["type"]
            yield event
            fields = {}


def test_a_poll_returns_as_soon_as_the_job_changes(http: httpx.Client, jobs: Any) -> None:
    claim = jobs.claim(jobs.submit())
    began = time.monotonic()
    with in_background(lambda: http.get(f"/jobs/{claim.job_id}", params={"wait": 15})) as answers:
        for position in itertools.count(1):
            jobs.report(claim, [progress(1)], position=position)
            if answers:
                break
    assert time.monotonic() - began < 10
    assert answers[0].json()["phase"] == "training"


def test_a_poll_from_a_known_version_misses_no_change(http: httpx.Client, jobs: Any) -> None:
    job_id = jobs.submit()
    etag = http.get(f"/jobs/{job_id}").headers["etag"]
    waiting: dict[str, Any] = {"params": {"wait": 15}, "headers": {"If-None-Match": etag}}
    with in_background(lambda: http.get(f"/jobs/{job_id}", **waiting)) as answers:
        jobs.claim(job_id)
    assert answers[0].json()["status"] == "running"
    assert answers[0].headers["etag"] != etag
    # The change lies in the past now: the same poll is answered at once.
    assert http.get(f"/jobs/{job_id}", **waiting).json()["status"] == "running"


def test_a_poll_whose_time_is_over_says_not_modified(http: httpx.Client, jobs: Any) -> None:
    job_id = jobs.submit()
    etag = http.get(f"/jobs/{job_id}").headers["etag"]
    answer = http.get(f"/jobs/{job_id}", params={"wait": 0.2}, headers={"If-None-Match": etag})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert http.get(f"/jobs/{job_id}", params={"wait": 0.2}).json()["status"] == "queued"


def test_a_poll_for_a_job_that_has_ended_returns_at_once(http: httpx.Client, jobs: Any) -> None:
    job_id = jobs.submit()
    http.post(f"/jobs/{job_id}/cancel")
    began = time.monotonic()
    etag = http.get(f"/jobs/{job_id}", params={"wait": 60}).headers["etag"]
    again = http.get(f"/jobs/{job_id}", params={"wait": 60}, headers={"If-None-Match": etag})
    assert again.status_code == 304
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("wait", ["-1", "61", "nan", "inf", "soon"])
def test_a_wait_that_is_no_time_is_refused(offline: httpx.Client, wait: str) -> None:
    answer = offline.get(f"/jobs/019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa?wait={wait}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "wait"


def test_a_stream_follows_a_job_to_its_end(http: httpx.Client, jobs: Any) -> None:
    job_id = jobs.submit()
    with http.stream("GET", f"/jobs/{job_id}/events", headers=SSE) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        events = events_of(stream.iter_lines())
        assert next(events)["data"]["status"] == "queued"
        claim = jobs.claim(job_id)
        assert next(events)["data"]["status"] == "running"
        jobs.report(claim, [progress(1), progress(2)], position=1)
        assert [next(events)["data"]["done"] for _ in range(2)] == [1, 2]
        jobs.succeed(claim)
        rest = list(events)
    assert [event["data"]["status"] for event in rest] == ["succeeded"]


def test_a_stream_goes_on_where_it_broke_off_without_gap_or_double(http: httpx.Client, jobs: Any) -> None:
    """Connections that end again and again, while a worker reports, see each event once."""
    claim = jobs.claim(jobs.submit())
    url = f"/jobs/{claim.job_id}/events"

    def work() -> bool:
        for position in range(1, 60):
            jobs.report(claim, [progress(1), progress(2), progress(3)], position=position)
        jobs.succeed(claim)
        return True

    seen: list[dict[str, Any]] = []
    with in_background(work):
        while not seen or seen[-1]["data"].get("status") != "succeeded":
            headers = SSE | ({"Last-Event-ID": str(seen[-1]["sequence"])} if seen else {})
            with http.stream("GET", url, headers=headers) as stream:
                for count, event in enumerate(events_of(stream.iter_lines())):
                    seen.append(event)
                    if count == 10:
                        break
    assert [event["sequence"] for event in seen] == list(range(1, 2 + 59 * 3 + 2))
    listed, after = [], "0"
    while after is not None:
        page = http.get(url, params={"limit": 50, "after": after}).json()
        listed += page["items"]
        after = page["next"]
    assert listed == seen


def test_a_stream_with_nothing_more_to_tell_says_so(http: httpx.Client, jobs: Any) -> None:
    job_id = jobs.submit()
    http.post(f"/jobs/{job_id}/cancel")
    for last in ("2", "3", "2147483647"):
        answer = http.get(f"/jobs/{job_id}/events", headers=SSE | {"Last-Event-ID": last})
        assert (answer.status_code, answer.content) == (204, b"")
    for last in ("-1", "x", "1.5", "2147483648"):
        answer = http.get(f"/jobs/{job_id}/events", headers=SSE | {"Last-Event-ID": last})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "last-event-id"


def test_a_silent_stream_pings(api_settings: Settings, serve: Any, jobs: Any) -> None:
    job_id = jobs.submit()
    with serve(api_settings) as client, client.stream("GET", f"/jobs/{job_id}/events", headers=SSE) as stream:
        pings = (line for line in stream.iter_lines() if line == ": ping")
        assert [next(pings) for _ in range(3)] == [": ping"] * 3


def test_a_silent_stream_ends_after_its_time(api_settings: Settings, serve: Any, jobs: Any) -> None:
    job_id = jobs.submit()
    with serve(api_settings.model_copy(update={"stream_seconds": 0.5})) as client:
        text = client.get(f"/jobs/{job_id}/events", headers=SSE).text
    assert text.count("event: ") == 1


def test_streams_that_the_service_ends_after_their_time_join_without_gap_or_double(
    api_settings: Settings, serve: Any, jobs: Any
) -> None:
    claim = jobs.claim(jobs.submit())
    seen: list[int] = []
    streams = 0

    def work() -> bool:
        for position in range(1, 40):
            jobs.report(claim, [progress(1), progress(2)], position=position)
        while streams < 3:  # the job outlives some connections
            jobs.report(claim, [progress(3)], position=40 + streams)
        jobs.succeed(claim)
        return True

    with serve(api_settings.model_copy(update={"stream_seconds": 0.1})) as http, in_background(work):
        ended = False
        while not ended:
            headers = SSE | ({"Last-Event-ID": str(seen[-1])} if seen else {})
            with http.stream("GET", f"/jobs/{claim.job_id}/events", headers=headers) as stream:
                for event in events_of(stream.iter_lines()):
                    seen.append(event["sequence"])
                    ended = event["data"].get("status") == "succeeded"
            streams += 1
    assert streams >= 3
    assert seen == list(range(1, len(seen) + 1))


def test_many_watchers_hold_neither_connections_nor_threads(
    api_settings: Settings, serve: Any, jobs: Any, engine: Engine, eventually: Callable[..., Any]
) -> None:
    job_id = jobs.submit()
    watchers = 200

    def sessions_are_at_rest() -> bool:
        busy = "datname = current_database() AND state <> 'idle'"
        with engine.connect() as connection:
            count = connection.execute(
                text(f"SELECT count(*) FROM pg_stat_activity WHERE {busy}")
            ).scalar_one()
        # This very query is one of them, the watch's may be another.
        return bool(count <= 2)

    async def watch_all(http: httpx.Client) -> list[int]:
        limits = httpx.Limits(max_connections=watchers)
        client = httpx.AsyncClient(
            base_url=http.base_url, headers=http.headers, limits=limits, timeout=50, trust_env=False
        )
        async with client:
            polls = [client.get(f"/jobs/{job_id}", params={"wait": 45}) for _ in range(watchers // 2)]
            streams = [client.get(f"/jobs/{job_id}/events", headers=SSE) for _ in range(watchers // 2)]
            waiting = [asyncio.create_task(watcher) for watcher in (*polls, *streams)]
            done, _ = await asyncio.wait(waiting, timeout=1)
            assert not done
            await asyncio.to_thread(eventually, sessions_are_at_rest)
            assert threading.active_count() < 60
            # Answered in a thread, well before the first of the watchers gives up.
            assert (await asyncio.to_thread(http.get, f"/jobs/{job_id}/metrics")).status_code == 200
            await asyncio.to_thread(http.post, f"/jobs/{job_id}/cancel")
            return [answer.status_code for answer in await asyncio.gather(*waiting)]

    with serve(api_settings.model_copy(update={"ping_seconds": 15})) as http:
        assert asyncio.run(watch_all(http)) == [200] * watchers


@asynccontextmanager
async def watching(read_versions: Callable[[Collection[str]], Mapping[str, int]]) -> AsyncIterator[JobWatch]:
    """A watch that looks for changes all the time."""
    watch, closing = JobWatch(read_versions, 0.001), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watch.run(closing))
        yield watch
        closing.set()


def test_an_unforeseen_error_does_not_end_the_watch() -> None:
    outcomes = iter([ProgrammingError("SELECT", {}, Exception("the table is gone"))])

    def read_versions(ids: Collection[str]) -> Mapping[str, int]:
        for failure in outcomes:
            raise failure
        return dict.fromkeys(ids, 2)

    async def wait() -> bool:
        async with watching(read_versions) as watch:
            return await watch.changed("a job", 1, timeout_seconds=20)

    assert asyncio.run(wait())


def test_a_poll_that_begins_during_a_look_is_not_judged_by_it() -> None:
    looking, go_on = threading.Event(), threading.Event()
    outcomes = iter([{"a job": 1}])

    def read_versions(ids: Collection[str]) -> Mapping[str, int]:
        looking.set()
        assert go_on.wait(20)
        return next(outcomes, {"a job": 2, "another job": 1})

    async def wait() -> list[bool]:
        async with asyncio.TaskGroup() as polls, watching(read_versions) as watch:
            earlier = polls.create_task(watch.changed("a job", 0, timeout_seconds=20))
            assert await asyncio.to_thread(looking.wait, 20)
            later = [
                polls.create_task(watch.changed(job_id, version, timeout_seconds=20))
                for job_id, version in [("a job", 2), ("another job", 1)]
            ]
            await asyncio.sleep(0)  # until both of them wait
            go_on.set()
            assert await earlier
        return [poll.result() for poll in later]

    assert asyncio.run(wait()) == [False, False], "they ended with the watch, not because of the look"
