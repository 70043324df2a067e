"""Jobs: submitted, listed, and each as an object that can be waited for, watched, moved and downloaded."""

import builtins
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from client.asynchronous.jobs import AsyncJob, AsyncJobs
from client.blocking import iterate, run
from client.downloads import Progress
from client.models import Event, JobEstimate, JobState, StoredFile, WeightsFormat
from client.notebook import job_html
from client.resources import Resource
from core.spec import DistillationSpec


class Job(Resource[JobState]):
    """A job of the service; a notebook shows its state, its progress and its newest `grid`."""

    def __init__(self, job: AsyncJob) -> None:
        self._job = job

    @property
    def state(self) -> JobState:
        """All that was known of the job when the service was last asked."""
        return self._job.state

    @property
    def result(self) -> dict[str, Any] | None:
        """What was measured, once the job has succeeded."""
        return self._job.result

    def refresh(self) -> Self:
        """Ask the service for the job's present state."""
        run(self._job.refresh())
        return self

    def wait(
        self,
        on_progress: Callable[[Self], object] | None = None,
        timeout_seconds: float | None = None,
    ) -> Self:
        """Wait until the job has succeeded, also while the service is away for ten minutes at most.

        Parameters
        ----------
        on_progress
            Called with the job at once and after every change.
        timeout_seconds
            Longest time to wait; for ever by default.

        Raises
        ------
        JobFailedError
            If the job fails or is cancelled.
        WaitTimeoutError
            If the time is over; the job goes on.
        ApiUnreachableError, UnavailableError
            If the service stays away.
        """
        listener = None if on_progress is None else lambda _: on_progress(self)
        run(self._job.wait(listener, timeout_seconds))
        return self

    def events(self, after: int = 0) -> Iterator[Event]:
        """Yield what happens to the job, from the event after a sequence number up to the job's end."""
        return iterate(self._job.events(after))

    def cancel(self) -> Self:
        """Cancel the job, or ask its worker to stop; asking twice is harmless."""
        run(self._job.cancel())
        return self

    def pause(self) -> Self:
        """Pause the job, or ask its worker to stop; a checkpoint is kept."""
        run(self._job.pause())
        return self

    def save_now(self) -> Self:
        """Ask the running training for a checkpoint; a ``checkpoint`` event tells when it is stored."""
        run(self._job.save_now())
        return self

    def sample_now(self) -> Self:
        """Ask the running training for pictures; a ``sample`` event tells when they are stored."""
        run(self._job.sample_now())
        return self

    def resume(self) -> Self:
        """Queue the paused job again; it goes on from its last checkpoint."""
        run(self._job.resume())
        return self

    def retry(self, *, from_scratch: bool = False) -> Self:
        """Queue the failed or cancelled job again.

        Parameters
        ----------
        from_scratch
            Begin anew instead of going on from the last checkpoint.

        Raises
        ------
        ConflictError
            If the job has not ended, or has succeeded.
        """
        run(self._job.retry(from_scratch=from_scratch))
        return self

    def clone(self, changes: Mapping[str, Any] | None = None, idempotency_key: str | None = None) -> "Job":
        """Submit the job's specification and options once more.

        Parameters
        ----------
        changes
            Fields that differ, such as ``{"training": {"steps": 100}, "options": {"priority": 5}}``.
        idempotency_key
            As of `Jobs.create`.

        Returns
        -------
        Job
            The new job.
        """
        return Job(run(self._job.clone(changes, idempotency_key)))

    def delete(self) -> None:
        """Delete the job, its history and its files; `ConflictError` while it runs."""
        run(self._job.delete())

    def estimate(self) -> JobEstimate:
        """Say what the job was to take when it was submitted, and what it took.

        Raises
        ------
        NotFoundError
            If there is no such job any more, or its teacher is not on the server.
        """
        return run(self._job.estimate())

    def artifacts(self) -> list[StoredFile]:
        """List the files that the job has left, each with a link to it."""
        return run(self._job.artifacts())

    def samples(self) -> list[StoredFile]:
        """List the grids of pictures that were drawn during the training, in order."""
        return run(self._job.samples())

    def grid(self) -> bytes | None:
        """Fetch the newest picture of teacher beside student.

        Returns
        -------
        bytes or None
            The exported student's if there is one, else the last that was drawn during the training, as PNG;
            None if none was drawn, or if it has more than 4 MiB.

        Raises
        ------
        DownloadError
            If the picture does not arrive as announced.
        """
        return run(self._job.grid())

    def _repr_html_(self) -> str:
        return job_html(self.state, run(self._job._glance()))

    def download(self, directory: str | Path, on_progress: Progress | None = None) -> Path:
        """Fetch the student into a folder that diffusers loads.

        An interrupted download goes on where it stopped; the folder appears when everything has arrived and
        been checked.

        Parameters
        ----------
        directory
            Made if it is missing; an earlier student in it, and nothing else, is replaced.
        on_progress
            Called with the bytes that have arrived and all bytes.

        Raises
        ------
        DownloadError
            If the job has no student, the folder holds something else, or the content is not as announced.
        """
        return run(self._job.download(directory, on_progress))

    def download_weights(
        self, path: str | Path, weights_format: WeightsFormat, on_progress: Progress | None = None
    ) -> Path:
        """Fetch the student's weights in one form as one file.

        Parameters
        ----------
        path
            The file, which is replaced; it appears when everything has arrived and been checked.
        weights_format
            ``archive``: a ZIP of the folder; ``unet``: the U-Net as safetensors; ``single-file``: the U-Net
            under the original names.
        on_progress
            Called with the bytes that have arrived and all bytes.

        Raises
        ------
        ConflictError
            If the job has not ended.
        NotFoundError
            If it has no weights, or its export left this form out.
        DownloadError
            If the content is not as announced.
        """
        return run(self._job.download_weights(path, weights_format, on_progress))


class Jobs:
    """The jobs of a service."""

    def __init__(self, jobs: AsyncJobs) -> None:
        self._jobs = jobs

    def create(
        self,
        spec: DistillationSpec | Mapping[str, Any],
        idempotency_key: str | None = None,
        *,
        options: Mapping[str, Any] | None = None,
    ) -> Job:
        """Submit a job.

        A request that gets lost is sent again and still makes one job only.

        Parameters
        ----------
        spec
            What to do; what it leaves out is resolved by the service.
        idempotency_key
            Give the same key for the same submission from several processes; a fresh one by default.
        options
            How the job is treated: ``priority``, ``max_runtime_s``, ``not_before``.

        Raises
        ------
        InvalidRequestError
            It names the fields at fault and their allowed values.
        """
        return Job(run(self._jobs.create(spec, idempotency_key, options=options)))

    def get(self, job_id: str) -> Job:
        """Get one job; `NotFoundError` if there is none of that id."""
        return Job(run(self._jobs.get(job_id)))

    def iterate(
        self, *, status: str | None = None, teacher: str | None = None, limit: int | None = None
    ) -> Iterator[Job]:
        """Yield the jobs, the newest first; a page is asked for when the one before has been used up."""
        return map(Job, iterate(self._jobs.iterate(status=status, teacher=teacher, limit=limit)))

    def list(
        self, *, status: str | None = None, teacher: str | None = None, limit: int = 20
    ) -> builtins.list[Job]:
        """List the newest jobs, at most ``limit`` of them."""
        return list(self.iterate(status=status, teacher=teacher, limit=limit))
