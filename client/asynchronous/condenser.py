"""The entrance to the asynchronous client: one service, its jobs, captions, teachers and keys."""

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from client.asynchronous.captions import AsyncCaptions
from client.asynchronous.generations import AsyncGeneration
from client.asynchronous.jobs import AsyncJobs, submission_body
from client.asynchronous.keys import AsyncKeys
from client.connections import AsyncConnection, Connection
from client.models import ComparedStudent, Comparison, Estimate, GenerationState, Page, Teacher, WorkerState
from client.transport import Transport, model_of
from core.spec import DistillationSpec


class AsyncTeachers:
    """The teachers of a service; `Teachers`, awaited."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self) -> list[Teacher]:
        """List the teachers, each with the student sizes that fit it."""
        return (await self._transport.read(Page[Teacher], "/teachers")).items


class AsyncWorkers:
    """The workers of a service; `Workers`, awaited."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self) -> list[WorkerState]:
        """List the workers, each with what it runs."""
        return (await self._transport.read(Page[WorkerState], "/workers")).items


class AsyncCondenser:
    """A Condenser service, asked from an event loop of asyncio; `Condenser`, awaited.

    Parameters
    ----------
    base_url, api_key
        As of `Condenser`.
    connect
        How to wait; `Condenser` has it block.

    Attributes
    ----------
    jobs, captions, keys, teachers, workers
        As of `Condenser`.
    """

    def __init__(
        self, base_url: str, api_key: str | None = None, *, connect: type[Connection] = AsyncConnection
    ) -> None:
        self._transport = Transport(base_url, api_key or os.environ.get("CONDENSER_API_KEY"), connect)
        self.jobs = AsyncJobs(self._transport)
        self.captions = AsyncCaptions(self._transport)
        self.keys = AsyncKeys(self._transport)
        self.teachers = AsyncTeachers(self._transport)
        self.workers = AsyncWorkers(self._transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def estimate(self, spec: DistillationSpec | Mapping[str, Any]) -> Estimate:
        """Ask what a job would take, without submitting it; `InvalidRequestError` as of `Jobs.create`."""
        answer = await self._transport.request("POST", "/estimates", body=submission_body(spec))
        return model_of(Estimate, answer)

    async def generate(
        self,
        job_id: str,
        prompt: str,
        *,
        seed: int | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        sampler: str | None = None,
        models: Sequence[Mapping[str, str]] | None = None,
        idempotency_key: str | None = None,
        wait: bool = True,
        timeout_seconds: float | None = None,
    ) -> AsyncGeneration:
        """Let a job's teacher and its student draw a prompt, as `Condenser.generate` does."""
        wanted = {
            "prompt": prompt,
            "seed": seed,
            "steps": steps,
            "guidance_scale": guidance_scale,
            "sampler": sampler,
            "models": None if models is None else [dict(each) for each in models],
        }
        body = {name: value for name, value in wanted.items() if value is not None}
        path = f"/jobs/{job_id}/generate"
        state = await self._transport.create(GenerationState, path, body, idempotency_key)
        generation = AsyncGeneration(self._transport, state)
        return await generation.wait(timeout_seconds=timeout_seconds) if wait else generation

    async def compare(self, teacher: str, *, limit: int = 100) -> list[ComparedStudent]:
        """List a teacher's newest students with what they cost and how well they draw, at most ``limit``."""
        students = self._transport.items(Comparison, "/compare", parameters={"teacher": teacher}, limit=limit)
        return [student async for student in students]

    async def close(self) -> None:
        """Close the connections to the service."""
        await self._transport.close()
