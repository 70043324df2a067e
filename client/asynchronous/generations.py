"""Pictures that a job's models draw while a coroutine waits for them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Self

from client.asynchronous.resources import AsyncResource
from client.downloads import download_file
from client.errors import ConflictError, GenerationFailedError, WaitTimeoutError
from client.models import DrawnPicture, GenerationState, RemoteFile


class AsyncGeneration(AsyncResource[GenerationState]):
    """A generation of the service; `Generation`, awaited."""

    collection: ClassVar[str] = "generations"

    @property
    def pictures(self) -> Sequence[DrawnPicture]:
        """One of each model, in the order in which they were asked for."""
        return self.state.pictures

    async def wait(
        self,
        on_change: Callable[[Self], object] | None = None,
        timeout_seconds: float | None = None,
    ) -> Self:
        """Wait as `Generation.wait` does; ``on_change`` may be a coroutine function."""
        if not await self._until_ended(on_change, timeout_seconds) and await self._is_cancelled():
            why = f": {self.state.waiting_message}" if self.state.waiting_message else ""
            raise WaitTimeoutError(f"generation {self.state.id} was not drawn in time{why}")
        if self.state.status != "succeeded":
            raise GenerationFailedError(self.state)
        return self

    async def cancel(self) -> None:
        """End the generation; `ConflictError` when it has ended otherwise."""
        await self._transport.request("POST", self._path("cancel"))

    async def _is_cancelled(self) -> bool:
        """Cancel the generation; False when it has ended just before that."""
        try:
            await self.cancel()
        except ConflictError:
            await self.refresh()
            return False
        return True

    async def save(self, position: int, path: str | Path) -> Path:
        """Fetch one of `pictures` into a PNG file, as `Generation.save` does."""

        async def find() -> RemoteFile:
            await self.refresh()  # a link works for an hour, a picture stays for a day
            picture = self.state.pictures[position]
            return RemoteFile.model_validate(picture.model_dump(include={"url", "size", "sha256"}))

        return await download_file(self._transport, find, Path(path))
