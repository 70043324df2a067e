"""Jobs: submitted, listed, and each as an object that can be awaited, watched, moved and downloaded."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import httpx

from client.downloads import download_file, download_student
from client.errors import DownloadError, JobFailedError, WaitTimeoutError
from client.event_stream import stream_events
from client.models import Event, JobState, Page, RemoteFile, StoredFile
from client.transport import ANSWER_SECONDS, Transport
from core.spec import DistillationSpec

LONG_POLL_SECONDS = 30.0
PAGE = 200

WeightsFormat = Literal["archive", "unet", "single-file"]


class Job:
    """A job of the service.

    Attributes
    ----------
    state
        All that was known of the job when the service was last asked.
    """

    def __init__(self, transport: Transport, state: JobState) -> None:
        self._transport = transport
        self.state = state

    @property
    def id(self) -> str:
        """The job's id."""
        return self.state.id

    @property
    def status(self) -> str:
        """The last known status."""
        return self.state.status

    @property
    def result(self) -> dict[str, Any] | None:
        """What was measured, once the job has succeeded."""
        return self.state.result

    def __repr__(self) -> str:
        return f"<Job {self.state.id} {self.state.status}>"

    def refresh(self) -> "Job":
        """Ask the service for the job's present state."""
        self.state = self._transport.read(JobState, self._path())
        return self

    def wait(
        self,
        on_progress: Callable[["Job"], object] | None = None,
        timeout_seconds: float | None = None,
    ) -> "Job":
        """Wait until the job has succeeded.

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
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        self.refresh()
        while True:
            if on_progress is not None:
                on_progress(self)
            if self.state.has_ended:
                break
            self._await_change(deadline)
        if self.state.status != "succeeded":
            raise JobFailedError(self.state)
        return self

    def _await_change(self, deadline: float | None) -> None:
        version = self.state.version
        while self.state.version == version:
            left = LONG_POLL_SECONDS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeoutError(f"job {self.state.id} is still {self.state.status}")
            wait = min(left, LONG_POLL_SECONDS)
            answer = self._transport.request(
                "GET",
                self._path(),
                parameters={"wait": round(wait, 3)},
                headers={"If-None-Match": f'W/"{version}"'},
                answer_seconds=wait + ANSWER_SECONDS,
            )
            if answer.status_code != httpx.codes.NOT_MODIFIED:
                self.state = JobState.model_validate(answer.json())

    def events(self, after: int = 0) -> Iterator[Event]:
        """Yield what happens to the job, from the event after a sequence number up to the job's end."""
        return stream_events(self._transport, self._path("events"), after)

    def cancel(self) -> "Job":
        """Cancel the job, or ask its worker to stop; asking twice is harmless."""
        return self._move("cancel")

    def pause(self) -> "Job":
        """Pause the job, or ask its worker to stop; a checkpoint is kept."""
        return self._move("pause")

    def save_now(self) -> "Job":
        """Ask the running training for a checkpoint; a ``checkpoint`` event tells when it is stored."""
        return self._move("save-now")

    def sample_now(self) -> "Job":
        """Ask the running training for pictures; a ``sample`` event tells when they are stored."""
        return self._move("sample-now")

    def resume(self) -> "Job":
        """Queue the paused job again; it goes on from its last checkpoint."""
        return self._move("resume")

    def retry(self, *, from_scratch: bool = False) -> "Job":
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
        key = str(uuid.uuid4())  # so that a request whose answer was lost can be sent again
        return self._move("retry", {"Idempotency-Key": key}, from_scratch=str(from_scratch).lower())

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
        path, body = self._path("clone"), dict(changes or {})
        return Job(self._transport, _submit(self._transport, path, body, idempotency_key))

    def delete(self) -> None:
        """Delete the job, its history and its files; `ConflictError` while it runs."""
        self._transport.request("DELETE", self._path())

    def _move(self, move: str, headers: Mapping[str, str] | None = None, **parameters: str) -> "Job":
        answer = self._transport.request("POST", self._path(move), parameters=parameters, headers=headers)
        self.state = JobState.model_validate(answer.json())
        return self

    def artifacts(self) -> list[StoredFile]:
        """List the files that the job has left, each with a link to it."""
        return self._transport.read(Page[StoredFile], self._path("artifacts")).items

    def download(
        self, directory: str | Path, on_progress: Callable[[int, int], object] | None = None
    ) -> Path:
        """Fetch the student into a folder that diffusers loads.

        An interrupted download goes on where it stopped; the folder appears when everything has arrived and
        been checked.

        Parameters
        ----------
        directory
            Made if it is missing; an earlier student in it is replaced.
        on_progress
            Called with the bytes that have arrived and all bytes.

        Raises
        ------
        DownloadError
            If the job has no student, the folder holds something else, or the content is not as announced.
        """
        return download_student(self._find_student, Path(directory), on_progress)

    def download_weights(
        self,
        path: str | Path,
        weights_format: WeightsFormat,
        on_progress: Callable[[int, int], object] | None = None,
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
        return download_file(lambda: self._find_weights(weights_format), Path(path), on_progress)

    def _find_student(self) -> StoredFile:
        archives = [file for file in self.artifacts() if file.kind == "student_archive"]
        if not archives:
            self.refresh()
            raise DownloadError(f"job {self.state.id} is {self.state.status} and has no student to download")
        return max(archives, key=lambda file: file.attempt)

    def _find_weights(self, weights_format: WeightsFormat) -> RemoteFile:
        answer = self._transport.request("GET", self._path("weights"), parameters={"format": weights_format})
        return RemoteFile(
            url=answer.headers["Location"],
            size=int(answer.headers["X-Content-Size"]),
            sha256=answer.headers["X-Content-Sha256"],
        )

    def _path(self, part: str = "") -> str:
        return f"/jobs/{self.state.id}" + (f"/{part}" if part else "")


def _submit(
    transport: Transport, path: str, body: Mapping[str, Any], idempotency_key: str | None
) -> JobState:
    key = idempotency_key or str(uuid.uuid4())
    answer = transport.request("POST", path, body=body, headers={"Idempotency-Key": f'"{key}"'})
    return JobState.model_validate(answer.json())


def submission_body(spec: DistillationSpec | Mapping[str, Any]) -> dict[str, Any]:
    """Write a specification as a request's body; what was left out is left to the service."""
    if isinstance(spec, DistillationSpec):
        return spec.model_dump(mode="json", include=spec.model_fields_set)
    return dict(spec)


class Jobs:
    """The jobs of a service."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

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
        body = submission_body(spec)
        if options is not None:
            body["options"] = dict(options)
        return Job(self._transport, _submit(self._transport, "/jobs", body, idempotency_key))

    def get(self, job_id: str) -> Job:
        """Get one job; `NotFoundError` if there is none of that id."""
        return Job(self._transport, self._transport.read(JobState, f"/jobs/{job_id}"))

    def list(
        self, *, status: str | None = None, teacher: str | None = None, limit: int = 20
    ) -> Sequence[Job]:
        """List the newest jobs, at most ``limit`` of them."""
        found: list[JobState] = []
        cursor: str | None = None
        while len(found) < limit:
            page = self._transport.read(
                Page[JobState],
                "/jobs",
                parameters={
                    "status": status,
                    "teacher": teacher,
                    "limit": min(limit - len(found), PAGE),
                    "after": cursor,
                },
            )
            found += page.items
            cursor = page.next
            if not page.has_more:
                break
        return [Job(self._transport, state) for state in found]
