"""The clients: some submit, some poll, some wait, some stream, all at once, against a service on loopback."""

import asyncio
import itertools
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from benchmarks.load.connection import Connection, ConnectionLostError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SUBMITTERS = 8
WAIT_SECONDS = 20
WATCHED = 50  # pollers look at one of the newest jobs, as people do
FOLLOWED = 8  # and who follows one begins soon after it was submitted
SPEC = {
    "teacher": "emoji-64",
    "student": "b-tiny",
    "captions": {"kind": "inline", "texts": [f"a {colour} cat" for colour in ("red", "blue", "green")]},
    "training": {"steps": 1_000, "batch_size": 64},
}


@dataclass(frozen=True)
class Plan:
    """How many clients do what, and how fast; a client polls once in ``poll_seconds``."""

    jobs: int = 1_000
    seconds: float = 60.0
    pollers: int = 100
    waiters: int = 50
    streamers: int = 50
    poll_seconds: float = 1.0

    def lightened(self, share: float) -> "Plan":
        """Return the plan with a share of the clients and of the jobs, at least one of each."""
        names = ("jobs", "pollers", "waiters", "streamers")
        return replace(self, **{name: max(1, round(share * getattr(self, name))) for name in names})


@dataclass
class Observations:
    """What the clients saw.

    Attributes
    ----------
    seconds
        Latencies by request.
    errors
        What was not as it should be, in words.
    job_ids
        Jobs that the service accepted.
    events
        Events that streams brought, all of them in order and without a gap.
    changes
        Changes that long polls were told of.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    job_ids: list[str] = field(default_factory=list)
    events: int = 0
    changes: int = 0

    def time(self, request: str, seconds: float) -> None:
        """Keep one latency."""
        self.seconds.setdefault(request, []).append(seconds)


Look = Callable[[Connection, Plan, Observations], Awaitable[None]]


async def put_under_load(urls: Sequence[str], plan: Plan, api_key: str | None = None) -> Observations:
    """Let all clients loose until the jobs are submitted and the time is over.

    Parameters
    ----------
    urls
        The service's API processes, among which the clients are dealt out; they must be on loopback.
    plan
        Who does what.
    api_key
        Sent with every request, where the service asks for one.
    """
    for url in urls:
        if urlsplit(url).hostname not in LOOPBACK:
            raise ValueError(f"{url} is not on loopback: load is for your own machine only")
    next_url = itertools.cycle(urls)
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    seen = Observations()
    looks: list[tuple[int, Look]] = [(plan.pollers, _poll), (plan.waiters, _wait), (plan.streamers, _stream)]
    watching = [
        asyncio.create_task(_forever(seen, look, Connection(next(next_url), headers), plan))
        for count, look in looks
        for _ in range(count)
    ]
    try:
        await asyncio.gather(
            *[_submit(Connection(next(next_url), headers), plan, seen, n) for n in range(SUBMITTERS)]
        )
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
    return seen


async def _submit(connection: Connection, plan: Plan, seen: Observations, submitter: int) -> None:
    """Submit every n-th job at its time, or at once when the one before took longer than that.

    A job's latency counts from the time at which it was due, so that a slow answer is not hidden by the
    requests that it held up.
    """
    began = time.perf_counter()
    for number in range(submitter, plan.jobs, SUBMITTERS):
        due = began + plan.seconds * number / plan.jobs
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        try:
            answer, body = await connection.request(
                "POST",
                "/jobs",
                body=SPEC | {"seed": number},
                headers={"Idempotency-Key": f"{began}-{number}"},
            )
        except (ConnectionLostError, OSError) as error:
            seen.errors.append(f"POST /jobs: {error}")
            continue
        seen.time("POST /jobs", time.perf_counter() - due)
        if answer.status == 201:
            seen.job_ids.append(json.loads(body)["id"])
        else:
            seen.errors.append(f"POST /jobs: {answer.status} {body[:200]!r}")
    connection.close()


async def _forever(seen: Observations, look: Look, connection: Connection, plan: Plan) -> None:
    await asyncio.sleep(random.random() * plan.poll_seconds)
    try:
        while True:
            try:
                if seen.job_ids:
                    await look(connection, plan, seen)
                else:
                    await asyncio.sleep(0.1)
            except (ConnectionLostError, OSError) as error:
                seen.errors.append(f"{look.__name__}: {error}")
    finally:
        connection.close()


async def _poll(connection: Connection, plan: Plan, seen: Observations) -> None:
    began = time.perf_counter()
    answer, _ = await connection.request("GET", f"/jobs/{_recent(seen, WATCHED)}")
    seconds = time.perf_counter() - began
    seen.time("GET /jobs/{id}", seconds)
    if answer.status != 200:
        seen.errors.append(f"GET /jobs/{{id}}: {answer.status}")
    await asyncio.sleep(max(plan.poll_seconds - seconds, 0))


async def _wait(connection: Connection, plan: Plan, seen: Observations) -> None:
    """Follow one job by long polls until it has ended."""
    await asyncio.sleep(plan.poll_seconds)
    path, tag, status = f"/jobs/{_recent(seen, FOLLOWED)}?wait={WAIT_SECONDS}", "", ""
    while status not in {"succeeded", "failed", "cancelled"}:
        headers = {"If-None-Match": tag} if tag else {}
        answer, body = await connection.request("GET", path, headers=headers)
        if answer.status == 200:
            seen.changes += bool(tag)
            tag, status = answer.headers["etag"], json.loads(body)["status"]
        elif answer.status != 304:
            seen.errors.append(f"long poll: {answer.status}")
            return


async def _stream(connection: Connection, plan: Plan, seen: Observations) -> None:
    """Follow one job by its stream, and see that every event comes once and in order."""
    await asyncio.sleep(plan.poll_seconds)
    expected, began, ended = 1, time.perf_counter(), False
    path = f"/jobs/{_recent(seen, FOLLOWED)}/events"
    answer = await connection.open("GET", path, headers={"Accept": "text/event-stream"})
    seen.time("GET /jobs/{id}/events, first byte", time.perf_counter() - began)
    if answer.status != 200:
        seen.errors.append(f"stream: {answer.status}")
        connection.close()
        return
    async for part in connection.parts(answer):
        for line in part.splitlines():
            if not line.startswith(b"data:"):
                continue
            event = json.loads(line[5:])
            if event["sequence"] != expected:
                seen.errors.append(f"stream: event {event['sequence']} where {expected} was due")
            expected = event["sequence"] + 1
            ended = event["data"].get("status") == "succeeded"
            seen.events += 1
    if not ended:
        seen.errors.append("stream: it ended before its job")


def _recent(seen: Observations, newest: int) -> str:
    return random.choice(seen.job_ids[-newest:])
