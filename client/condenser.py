"""The entrance to the client: one service, its jobs, captions, teachers and keys."""

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from client.captions import Captions
from client.generations import Generation, begin_generation
from client.jobs import PAGE, Jobs, submission_body
from client.keys import Keys
from client.models import ComparedStudent, Comparison, Estimate, Page, Teacher, WorkerState
from client.transport import Transport
from core.spec import DistillationSpec


class Teachers:
    """The teachers of a service."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[Teacher]:
        """List the teachers, each with the student sizes that fit it."""
        return self._transport.read(Page[Teacher], "/teachers").items


class Workers:
    """The workers of a service."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[WorkerState]:
        """List the workers, each with what it runs."""
        return self._transport.read(Page[WorkerState], "/workers").items


class Condenser:
    """A Condenser service.

    Parameters
    ----------
    base_url
        Where it is, such as ``http://127.0.0.1:8000``.
    api_key
        Who asks; the environment variable ``CONDENSER_API_KEY`` by default.

    Attributes
    ----------
    jobs
        Submit, list and get jobs.
    captions
        Upload, list and delete files of captions.
    keys
        Make, list and revoke API keys.
    teachers
        List teachers.
    workers
        List workers.
    """

    def __init__(self, base_url: str, api_key: str | None = None) -> None:
        self._transport = Transport(base_url, api_key or os.environ.get("CONDENSER_API_KEY"))
        self.jobs = Jobs(self._transport)
        self.captions = Captions(self._transport)
        self.keys = Keys(self._transport)
        self.teachers = Teachers(self._transport)
        self.workers = Workers(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def estimate(self, spec: DistillationSpec | Mapping[str, Any]) -> Estimate:
        """Ask what a job would take, without submitting it; `InvalidRequestError` as of `Jobs.create`."""
        answer = self._transport.request("POST", "/estimates", body=submission_body(spec))
        return Estimate.model_validate(answer.json())

    def generate(
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
    ) -> Generation:
        """Let a job's teacher and its student draw a prompt from the same seed.

        Parameters
        ----------
        job_id
            A job that has succeeded.
        prompt, seed
            What to draw; the seed is chosen by chance if it is left out.
        steps, guidance_scale, sampler
            How; by default as each model was evaluated.
        models
            One or two, as ``{"model": "student"}`` or ``{"model": "student", "job_id": …}`` for that of
            another job.
        idempotency_key
            As of `Jobs.create`.
        wait, timeout_seconds
            Whether to wait until the pictures are drawn, as `Generation.wait` does, and for how long.

        Raises
        ------
        ConflictError
            If a job has not succeeded, or too many generations wait already.
        GenerationFailedError, WaitTimeoutError
            As of `Generation.wait`.
        """
        wanted = {
            "prompt": prompt,
            "seed": seed,
            "steps": steps,
            "guidance_scale": guidance_scale,
            "sampler": sampler,
            "models": None if models is None else [dict(each) for each in models],
        }
        body = {name: value for name, value in wanted.items() if value is not None}
        generation = begin_generation(self._transport, job_id, body, idempotency_key)
        return generation.wait(timeout_seconds=timeout_seconds) if wait else generation

    def compare(self, teacher: str, *, limit: int = 100) -> list[ComparedStudent]:
        """List a teacher's newest students with what they cost and how well they draw, at most ``limit``."""
        found: list[ComparedStudent] = []
        cursor: str | None = None
        while len(found) < limit:
            parameters = {"teacher": teacher, "after": cursor, "limit": min(limit - len(found), PAGE)}
            page = self._transport.read(Comparison, "/compare", parameters=parameters)
            found += page.students
            cursor = page.next
            if not page.has_more:
                break
        return found

    def close(self) -> None:
        """Close the connections to the service."""
        self._transport.close()
