"""Signatures with a clock that is wrong: refused once, and by the server's time from then on."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from store import s3_clock
from store.errors import UnavailableError
from store.objects import ObjectStore


@pytest.fixture(params=[-20, 60], ids=["behind", "ahead"])
def wrong_clock(request: pytest.FixtureRequest) -> Iterator[timedelta]:
    before = s3_clock._ServerTimeAuth.ahead
    s3_clock._ServerTimeAuth.ahead = timedelta(minutes=request.param)
    yield s3_clock._ServerTimeAuth.ahead
    s3_clock._ServerTimeAuth.ahead = before


@pytest.mark.usefixtures("wrong_clock")
def test_an_upload_works_the_second_time(object_store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    with pytest.raises(UnavailableError, match="RequestTimeTooSkewed"):
        object_store.upload_file(tmp_path / "file", "a/file")
    assert abs(s3_clock._ServerTimeAuth.ahead) < timedelta(seconds=30)
    stored = object_store.upload_file(tmp_path / "file", "a/file")
    object_store.download_file("a/file", tmp_path / "again", sha256=stored.sha256)


def test_a_download_works_the_second_time(
    object_store: ObjectStore, tmp_path: Path, wrong_clock: timedelta
) -> None:
    """It begins with a HEAD request, whose refusal has no body to say why."""
    s3_clock._ServerTimeAuth.ahead = timedelta(0)
    (tmp_path / "file").write_text("content")
    stored = object_store.upload_file(tmp_path / "file", "a/file")
    s3_clock._ServerTimeAuth.ahead = wrong_clock
    with pytest.raises(UnavailableError):
        object_store.download_file("a/file", tmp_path / "again", sha256=stored.sha256)
    object_store.download_file("a/file", tmp_path / "again", sha256=stored.sha256)
    assert (tmp_path / "again").read_text() == "content"
