"""Servers that a test may stop and start as it likes: the embedded ones, in a folder of their own.

They are durable, unlike those that the run of the tests shares: what Postgres has confirmed must outlast a
crash.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import psutil
import psycopg
from psycopg import sql

from embedded import processes
from embedded.credentials import Credentials
from embedded.ports import PortBook
from embedded.postgres import Postgres
from embedded.processes import ProcessRecord
from embedded.seaweedfs import SeaweedFS
from embedded.server import Server, Site
from embedded.valkey import Valkey

ServerName = Literal["postgres", "valkey", "seaweedfs"]
REPOSITORY = Path(__file__).resolve().parents[2]
READY_SECONDS = 60.0
# Apart from those of all other stacks, one of which may start while a server of ours is down.
OWN_PORTS = range(10_000, 20_000)


class OwnServers:
    """Postgres, Valkey and SeaweedFS in a folder, each at the same address after every start.

    Parameters
    ----------
    data_dir
        The folder; made when missing.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.resolve()
        self._data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        site = Site(self._data_dir, Credentials.load_or_generate(data_dir / "credentials.json"), durable=True)
        self._servers: dict[str, Server] = {
            server.name: server for server in (Postgres(site), Valkey(site), SeaweedFS(site))
        }
        book = PortBook(self._data_dir / "ports.json", among=OWN_PORTS)
        self._ports = {
            name: book.take(server.port_names, server.port_offsets) for name, server in self._servers.items()
        }
        self._running: dict[str, ProcessRecord] = {}

    def environment(self) -> dict[str, str]:
        """How the service's processes find the servers."""
        return {
            variable: value
            for name, server in self._servers.items()
            for variable, value in server.environment(self._ports[name]).items()
        }

    def start(self, *names: ServerName) -> None:
        """Start these servers, or all; one that runs is left alone. Returns once they answer."""
        for name in names or tuple(self._servers):
            if name in self._running:
                continue
            server, ports = self._servers[name], self._ports[name]
            server.prepare()
            command = server.command(ports)
            record = processes.spawn(command, mark=str(self._data_dir))
            processes.await_ready(record, command, partial(server.is_ready, ports), READY_SECONDS)
            self._running[name] = record

    def is_running(self, name: ServerName) -> bool:
        """Whether a server was started and not ended."""
        return name in self._running

    def process(self, name: ServerName) -> psutil.Process:
        """The process of a server that runs, to be sent a signal."""
        return psutil.Process(self._running[name].pid)

    def kill(self, name: ServerName) -> None:
        """End a server with all its processes at once, as a crash would."""
        process = self._running.pop(name)
        family = psutil.Process(process.pid)
        processes.kill([family, *family.children(recursive=True)])

    def stop(self) -> None:
        """End all that runs."""
        for name in tuple(self._running):
            self.kill(name)  # type: ignore[arg-type]

    @contextmanager
    def without(self, name: ServerName) -> Iterator[None]:
        """Crash a server, and start it again at the end of the block."""
        self.kill(name)
        try:
            yield
        finally:
            self.start(name)

    def administer(self, statement: str, *names: str) -> None:
        """Execute a statement in Postgres's own database; `names` are set in for its ``{}``."""
        url = self.environment()["DATABASE_URL"].rsplit("/", 1)[0] + "/postgres"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def create_database(self, name: str, *, template: str) -> str:
        """Make a database out of another, and return its URL."""
        self.administer("CREATE DATABASE {} TEMPLATE {}", name, template)
        return self.environment()["DATABASE_URL"].rsplit("/", 1)[0] + f"/{name}"

    def migrate(self) -> None:
        """Bring the database that everything else is copied from to the newest revision."""
        subprocess.run(
            [sys.executable, "-m", "alembic", "-c", str(REPOSITORY / "alembic.ini"), "upgrade", "head"],
            cwd=REPOSITORY,
            env={"PATH": "", "PYTHONPATH": str(REPOSITORY), **self.environment()},
            check=True,
            capture_output=True,
        )
