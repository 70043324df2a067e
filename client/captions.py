"""Files of captions: uploaded as streams, listed, deleted."""

import builtins
from collections.abc import Iterator
from pathlib import Path

from client.asynchronous.captions import AsyncCaptions
from client.blocking import iterate, run
from client.downloads import Progress
from client.models import CaptionFile


class Captions:
    """The caption files of a service."""

    def __init__(self, captions: AsyncCaptions) -> None:
        self._captions = captions

    def upload(
        self, path: str | Path, name: str | None = None, on_progress: Progress | None = None
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
        return run(self._captions.upload(path, name, on_progress))

    def get(self, file_id: str) -> CaptionFile:
        """Get one file's description; `NotFoundError` if there is none of that id."""
        return run(self._captions.get(file_id))

    def iterate(self, limit: int | None = None) -> Iterator[CaptionFile]:
        """Yield the files, the newest first; a page is asked for when the one before has been used up."""
        return iterate(self._captions.iterate(limit))

    def list(self, limit: int = 20) -> builtins.list[CaptionFile]:
        """List the newest files, at most ``limit`` of them."""
        return run(self._captions.list(limit))

    def delete(self, file_id: str) -> None:
        """Delete a file; `ConflictError` while a job that has not ended reads it."""
        run(self._captions.delete(file_id))
