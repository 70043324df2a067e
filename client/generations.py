"""Pictures that a job's models draw while one waits for them."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from client.downloads import download_file
from client.errors import GenerationFailedError, WaitTimeoutError
from client.models import DrawnPicture, GenerationState, RemoteFile
from client.transport import ANSWER_SECONDS, Transport

LONG_POLL_SECONDS = 20.0


class Generation:
    """A generation of the service.

    Attributes
    ----------
    state
        All that was known of it when the service was last asked.
    """

    def __init__(self, transport: Transport, state: GenerationState) -> None:
        self._transport = transport
        self.state = state

    @property
    def id(self) -> str:
        """The generation's id."""
        return self.state.id

    @property
    def pictures(self) -> Sequence[DrawnPicture]:
        """One of each model, in the order in which they were asked for."""
        return self.state.pictures

    def __repr__(self) -> str:
        return f"<Generation {self.state.id} {self.state.status}>"

    def wait(
        self,
        on_change: Callable[["Generation"], object] | None = None,
        timeout_seconds: float | None = None,
    ) -> "Generation":
        """Wait until all pictures are drawn; the service draws them only while somebody waits.

        Parameters
        ----------
        on_change
            Called with the generation at once and after every answer, also while it waits for a worker.
        timeout_seconds
            Longest time to wait; for ever by default.

        Raises
        ------
        GenerationFailedError
            If it fails, is cancelled, or was given up.
        WaitTimeoutError
            If the time is over; the generation is then cancelled.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            if on_change is not None:
                on_change(self)
            if self.state.has_ended:
                break
            left = LONG_POLL_SECONDS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                self.cancel()
                why = f": {self.state.waiting_message}" if self.state.waiting_message else ""
                raise WaitTimeoutError(f"generation {self.state.id} was not drawn in time{why}")
            self._await_change(min(left, LONG_POLL_SECONDS))
        if self.state.status != "succeeded":
            raise GenerationFailedError(self.state)
        return self

    def _await_change(self, wait_seconds: float) -> None:
        """Ask once, and be answered when it has changed or the time is over."""
        answer = self._transport.request(
            "GET",
            f"/generations/{self.state.id}",
            parameters={"wait": round(wait_seconds, 3)},
            headers={"If-None-Match": f'W/"{self.state.version}"'},
            answer_seconds=wait_seconds + ANSWER_SECONDS,
        )
        if answer.status_code != httpx.codes.NOT_MODIFIED:
            self.state = GenerationState.model_validate(answer.json())

    def cancel(self) -> None:
        """End the generation; `ConflictError` when it has ended otherwise."""
        self._transport.request("POST", f"/generations/{self.state.id}/cancel")

    def delete(self) -> None:
        """Delete the generation with its pictures."""
        self._transport.request("DELETE", f"/generations/{self.state.id}")

    def save(self, position: int, path: str | Path) -> Path:
        """Fetch a picture into a PNG file, which is replaced.

        Parameters
        ----------
        position
            Which of `pictures`.
        path
            The file; it appears when the picture has arrived and been checked.

        Raises
        ------
        DownloadError
            If the content is not as announced.
        """
        return download_file(lambda: self._find(position), Path(path), None)

    def _find(self, position: int) -> RemoteFile:
        """Link to a picture anew: a link works for an hour, a picture stays for a day."""
        self.state = self._transport.read(GenerationState, f"/generations/{self.state.id}")
        picture = self.state.pictures[position]
        return RemoteFile.model_validate(picture.model_dump(include={"url", "size", "sha256"}))


def begin_generation(
    transport: Transport, job_id: str, body: Mapping[str, Any], idempotency_key: str | None
) -> Generation:
    """Ask for pictures; a request that gets lost is sent again and still asks only once."""
    key = idempotency_key or str(uuid.uuid4())
    answer = transport.request(
        "POST", f"/jobs/{job_id}/generate", body=dict(body), headers={"Idempotency-Key": f'"{key}"'}
    )
    return Generation(transport, GenerationState.model_validate(answer.json()))
