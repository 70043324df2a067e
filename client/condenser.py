"""The entrance to the client: one service, its jobs, captions and teachers."""

from types import TracebackType
from typing import Self

from client.captions import Captions
from client.jobs import Jobs
from client.models import Page, Teacher
from client.transport import Transport


class Teachers:
    """The teachers of a service."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[Teacher]:
        """List the teachers, each with the student sizes that fit it."""
        return self._transport.read(Page[Teacher], "/teachers").items


class Condenser:
    """A Condenser service.

    Parameters
    ----------
    base_url
        Where it is, such as ``http://127.0.0.1:8000``.

    Attributes
    ----------
    jobs
        Submit, list and get jobs.
    captions
        Upload, list and delete files of captions.
    teachers
        List teachers.
    """

    def __init__(self, base_url: str) -> None:
        self._transport = Transport(base_url)
        self.jobs = Jobs(self._transport)
        self.captions = Captions(self._transport)
        self.teachers = Teachers(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the service."""
        self._transport.close()
