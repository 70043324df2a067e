"""Entries of the cache that jobs on one machine share: folders named by what their content follows from.

Whoever uses an entry holds it, by a lock that the system lets go of when the process ends, however it ends.
So whoever makes room finds out what is in use by asking the system.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.files import temporary_beside, write_json

DESCRIPTION_FILE = "entry.json"
HOLD_FILE = ".in-use"
WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}

_held: dict[Path, int] = {}


def cache_entry(cache: Path, kind: str, identity: Mapping[str, Any]) -> Path:
    """Return the folder of an entry, after writing its description anew: that is how it was used last.

    It is held until this process ends.

    Parameters
    ----------
    cache
        The cache's folder.
    kind
        What entries of this sort are called.
    identity
        Everything that the content follows from, as JSON can hold it.
    """
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    folder = cache / kind / key
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # removed in between
            if folder not in _held:
                _held[folder] = hold(folder)
            write_json(folder / DESCRIPTION_FILE, identity)
            return folder


def hold(entry: Path) -> int:
    """Keep an entry from being removed until the process ends or closes the descriptor that is returned.

    Raises
    ------
    FileNotFoundError
        If there is no such entry, or it has just been removed.
    """
    descriptor = _open(entry, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:  # on such a file system nobody can remove it either
                raise
        _check_still_there(descriptor, entry)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def remove_unless_held(entry: Path) -> bool:
    """Remove an entry that nobody uses; False where somebody does.

    It loses its name before its content: whoever is killed half-way leaves nothing that looks like an entry.
    """
    try:
        descriptor = _open(entry, os.O_RDWR)  # NFS lets nobody shut others out of a file open for reading
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _check_still_there(descriptor, entry)
        nameless = temporary_beside(entry)
        entry.rename(nameless)
    except FileNotFoundError:
        return not entry.exists()  # it may have been made anew
    except OSError as error:
        if not isinstance(error, BlockingIOError) and error.errno not in WITHOUT_LOCKS:
            raise
        return False
    finally:
        os.close(descriptor)
    shutil.rmtree(nameless, ignore_errors=True)
    return True


def _check_still_there(descriptor: int, entry: Path) -> None:
    if not os.path.samestat(os.fstat(descriptor), (entry / HOLD_FILE).stat()):
        raise FileNotFoundError(f"{entry} was removed and made anew")


def _open(entry: Path, access: int) -> int:
    return os.open(entry / HOLD_FILE, access | os.O_CREAT, 0o644)
