"""What a worker clears from its own disk: work folders of attempts that are over, caches over their quota.

Several workers may share the folders of one machine. A work folder is kept as long as the database says that
its attempt runs. A cache entry is kept as long as somebody holds it (`core.cache`).
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.cache import remove_unless_held
from core.files import is_temporary
from store.attempts import running_attempts
from store.database import Engine, transaction
from store.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheEntry:
    """A folder of the cache: the shards of one set of latents, for one."""

    path: Path
    size: int
    used_at: float


def remove_dead_work(engine: Engine, work_dir: Path) -> list[Path]:
    """Remove the work folders of attempts that do not run, such as those of a worker that was killed.

    Returns
    -------
    list of Path
        What was removed.
    """
    # Listed before the database is asked: an attempt is claimed before its folder is made.
    folders = [folder for folder in work_dir.glob("*/*") if folder.is_dir()]
    if not folders:
        return []
    with transaction(engine) as session:
        running = running_attempts(session)
    dead = [folder for folder in folders if (folder.parent.name, folder.name) not in running]
    for folder in dead:
        logger.warning("removing %s, whose attempt is over", folder)
        remove_work(folder)
    return dead


def remove_work(folder: Path) -> None:
    """Remove the work folder of an attempt, and the job's once no attempt is in it."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # another attempt of the job has its folder there
        folder.parent.rmdir()


def make_room(settings: Settings) -> None:
    """Trim the cache to what it may have, and further where the disk has too little room left."""
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    trim_cache(
        settings.cache_dir,
        max_bytes=settings.cache_max_bytes,
        missing_bytes=settings.min_free_bytes - shutil.disk_usage(settings.cache_dir).free,
    )


def trim_cache(cache_dir: Path, *, max_bytes: int, missing_bytes: int = 0) -> list[Path]:
    """Remove cache entries that nobody uses until the rest fits, the least recently used first.

    Parameters
    ----------
    cache_dir
        Holds a folder for each kind of entry, and in it a folder for each entry.
    max_bytes
        What the entries may have together.
    missing_bytes
        What is to be removed at least, as the disk has so much too little room.

    Returns
    -------
    list of Path
        What was removed.
    """
    entries = sorted(_entries(cache_dir), key=lambda entry: entry.used_at)
    surplus = max(sum(entry.size for entry in entries) - max_bytes, missing_bytes)
    removed: list[Path] = []
    for entry in entries:
        if surplus <= 0:
            break
        try:
            is_removed = remove_unless_held(entry.path)
        except OSError as error:  # another user's, for one: it must not keep the others in place
            logger.warning("%s cannot be removed from the cache: %s", entry.path, error)
            continue
        if is_removed:
            logger.info("removed %s from the cache: %d bytes", entry.path, entry.size)
            surplus -= entry.size
            removed.append(entry.path)
    return removed


def _entries(cache_dir: Path) -> Iterator[CacheEntry]:
    """Read the cache; whoever uses an entry writes into it, if only its description anew.

    What a process that was killed left half made or half removed counts as never used.
    """
    for path in cache_dir.glob("*/*"):
        if path.is_dir():
            stats = list(_file_stats(path))
            used_at = 0.0 if is_temporary(path) else max((stat.st_mtime for stat in stats), default=0.0)
            yield CacheEntry(path, sum(stat.st_size for stat in stats), used_at)


def _file_stats(folder: Path) -> Iterator[os.stat_result]:
    """Read what there is to tell of the files in a folder that others may write into or remove meanwhile."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                yield (Path(parent) / name).stat()
