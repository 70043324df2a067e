"""Fetching a student: resumed where it broke off, checked by its SHA-256, unpacked whole or not at all."""

import hashlib
import json
import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import httpx

from client.archives import unpack
from client.errors import DirectoryTakenError, DownloadError
from client.models import RemoteFile
from client.patience import Patience
from client.transport import CONNECT_SECONDS, Transport, tell

# Whole downloads of the wrong content; the first may have gone on from a broken remainder.
MOST_SPOILT = 4
BLOCK_BYTES = 2**16  # a block that is cut off is fetched again
SILENCE_SECONDS = 60.0
MANIFEST = "manifest.json"

Find = Callable[[], Awaitable[RemoteFile]]
Progress = Callable[[int, int], object]


async def download_student(
    transport: Transport, find: Find, directory: Path, on_progress: Progress | None = None
) -> Path:
    """Fetch a student's archive and unpack it into a folder.

    Parameters
    ----------
    transport
        Where the archive is asked for.
    find
        Asks the service for the archive; its link does not work for ever, so it is asked for before each try.
    directory
        Where the student goes.
    on_progress
        Called with the bytes that have arrived and all bytes.
    """
    directory = directory.absolute()
    if directory.exists() and not _is_replaceable(directory):
        raise DirectoryTakenError(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    archive = await _fetch(transport, find, directory, on_progress)
    await transport.connection.offload(partial(_replace, directory, archive))
    return directory


async def download_file(
    transport: Transport, find: Find, path: Path, on_progress: Progress | None = None
) -> Path:
    """Fetch one file, as `download_student` fetches its archive, and put it in its place when it is whole."""
    path = path.absolute()
    if path.is_dir():
        raise DirectoryTakenError(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return (await _fetch(transport, find, path, on_progress)).replace(path)


async def read_file(transport: Transport, file: RemoteFile, answer_seconds: float) -> bytes:
    """Fetch a file that fits into memory, in one try."""
    timeout = httpx.Timeout(answer_seconds, connect=min(answer_seconds, CONNECT_SECONDS))
    try:
        async with transport.elsewhere(file.url) as connection:
            response = await connection.send(connection.build("GET", file.url, timeout=timeout))
            response.raise_for_status()
    except httpx.HTTPError as error:
        raise DownloadError(f"the file could not be downloaded: {error}") from error
    if hashlib.sha256(response.content).hexdigest() != file.sha256:
        raise DownloadError("the content does not have the SHA-256 that the service announced")
    return response.content


def _replace(directory: Path, archive: Path) -> None:
    """Put what an archive holds into a folder's place."""
    unpacked = directory.with_name(f".{directory.name}.unpacked")
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        unpack(archive, unpacked)
    except DownloadError:
        shutil.rmtree(unpacked, ignore_errors=True)
        archive.unlink()
        raise
    if directory.exists():
        if not _is_replaceable(directory):  # any more: a download takes its time
            shutil.rmtree(unpacked)
            raise DirectoryTakenError(directory)
        shutil.rmtree(directory)
    unpacked.rename(directory)
    archive.unlink()


def _is_replaceable(directory: Path) -> bool:
    """Whether nothing of the user's own is in a folder: it is empty, or holds a student and nothing else."""
    if not directory.is_dir():
        return False
    if not any(directory.iterdir()):
        return True
    if not (listed := _listed_files(directory / MANIFEST)):
        return False
    present = {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    return present <= listed | {MANIFEST}


def _listed_files(manifest: Path) -> set[str]:
    """Return the files that a student's manifest names; none where it is no such manifest."""
    try:
        return {str(file["path"]) for file in json.loads(manifest.read_text(encoding="utf-8"))["files"]}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return set()


async def _fetch(transport: Transport, find: Find, target: Path, on_progress: Progress | None) -> Path:
    """Fetch into a file that is named by its content, so that a later call can go on with it."""
    patience, spoilt = Patience(transport.connection), 0
    while True:
        file = await find()
        part = target.with_name(f".{target.name}.{file.sha256[:16]}.part")
        had = _size(part)
        try:
            await _continue(transport, file, part, on_progress)
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            failure: Exception = error
            if _size(part) > had:
                patience.renew()
        else:
            if await transport.connection.offload(partial(_sha256, part)) == file.sha256:
                return part
            part.unlink()
            failure = DownloadError("the content does not have the SHA-256 that the service announced")
            spoilt += 1
        told = f"the student could not be downloaded: {failure}"
        if spoilt == MOST_SPOILT or not await patience.pause(told):
            raise DownloadError(told) from failure


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


async def _continue(transport: Transport, file: RemoteFile, part: Path, on_progress: Progress | None) -> None:
    have = _size(part)
    if have == file.size:
        return
    if have > file.size:
        part.unlink()
        have = 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
    async with transport.elsewhere(file.url) as connection:
        request = connection.build("GET", file.url, headers=headers, timeout=timeout)
        async with connection.stream(request) as response:
            response.raise_for_status()
            resumes = response.status_code == httpx.codes.PARTIAL_CONTENT
            have = have if resumes else 0
            with part.open("ab" if resumes else "wb") as target:
                async for block in connection.blocks(response, BLOCK_BYTES):
                    target.write(block)
                    have += len(block)
                    await tell(on_progress, have, file.size)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
