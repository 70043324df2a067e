"""Files of captions: uploaded as streams, listed, deleted."""

import builtins
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

from client.downloads import Progress
from client.errors import UploadError
from client.models import CaptionFile, Page
from client.transport import Transport, model_of, tell

BLOCK_BYTES = 2**18


class AsyncCaptions:
    """The caption files of a service; `Captions`, awaited."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def upload(
        self, path: str | Path, name: str | None = None, on_progress: Progress | None = None
    ) -> CaptionFile:
        """Upload a file of captions, as `Captions.upload` does."""
        path = Path(path)
        size = path.stat().st_size
        digest = hashlib.sha256()

        async def content() -> AsyncIterator[bytes]:
            nonlocal digest
            digest, sent = hashlib.sha256(), 0
            with path.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    sent += len(block)
                    if sent > size:
                        break
                    digest.update(block)
                    yield block
                    await tell(on_progress, sent, size)
            if sent != size:
                raise UploadError(f"{path} changed while it was sent")

        parameters = {"name": name or path.name}
        answer = await self._transport.upload("/captions", parameters=parameters, size=size, content=content)
        file = model_of(CaptionFile, answer)
        if file.sha256 != digest.hexdigest():
            await self.delete(file.id)
            raise UploadError(f"{path} did not arrive as it was sent; upload it again")
        return file

    async def get(self, file_id: str) -> CaptionFile:
        """Get one file's description; `NotFoundError` if there is none of that id."""
        return await self._transport.read(CaptionFile, f"/captions/{file_id}")

    def iterate(self, limit: int | None = None) -> AsyncIterator[CaptionFile]:
        """Yield the files, the newest first; a page is asked for when the one before has been used up."""
        return self._transport.items(Page[CaptionFile], "/captions", limit=limit)

    async def list(self, limit: int = 20) -> builtins.list[CaptionFile]:
        """List the newest files, at most ``limit`` of them."""
        return [file async for file in self.iterate(limit)]

    async def delete(self, file_id: str) -> None:
        """Delete a file; `ConflictError` while a job that has not ended reads it."""
        await self._transport.request("DELETE", f"/captions/{file_id}")
