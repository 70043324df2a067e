"""A worker's signs of life, whatever becomes of a beat."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, text

from store.workers import Announcement
from worker.announcer import Announcer

TOLD = Announcement(
    name="w",
    role="training",
    host="here",
    queue="cpu",
    release="1.0",
    device="a processor",
    device_count=2,
    memory_bytes=None,
)


def test_a_beat_that_fails_in_an_unforeseen_way_is_not_the_last(
    engine: Engine, eventually: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def rename(before: str, after: str) -> None:
        with engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE {before} RENAME TO {after}"))

    def is_announced() -> bool:
        with engine.connect() as connection:
            return connection.execute(text("SELECT name FROM workers")).scalars().all() == ["w"]

    rename("workers", "away")
    try:
        announcer = Announcer(engine, TOLD, beat_seconds=0.02)
        eventually(lambda: "no sign of life" in caplog.text)
    finally:
        rename("away", "workers")
    eventually(is_announced)
    announcer.stop()
    assert not is_announced()
