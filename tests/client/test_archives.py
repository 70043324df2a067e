"""Hostile archives are refused before anything of them is unpacked."""

import io
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from client import DownloadError
from client.archives import MAX_FILES, unpack


def entry(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16
    return made


def zipped(*names: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as content:
        for name in names:
            content.writestr(entry(name), b"content")
    return packed.getvalue()


def renamed(harmless: str, hostile: str) -> bytes:
    """An archive with a name that Python itself would not write."""
    assert len(harmless) == len(hostile)
    return zipped(harmless).replace(harmless.encode(), hostile.encode())


def link() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as content:
        content.writestr(entry("unet", stat.S_IFLNK | 0o777), b"/etc")
        content.writestr(entry("unet/passwd"), b"content")
    return packed.getvalue()


def device() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as content:
        content.writestr(entry("tty", stat.S_IFCHR | 0o666), b"")
    return packed.getvalue()


def bomb() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr("zeros", bytes(50_000_000))
    return packed.getvalue()


def overlapping_bomb() -> bytes:
    """Many entries that all are the same bytes of the archive."""
    kernel = zipped("file-0000")
    directory_at = kernel.index(b"PK\x01\x02")
    end_at = kernel.index(b"PK\x05\x06")
    record, count = kernel[directory_at:end_at], 1_000
    directory = b"".join(record.replace(b"file-0000", b"file-%04d" % n) for n in range(count))
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), directory_at, 0)
    return kernel[:directory_at] + directory + end


def doubled() -> bytes:
    return zipped("unet/a.json", "UNET/A.json")


def understated() -> bytes:
    """An archive whose directory says that a file is smaller than it is."""
    packed = bytearray(zipped("file"))
    directory_at = packed.index(b"PK\x01\x02")
    packed[directory_at + 24 : directory_at + 28] = struct.pack("<L", 1)
    return bytes(packed)


HOSTILE: list[tuple[Callable[[], bytes], str]] = [
    (lambda: zipped("../outside"), "leads elsewhere"),
    (lambda: zipped("unet/../../outside"), "leads elsewhere"),
    (lambda: zipped("/outside"), "leads elsewhere"),
    (lambda: zipped("unet//outside"), "leads elsewhere"),
    (lambda: zipped("C:/outside"), "not every system"),
    (lambda: renamed("a/outside", "a\\outside"), "not every system"),
    (lambda: zipped("a\nb"), "not every system"),
    (link, "no plain file"),
    (device, "no plain file"),
    (bomb, "is compressed"),
    (overlapping_bomb, "damaged|Overlapped|bytes"),
    (doubled, "twice"),
    (lambda: zipped("unet", "unet/a.json"), "as file and folder"),
    (understated, "damaged"),
    (lambda: zipped(*map(str, range(MAX_FILES + 1))), "at most"),
    (lambda: b"PK nothing", "damaged"),
    (lambda: zipped("a", "b")[:-30], "damaged"),
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_a_hostile_archive_is_not_unpacked(tmp_path: Path, number: int) -> None:
    make, said = HOSTILE[number]
    archive, folder = tmp_path / "student.zip", tmp_path / "to" / "student"
    archive.write_bytes(make())
    with pytest.raises(DownloadError, match=said):
        unpack(archive, folder)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path != archive]
    assert sum(path.stat().st_size for path in written) <= 2 * archive.stat().st_size
    assert all(path.is_relative_to(folder) for path in written)


def test_a_plain_archive_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "student.zip").write_bytes(zipped("manifest.json", "unet/config.json"))
    unpack(tmp_path / "student.zip", tmp_path / "student")
    assert (tmp_path / "student" / "unet" / "config.json").read_bytes() == b"content"
