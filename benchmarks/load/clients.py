"""The clients: some submit, some poll, some wait, some stream, all at once, against a service on loopback."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SUBMITTERS = 8
WAIT_SECONDS = 20
WATCHED = 50  # clients look at jobs this recent, as people do
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


async def put_under_load(url: str, plan: Plan, api_key: str | None = None) -> Observations:
    """Let all clients loose until the jobs are submitted and the time is over.

    Parameters
    ----------
    url
        The service; it must be on loopback.
    plan
        Who does what.
    api_key
        Sent with every request, where the service asks for one.
    """
    if httpx.URL(url).host not in LOOPBACK:
        raise ValueError(f"{url} is not on loopback: load is for your own machine only")
    seen = Observations()
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(
        base_url=url, headers=headers, limits=limits, timeout=WAIT_SECONDS + 40, trust_env=False
    ) as client:
        submitting = asyncio.gather(*(_submit(client, plan, seen, n) for n in range(SUBMITTERS)))
        loops: list[tuple[int, Callable[[httpx.AsyncClient, Plan, Observations], Awaitable[None]]]] = [
            (plan.pollers, _poll),
            (plan.waiters, _wait),
            (plan.streamers, _stream),
        ]
        watching = [
            asyncio.create_task(_forever(seen, look, client, plan))
            for count, look in loops
            for _ in range(count)
        ]
        try:
            await submitting
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
    return seen


async def _submit(client: httpx.AsyncClient, plan: Plan, seen: Observations, submitter: int) -> None:
    """Submit every n-th job at its time, however long the ones before took."""
    began = time.perf_counter()
    pending = set()
    for number in range(submitter, plan.jobs, SUBMITTERS):
        await asyncio.sleep(max(began + plan.seconds * number / plan.jobs - time.perf_counter(), 0))
        pending.add(asyncio.create_task(_submit_one(client, seen, number)))
    await asyncio.gather(*pending)


async def _submit_one(client: httpx.AsyncClient, seen: Observations, number: int) -> None:
    began = time.perf_counter()
    try:
        answer = await client.post(
            "/jobs", json=SPEC | {"seed": number}, headers={"Idempotency-Key": f"{began}-{number}"}
        )
    except httpx.HTTPError as error:
        seen.errors.append(f"POST /jobs: {error!r}")
        return
    seen.time("POST /jobs", time.perf_counter() - began)
    if answer.status_code == 201:
        seen.job_ids.append(answer.json()["id"])
    else:
        seen.errors.append(f"POST /jobs: {answer.status_code} {answer.text[:200]}")


async def _forever(
    seen: Observations,
    look: Callable[[httpx.AsyncClient, Plan, Observations], Awaitable[None]],
    client: httpx.AsyncClient,
    plan: Plan,
) -> None:
    await asyncio.sleep(random.random() * plan.poll_seconds)
    while True:
        try:
            if seen.job_ids:
                await look(client, plan, seen)
            else:
                await asyncio.sleep(0.1)
        except httpx.HTTPError as error:
            seen.errors.append(f"{look.__name__}: {error!r}")


async def _poll(client: httpx.AsyncClient, plan: Plan, seen: Observations) -> None:
    began = time.perf_counter()
    answer = await client.get(f"/jobs/{_recent(seen)}")
    seconds = time.perf_counter() - began
    seen.time("GET /jobs/{id}", seconds)
    if answer.status_code != 200:
        seen.errors.append(f"GET /jobs/{{id}}: {answer.status_code}")
    await asyncio.sleep(max(plan.poll_seconds - seconds, 0))


async def _wait(client: httpx.AsyncClient, plan: Plan, seen: Observations) -> None:
    """Follow one job by long polls until it has ended."""
    path, tag, status = f"/jobs/{_recent(seen)}", "", ""
    while status not in {"succeeded", "failed", "cancelled"}:
        answer = await client.get(
            path, params={"wait": WAIT_SECONDS}, headers={"If-None-Match": tag} if tag else {}
        )
        if answer.status_code == 200:
            seen.changes += bool(tag)
            tag, status = answer.headers["etag"], answer.json()["status"]
        elif answer.status_code != 304:
            seen.errors.append(f"long poll: {answer.status_code}")
            return


async def _stream(client: httpx.AsyncClient, plan: Plan, seen: Observations) -> None:
    """Follow one job by its stream, and see that every event comes once and in order."""
    expected = 1
    path = f"/jobs/{_recent(seen)}/events"
    began = time.perf_counter()
    async with client.stream("GET", path, headers={"Accept": "text/event-stream"}) as answer:
        if answer.status_code != 200:
            seen.errors.append(f"stream: {answer.status_code}")
            return
        async for line in answer.aiter_lines():
            if line.startswith("retry:"):
                seen.time("stream: first byte", time.perf_counter() - began)
            if line.startswith("data:"):
                sequence = json.loads(line[5:])["sequence"]
                if sequence != expected:
                    seen.errors.append(f"stream: event {sequence} where {expected} was due")
                expected = sequence + 1
                seen.events += 1


def _recent(seen: Observations) -> str:
    return random.choice(seen.job_ids[-WATCHED:])
