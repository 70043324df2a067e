"""Signatures with a clock that is wrong: refused once, and by the server's time from then on."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from core.object_references import ObjectReference
from store import s3_clock
from store.errors import RemoteObjectError, UnavailableError
from store.objects import ObjectStore
from store.remote_objects import RemoteObjects
from store.settings import Settings


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


@pytest.mark.parametrize("call", ["find", "list_under", "read"])
def test_an_object_that_a_user_named_is_found_the_second_time(
    settings: Settings, object_store: ObjectStore, tmp_path: Path, wrong_clock: timedelta, call: str
) -> None:
    """What is refused for the clock is not the user's fault, so it is tried again."""
    s3_clock._ServerTimeAuth.ahead = timedelta(0)
    (tmp_path / "file").write_text("content")
    object_store.upload_file(tmp_path / "file", "a/file")
    remote = RemoteObjects(settings)
    found = remote.find(ObjectReference(settings.s3_bucket, "a/file"))
    calls = {
        "find": lambda: remote.find(found.reference),
        "list_under": lambda: remote.list_under(ObjectReference(settings.s3_bucket, "a"), 10),
        "read": lambda: remote.read(found, max_bytes=10),
    }
    s3_clock._ServerTimeAuth.ahead = wrong_clock
    with pytest.raises(UnavailableError):
        calls[call]()
    assert calls[call]() in (found, [found], b"content")


@pytest.mark.usefixtures("wrong_clock")
def test_of_two_requests_that_are_refused_at_once_both_are_tried_again(settings: Settings) -> None:
    """The second is refused for a date of before the first one's refusal had set the clock."""
    remote = RemoteObjects(settings)
    reference = ObjectReference(settings.s3_bucket, "a/file")
    sent = Barrier(2, timeout=30)

    def send_both(*arguments: Any, **changes: Any) -> None:
        sent.wait()

    remote._client.meta.events.register("before-send.s3.HeadObject", send_both)
    with ThreadPoolExecutor() as threads:
        for call in [threads.submit(remote.find, reference) for _ in range(2)]:
            with pytest.raises(UnavailableError):
                call.result()


@pytest.mark.usefixtures("wrong_clock")
def test_what_is_refused_by_the_right_clock_too_is_for_the_user_to_mend(settings: Settings) -> None:
    stranger = settings.model_copy(update={"s3_access_key_id": "nobody"})
    reference = ObjectReference(settings.s3_bucket, "a/file")
    with pytest.raises(UnavailableError):
        RemoteObjects(stranger).find(reference)
    with pytest.raises(RemoteObjectError):
        RemoteObjects(stranger).find(reference)
