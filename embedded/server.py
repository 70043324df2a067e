"""What the stack needs to know of a server, and the surroundings that all of them share."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from embedded.credentials import Credentials
from embedded.processes import Command

BUCKET = "condenser"
REGION = "us-east-1"


@dataclass(frozen=True)
class Site:
    """Where a stack lives and how careful it is.

    ``durable`` false trades crash safety for speed; for stacks that are thrown away.
    """

    data_dir: Path
    credentials: Credentials
    durable: bool

    def log(self, name: str) -> Path:
        """Return the log file of a process."""
        return self.data_dir / "logs" / f"{name}.log"


class Server(Protocol):
    """One of the servers: how to start it, ask it, and address it."""

    name: ClassVar[str]
    address_variable: ClassVar[str]
    port_names: ClassVar[tuple[str, ...]]
    port_offsets: ClassVar[Mapping[str, int]]

    def prepare(self) -> None:
        """Make what must be on disk before the process starts."""

    def command(self, ports: Mapping[str, int]) -> Command:
        """Say how to start the process."""

    def is_ready(self, ports: Mapping[str, int]) -> bool:
        """Tell whether the server answers, and refuses whoever it should refuse."""

    def environment(self, ports: Mapping[str, int]) -> dict[str, str]:
        """Name the server's address and credentials as the service's settings do."""


def server_environment() -> dict[str, str]:
    """Return a server's environment: next to nothing, so that no setting of the user's shell leaks in."""
    kept = ("PATH", "HOME", "TMPDIR")
    return {"LC_ALL": "C"} | {name: os.environ[name] for name in kept if name in os.environ}
