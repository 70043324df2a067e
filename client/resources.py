"""What a job and a generation have in common, in either client."""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from client.models import ResourceState

State = TypeVar("State", bound=ResourceState)


class Resource(ABC, Generic[State]):
    """Something of the service that goes on by itself until it ends."""

    @property
    @abstractmethod
    def state(self) -> State:
        """All that was known of it when the service was last asked."""

    @property
    def id(self) -> str:
        """Its id."""
        return self.state.id

    @property
    def status(self) -> str:
        """Its last known status."""
        return self.state.status

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.state.id} {self.state.status}>"
