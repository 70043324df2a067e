"""The transfer thread's patience."""

import logging
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from store.errors import CorruptObjectError, LeaseLostError, UnavailableError
from worker.job_log import JobLogger
from worker.transfers import Transfer, Transfers


@pytest.fixture
def logger() -> JobLogger:
    return JobLogger(logging.getLogger("test"), job_id="j", attempt=1)


@pytest.fixture
def transfers(logger: JobLogger) -> Iterator[Transfers]:
    transfers = Transfers(patience_seconds=60, logger=logger)
    yield transfers
    transfers.abandon()
    transfers.join(10)
    assert transfers.idle


class Flaky:
    """Work that fails as told before it succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)


def test_a_server_that_comes_back_is_waited_for(transfers: Transfers) -> None:
    work = Flaky(UnavailableError("away"), UnavailableError("away"))
    transfer = transfers.submit(Transfer("x", work))
    assert transfer.finished.wait(10)
    assert (transfer.error, work.calls) == (None, 3)


@pytest.mark.parametrize(
    "error", [FileNotFoundError("gone"), LeaseLostError("lost"), KeyError("that nobody thought of")]
)
def test_what_cannot_get_better_is_not_repeated_and_ends_no_other_transfer(
    transfers: Transfers, error: Exception
) -> None:
    work = Flaky(error)
    transfer, next_one = transfers.submit(Transfer("x", work)), transfers.submit(Transfer("y", Flaky()))
    assert next_one.finished.wait(10)
    assert (transfer.error, work.calls, next_one.error) == (error, 1, None)
    assert transfers.lease_lost.is_set() == isinstance(error, LeaseLostError)


def test_patience_ends(transfers: Transfers) -> None:
    work = Flaky(*[UnavailableError("away")] * 1_000)
    transfers.hurry(0.5)
    transfer = transfers.submit(Transfer("x", work))
    assert transfer.finished.wait(10)
    assert isinstance(transfer.error, UnavailableError)
    assert work.calls >= 2


def test_those_that_pile_up_while_a_server_is_away_are_given_up_together(logger: JobLogger) -> None:
    transfers = Transfers(patience_seconds=0.7, logger=logger)
    works = [Flaky(*[UnavailableError("away")] * 1_000) for _ in range(20)]
    asked = [transfers.submit(Transfer("x", work)) for work in works]
    back = transfers.submit(Transfer("y", Flaky()))
    assert all(transfer.finished.wait(10) for transfer in [*asked, back])
    assert works[0].calls >= 2
    assert sum(work.calls for work in works[1:]) < 2 * 19, "most had no more than a last try"
    assert back.error is None
    again = transfers.submit(Transfer("z", Flaky(UnavailableError("away"))))
    assert again.finished.wait(10)
    assert again.error is None, "it was there in between"
    transfers.close()


@pytest.mark.parametrize(
    "error", [FileNotFoundError("gone"), CorruptObjectError("damaged"), KeyError("other")]
)
def test_an_outage_is_over_once_a_transfer_fails_for_another_reason(
    transfers: Transfers, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked = [0.0], threading.Event()
    monkeypatch.setattr("worker.transfers.time", SimpleNamespace(monotonic=lambda: now[0]))

    class Upload(Flaky):
        def __call__(self) -> None:
            if self.calls:
                now[0] += 3_600  # which the server lets it have
            asked.wait(10)
            super().__call__()

    first = transfers.submit(Transfer("x", Upload(UnavailableError("away"), error)))
    second = transfers.submit(Transfer("y", Flaky(UnavailableError("away once more"))))
    asked.set()
    assert second.finished.wait(10)
    assert (first.error, second.error) == (error, None)


def test_a_waiting_transfer_gives_way_to_a_later_one_of_its_kind(transfers: Transfers) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        go_on.wait(10)

    transfers.submit(Transfer("first", block, outdated_by="checkpoint"))
    assert begun.wait(10)
    work = [Flaky(), Flaky(), Flaky()]
    marks = ["checkpoint", None, "checkpoint"]
    last = [transfers.submit(Transfer("x", w, outdated_by=m)) for w, m in zip(work, marks, strict=True)][-1]
    go_on.set()
    assert last.finished.wait(10)
    assert [w.calls for w in work] == [0, 1, 1]


def test_log_lines_carry_the_job(logger: JobLogger, caplog: pytest.LogCaptureFixture) -> None:
    logger.warning("hello %s", "there", extra={"step": 3})
    (record,) = caplog.records
    assert record.getMessage() == "hello there"
    assert (record.job_id, record.attempt, record.step) == ("j", 1, 3)  # type: ignore[attr-defined]
