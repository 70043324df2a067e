"""The student as one file to download."""

import zipfile
from pathlib import Path

# The oldest time that a ZIP file can hold: equal students make equal archives.
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)


def files_of(folder: Path) -> list[Path]:
    """All files under a folder, sorted, manifests last: their presence then says that the rest is there."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: (path.name == "manifest.json", path.as_posix()))


def write_archive(folder: Path, archive: Path) -> None:
    """Write the content of a folder into a ZIP file, streamed and uncompressed (weights do not compress).

    Parameters
    ----------
    folder
        Its files lie at the archive's root, so that unpacking makes a folder that diffusers loads.
    archive
        Replaced if it exists.
    """
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as target:
        for path in files_of(folder):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), date_time=_FIXED_TIME)
            entry.external_attr = 0o644 << 16
            entry.file_size = path.stat().st_size
            with path.open("rb") as source, target.open(entry, "w") as sink:
                while block := source.read(2**20):
                    sink.write(block)
