"""How many uploads one process takes at a time, which bounds its memory: each holds one piece of its file."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from api.errors import TooManyUploadsError

MAX_UPLOADS = 8
MAX_UPLOADS_OF_TENANT = 4
"""Half of them, so that no tenant alone keeps all others from uploading, however slowly its own arrive."""


class UploadSlots:
    """Counts the uploads under way, by tenant."""

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()

    @contextmanager
    def take(self, tenant_id: str) -> Iterator[None]:
        """Hold a slot for a tenant.

        Raises
        ------
        TooManyUploadsError
            If it has as many as one tenant may, or all are taken.
        """
        if self.taken[tenant_id] >= MAX_UPLOADS_OF_TENANT:
            raise TooManyUploadsError(
                f"{MAX_UPLOADS_OF_TENANT} uploads of yours are under way. Try again when one has ended."
            )
        if self.taken.total() >= MAX_UPLOADS:
            raise TooManyUploadsError("Other uploads are under way. Try again when one has ended.")
        self.taken[tenant_id] += 1
        try:
            yield
        finally:
            self.taken[tenant_id] -= 1
