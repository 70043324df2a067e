"""Files of captions: uploaded as streams, listed, deleted."""

import builtins
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from client.errors import UploadError
from client.models import CaptionFile, Page
from client.transport import Transport

BLOCK_BYTES = 2**18
PAGE = 200


class Captions:
    """The caption files of a service."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def upload(
        self,
        path: str | Path,
        name: str | None = None,
        on_progress: Callable[[int, int], object] | None = None,
    ) -> CaptionFile:
        """Upload a file of captions: text, CSV, TSV, JSON Lines or Parquet.

        The same file uploaded twice is stored once.

        Parameters
        ----------
        path
            The file; it is read block by block, never whole.
        name
            Its name at the service, whose ending says how it is read; the file's own by default.
        on_progress
            Called with the bytes that were sent and all bytes.

        Raises
        ------
        InvalidRequestError
            If the name says of no format, or the file is too large.
        UploadError
            If the file changed meanwhile, or something else arrived than was sent.
        """
        path = Path(path)
        size = path.stat().st_size
        digest = hashlib.sha256()

        def content() -> Iterator[bytes]:
            nonlocal digest
            digest, sent = hashlib.sha256(), 0
            with path.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    sent += len(block)
                    if sent > size:
                        break
                    digest.update(block)
                    yield block
                    if on_progress is not None:
                        on_progress(sent, size)
            if sent != size:
                raise UploadError(f"{path} changed while it was sent")

        parameters = {"name": name or path.name}
        answer = self._transport.upload("/captions", parameters=parameters, size=size, content=content)
        file = CaptionFile.model_validate(answer.json())
        if file.sha256 != digest.hexdigest():
            self.delete(file.id)
            raise UploadError(f"{path} did not arrive as it was sent; upload it again")
        return file

    def get(self, file_id: str) -> CaptionFile:
        """Get one file's description; `NotFoundError` if there is none of that id."""
        return self._transport.read(CaptionFile, f"/captions/{file_id}")

    def list(self, limit: int = 20) -> builtins.list[CaptionFile]:
        """List the newest files, at most ``limit`` of them."""
        found: builtins.list[CaptionFile] = []
        cursor: str | None = None
        while len(found) < limit:
            page = self._transport.read(
                Page[CaptionFile],
                "/captions",
                parameters={"limit": min(limit - len(found), PAGE), "after": cursor},
            )
            found += page.items
            cursor = page.next
            if not page.has_more:
                break
        return found

    def delete(self, file_id: str) -> None:
        """Delete a file; `ConflictError` while a job that has not ended reads it."""
        self._transport.request("DELETE", f"/captions/{file_id}")
