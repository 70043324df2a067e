"""Unpacking a student's archive, without trust in what it says of itself.

The service writes archives of plain files, uncompressed. Whatever else one holds did not come from there,
and nothing of it is unpacked: paths that lead out of the folder, links, the same name twice, or more bytes
than the archive itself has, as in a bomb.
"""

import stat
import zipfile
from pathlib import Path, PurePosixPath

from client.errors import DownloadError

MAX_FILES = 10_000
BLOCK_BYTES = 2**20
_FORBIDDEN = set('\\:*?"<>|')


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive into a folder that is not there yet.

    Raises
    ------
    DownloadError
        If it is no archive as the service writes it, or is damaged; what was begun is the caller's to remove.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            entries = [entry for entry in content.infolist() if not entry.is_dir()]
            _check(entries, archive.stat().st_size)
            folder.mkdir(parents=True)
            for entry in entries:
                _write(content, entry, folder / entry.filename)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DownloadError(f"the archive is damaged: {error}") from error


def _check(entries: list[zipfile.ZipInfo], archive_bytes: int) -> None:
    if len(entries) > MAX_FILES:
        raise DownloadError(f"the archive holds {len(entries):,} files; a student has at most {MAX_FILES:,}")
    seen: set[str] = set()
    for entry in entries:
        if (problem := _problem(entry)) is not None:
            raise DownloadError(f"the archive holds {entry.filename!r}, {problem}: it is not unpacked")
        # A file system may tell neither case nor a file from a folder of the same name apart.
        path = PurePosixPath(entry.filename.lower())
        if str(path) in seen:
            raise DownloadError(f"the archive holds {entry.filename!r} twice: it is not unpacked")
        seen.add(str(path))
    parents = {str(parent) for name in seen for parent in PurePosixPath(name).parents}
    if clash := sorted(seen & parents):
        raise DownloadError(f"the archive holds {clash[0]!r} as file and folder: it is not unpacked")
    total = sum(entry.file_size for entry in entries)
    if total > archive_bytes:
        raise DownloadError(
            f"the archive would unpack to {total:,} bytes and has only {archive_bytes:,}: it is not unpacked"
        )


def _problem(entry: zipfile.ZipInfo) -> str | None:
    parts = entry.filename.split("/")
    mode = entry.external_attr >> 16
    if any(part in {"", ".", ".."} for part in parts):
        return "whose path leads elsewhere"
    if _FORBIDDEN.intersection(entry.filename) or not entry.filename.isprintable():
        return "whose name not every system can have"
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
        return "which is no plain file"
    if entry.compress_type != zipfile.ZIP_STORED:
        return "which is compressed"
    return None


def _write(content: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with content.open(entry) as source, path.open("xb") as target:
        while block := source.read(BLOCK_BYTES):
            target.write(block)
