"""The entrance to the client: one service, its jobs, captions, teachers and keys."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from client.asynchronous.condenser import AsyncCondenser, AsyncTeachers, AsyncWorkers
from client.blocking import run
from client.captions import Captions
from client.connections import BlockingConnection
from client.generations import Generation
from client.jobs import Jobs
from client.keys import Keys
from client.models import ComparedStudent, Estimate, Teacher, WorkerState
from core.spec import DistillationSpec


class Teachers:
    """The teachers of a service."""

    def __init__(self, teachers: AsyncTeachers) -> None:
        self._teachers = teachers

    def list(self) -> list[Teacher]:
        """List the teachers, each with the student sizes that fit it."""
        return run(self._teachers.list())


class Workers:
    """The workers of a service."""

    def __init__(self, workers: AsyncWorkers) -> None:
        self._workers = workers

    def list(self) -> list[WorkerState]:
        """List the workers, each with what it runs."""
        return run(self._workers.list())


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
        self._service = AsyncCondenser(base_url, api_key, connect=BlockingConnection)
        self.jobs = Jobs(self._service.jobs)
        self.captions = Captions(self._service.captions)
        self.keys = Keys(self._service.keys)
        self.teachers = Teachers(self._service.teachers)
        self.workers = Workers(self._service.workers)

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
        return run(self._service.estimate(spec))

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
        generation = self._service.generate(
            job_id,
            prompt,
            seed=seed,
            steps=steps,
            guidance_scale=guidance_scale,
            sampler=sampler,
            models=models,
            idempotency_key=idempotency_key,
            wait=wait,
            timeout_seconds=timeout_seconds,
        )
        return Generation(run(generation))

    def compare(self, teacher: str, *, limit: int = 100) -> list[ComparedStudent]:
        """List a teacher's newest students with what they cost and how well they draw, at most ``limit``."""
        return run(self._service.compare(teacher, limit=limit))

    def close(self) -> None:
        """Close the connections to the service."""
        run(self._service.close())
