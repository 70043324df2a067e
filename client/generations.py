"""Pictures that a job's models draw while one waits for them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from client.asynchronous.generations import AsyncGeneration
from client.blocking import run
from client.models import DrawnPicture, GenerationState
from client.resources import Resource


class Generation(Resource[GenerationState]):
    """A generation of the service."""

    def __init__(self, generation: AsyncGeneration) -> None:
        self._generation = generation

    @property
    def state(self) -> GenerationState:
        """All that was known of the generation when the service was last asked."""
        return self._generation.state

    @property
    def pictures(self) -> Sequence[DrawnPicture]:
        """One of each model, in the order in which they were asked for."""
        return self._generation.pictures

    def refresh(self) -> Self:
        """Ask the service for the generation's present state."""
        run(self._generation.refresh())
        return self

    def wait(
        self,
        on_change: Callable[[Self], object] | None = None,
        timeout_seconds: float | None = None,
    ) -> Self:
        """Wait until all pictures are drawn; the service draws them only while somebody waits.

        Parameters
        ----------
        on_change
            Called with the generation at once and after every change.
        timeout_seconds
            Longest time to wait; for ever by default.

        Raises
        ------
        GenerationFailedError
            If it fails, is cancelled, or was given up.
        WaitTimeoutError
            If the time is over; the generation is then cancelled.
        """
        listener = None if on_change is None else lambda _: on_change(self)
        run(self._generation.wait(listener, timeout_seconds))
        return self

    def cancel(self) -> None:
        """End the generation; `ConflictError` when it has ended otherwise."""
        run(self._generation.cancel())

    def delete(self) -> None:
        """Delete the generation with its pictures."""
        run(self._generation.delete())

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
        return run(self._generation.save(position, path))
