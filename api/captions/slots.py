"""How many uploads one process takes at a time, which bounds its memory: each holds one piece of its file."""

from collections.abc import Iterator
from contextlib import contextmanager

from api.errors import TooManyUploadsError

MAX_UPLOADS = 8


class UploadSlots:
    """Counts the uploads under way."""

    def __init__(self) -> None:
        self.taken = 0

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a slot, or refuse when all are taken."""
        if self.taken >= MAX_UPLOADS:
            raise TooManyUploadsError("Other uploads are under way. Try again when one has ended.")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
