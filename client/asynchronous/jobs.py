"""Jobs: submitted, listed, and each as an object that can be awaited, watched, moved and downloaded."""

import builtins
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Self

from client.asynchronous.resources import AsyncResource
from client.downloads import Progress, download_file, download_student, read_file
from client.errors import DownloadError, JobFailedError, WaitTimeoutError
from client.event_stream import stream_events
from client.models import Event, JobEstimate, JobState, Page, RemoteFile, StoredFile, WeightsFormat
from client.notebook import job_html, newest_grid
from client.patience import PATIENCE_SECONDS, patience_within
from client.transport import ANSWER_SECONDS, Transport, model_of
from core.spec import DistillationSpec

GLANCE_SECONDS = 3.0


class AsyncJob(AsyncResource[JobState]):
    """A job of the service; `Job`, awaited."""

    collection: ClassVar[str] = "jobs"

    @property
    def result(self) -> dict[str, Any] | None:
        """What was measured, once the job has succeeded."""
        return self.state.result

    async def wait(
        self,
        on_progress: Callable[[Self], object] | None = None,
        timeout_seconds: float | None = None,
    ) -> Self:
        """Wait as `Job.wait` does; ``on_progress`` may be a coroutine function."""
        await self._refresh(patience_within(timeout_seconds))
        if not await self._until_ended(on_progress, timeout_seconds):
            raise WaitTimeoutError(f"job {self.state.id} is still {self.state.status}")
        if self.state.status != "succeeded":
            raise JobFailedError(self.state)
        return self

    def events(self, after: int = 0) -> AsyncIterator[Event]:
        """Yield what happens to the job, from the event after a sequence number up to the job's end."""
        return stream_events(self._transport, self._path("events"), after)

    async def cancel(self) -> Self:
        """Cancel the job, or ask its worker to stop; asking twice is harmless."""
        return await self._move("cancel")

    async def pause(self) -> Self:
        """Pause the job, or ask its worker to stop; a checkpoint is kept."""
        return await self._move("pause")

    async def save_now(self) -> Self:
        """Ask the running training for a checkpoint; a ``checkpoint`` event tells when it is stored."""
        return await self._move("save-now")

    async def sample_now(self) -> Self:
        """Ask the running training for pictures; a ``sample`` event tells when they are stored."""
        return await self._move("sample-now")

    async def resume(self) -> Self:
        """Queue the paused job again; it goes on from its last checkpoint."""
        return await self._move("resume")

    async def retry(self, *, from_scratch: bool = False) -> Self:
        """Queue the failed or cancelled job again, as `Job.retry` does."""
        key = str(uuid.uuid4())  # so that a request whose answer was lost can be sent again
        return await self._move("retry", {"Idempotency-Key": key}, from_scratch=str(from_scratch).lower())

    async def clone(
        self, changes: Mapping[str, Any] | None = None, idempotency_key: str | None = None
    ) -> "AsyncJob":
        """Submit the job's specification and options once more, changed as `Job.clone` says."""
        state = await self._transport.create(JobState, self._path("clone"), changes or {}, idempotency_key)
        return AsyncJob(self._transport, state)

    async def _move(self, move: str, headers: Mapping[str, str] | None = None, **parameters: str) -> Self:
        answer = await self._transport.request(
            "POST", self._path(move), parameters=parameters, headers=headers
        )
        self._state = model_of(JobState, answer)
        return self

    async def estimate(self) -> JobEstimate:
        """Say what the job was to take when it was submitted, and what it took."""
        return model_of(JobEstimate, await self._transport.request("GET", self._path("estimate")))

    async def artifacts(self) -> list[StoredFile]:
        """List the files that the job has left, each with a link to it."""
        return (await self._transport.read(Page[StoredFile], self._path("artifacts"))).items

    async def samples(self) -> list[StoredFile]:
        """List the grids of pictures that were drawn during the training, in order."""
        return (await self._transport.read(Page[StoredFile], self._path("samples"))).items

    async def grid(self) -> bytes | None:
        """Fetch the newest picture of teacher beside student, as `Job.grid` does."""
        return await self._grid(ANSWER_SECONDS, PATIENCE_SECONDS)

    async def _glance(self) -> bytes | None:
        """Fetch the grid if that is quickly done; whatever goes wrong, there is none to see."""
        with suppress(Exception):
            return await self._grid(GLANCE_SECONDS, patience_seconds=0)
        return None

    async def _grid(self, answer_seconds: float, patience_seconds: float) -> bytes | None:
        files = await self._transport.read(
            Page[StoredFile],
            self._path("artifacts"),
            answer_seconds=answer_seconds,
            patience_seconds=patience_seconds,
        )
        file = newest_grid(files.items)
        return None if file is None else await read_file(self._transport, file, answer_seconds)

    def _repr_html_(self) -> str:
        return job_html(self.state)

    async def download(self, directory: str | Path, on_progress: Progress | None = None) -> Path:
        """Fetch the student into a folder, as `Job.download` does."""
        return await download_student(self._transport, self._find_student, Path(directory), on_progress)

    async def download_weights(
        self, path: str | Path, weights_format: WeightsFormat, on_progress: Progress | None = None
    ) -> Path:
        """Fetch the student's weights as one file, as `Job.download_weights` does."""

        async def find() -> RemoteFile:
            answer = await self._transport.request(
                "GET", self._path("weights"), parameters={"format": weights_format}
            )
            return RemoteFile(
                url=answer.headers["Location"],
                size=int(answer.headers["X-Content-Size"]),
                sha256=answer.headers["X-Content-Sha256"],
            )

        return await download_file(self._transport, find, Path(path), on_progress)

    async def _find_student(self) -> StoredFile:
        archives = [file for file in await self.artifacts() if file.kind == "student_archive"]
        if not archives:
            await self.refresh()
            raise DownloadError(f"job {self.state.id} is {self.state.status} and has no student to download")
        return max(archives, key=lambda file: file.attempt)


def submission_body(spec: DistillationSpec | Mapping[str, Any]) -> dict[str, Any]:
    """Write a specification as a request's body; what was left out is left to the service."""
    if isinstance(spec, DistillationSpec):
        return spec.model_dump(mode="json", include=spec.model_fields_set)
    return dict(spec)


class AsyncJobs:
    """The jobs of a service; `Jobs`, awaited."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create(
        self,
        spec: DistillationSpec | Mapping[str, Any],
        idempotency_key: str | None = None,
        *,
        options: Mapping[str, Any] | None = None,
    ) -> AsyncJob:
        """Submit a job, as `Jobs.create` does."""
        body = submission_body(spec)
        if options is not None:
            body["options"] = dict(options)
        return AsyncJob(
            self._transport, await self._transport.create(JobState, "/jobs", body, idempotency_key)
        )

    async def get(self, job_id: str) -> AsyncJob:
        """Get one job; `NotFoundError` if there is none of that id."""
        return AsyncJob(self._transport, await self._transport.read(JobState, f"/jobs/{job_id}"))

    async def iterate(
        self, *, status: str | None = None, teacher: str | None = None, limit: int | None = None
    ) -> AsyncIterator[AsyncJob]:
        """Yield the jobs, the newest first; a page is asked for when the one before has been used up."""
        parameters = {"status": status, "teacher": teacher}
        async for state in self._transport.items(Page[JobState], "/jobs", parameters=parameters, limit=limit):
            yield AsyncJob(self._transport, state)

    async def list(
        self, *, status: str | None = None, teacher: str | None = None, limit: int = 20
    ) -> builtins.list[AsyncJob]:
        """List the newest jobs, at most ``limit`` of them."""
        return [job async for job in self.iterate(status=status, teacher=teacher, limit=limit)]
