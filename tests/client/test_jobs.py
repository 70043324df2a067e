"""Jobs through the client, against the real API."""

import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from client import (
    ApiUnreachableError,
    AsyncCondenser,
    Condenser,
    ConflictError,
    InvalidRequestError,
    JobFailedError,
    NotFoundError,
    UnavailableError,
    UnexpectedAnswerError,
    WaitTimeoutError,
)
from client.asynchronous.jobs import AsyncJob
from client.blocking import iterate, run
from client.connections import BlockingConnection
from core.spec import DistillationSpec, InlineCaptions
from store.endings import Ending, ending_of
from tests.client.conftest import Worker
from tests.client.network import (
    ANOTHER_SERVICE,
    BAD_GATEWAY,
    CUT_STREAM,
    GATEWAY_TIMEOUT,
    REDIRECT,
    SIGN_IN,
    relay_to,
)

NOBODY = "http://127.0.0.1:9"
SPEC = {"teacher": "tiny", "captions": {"kind": "inline", "texts": ["cat", "dog"]}}


def test_create_get_and_list(condenser: Condenser) -> None:
    first = condenser.jobs.create(SPEC)
    second = condenser.jobs.create(SPEC | {"student": {"width": 0.5}})
    assert first.status == "queued"
    assert second.state.student == "width-0.5"
    assert condenser.jobs.get(first.id).state == first.refresh().state
    assert [job.id for job in condenser.jobs.list()] == [second.id, first.id]
    assert condenser.jobs.list(status="running") == []


def test_list_goes_over_pages_until_the_limit(condenser: Condenser, monkeypatch: Any) -> None:
    ids = [condenser.jobs.create(SPEC).id for _ in range(5)]
    monkeypatch.setattr("client.transport.PAGE", 2)
    assert [job.id for job in condenser.jobs.list()] == ids[::-1]
    assert [job.id for job in condenser.jobs.list(limit=3)] == ids[:1:-1]


def test_a_typed_specification_leaves_what_it_does_not_say_to_the_service(condenser: Condenser) -> None:
    spec = DistillationSpec(teacher="tiny", captions=InlineCaptions(texts=["cat", "dog"]))
    assert condenser.jobs.create(spec).state.spec["drawn"]["count"] == 2


def test_a_refused_specification_names_the_field(condenser: Condenser) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        condenser.jobs.create(SPEC | {"teacher": "nobody"})
    assert refused.value.problem.errors[0].field == "teacher"
    assert refused.value.problem.errors[0].allowed == ["tiny"]
    assert "allowed: tiny" in str(refused.value)


def test_an_unknown_job_is_not_found(condenser: Condenser) -> None:
    with pytest.raises(NotFoundError):
        condenser.jobs.get("nothing")


def test_cancel(condenser: Condenser, worker: Worker) -> None:
    job = condenser.jobs.create(SPEC)
    assert job.cancel().status == "cancelled"
    running = condenser.jobs.create(SPEC)
    worker.take(running.id)
    assert running.cancel().state.cancel_requested
    worker.succeed({})
    with pytest.raises(ConflictError):
        running.cancel()


def test_pause_resume_retry_clone_and_delete(condenser: Condenser, worker: Worker) -> None:
    job = condenser.jobs.create(SPEC, options={"priority": 4, "max_runtime_s": 60})
    assert (job.state.priority, job.state.max_runtime_s) == (4, 60)
    assert job.pause().status == "paused"
    assert job.resume().status == "queued"
    with pytest.raises(ConflictError, match="has not ended"):
        job.retry()
    worker.take(job.id)
    assert job.pause().state.pause_requested
    with pytest.raises(ConflictError, match="running"):
        job.delete()
    worker.fail(ending_of("diverged"))
    assert job.retry(from_scratch=True).status == "queued"
    clone = job.clone({"training": {"steps": 3}, "options": {"priority": 1}})
    assert (clone.state.spec["training"]["steps"], clone.state.priority) == (3, 1)
    assert clone.id != job.id
    job.delete()
    with pytest.raises(NotFoundError):
        job.refresh()


def test_events_of_a_retried_job_go_on_after_its_first_end(condenser: Condenser, worker: Worker) -> None:
    job = condenser.jobs.create(SPEC).cancel().retry()
    worker.take(job.id)
    worker.succeed({})
    told = [event.data["status"] for event in job.events()]
    assert told == ["queued", "cancelled", "queued", "running", "succeeded"]


def test_wait_reports_every_change_and_ends_with_the_job(condenser: Condenser, worker: Worker) -> None:
    job = condenser.jobs.create(SPEC)
    seen: list[tuple[str, str | None]] = []

    def move_on(changed: Any) -> None:
        seen.append((changed.status, changed.state.phase))
        if changed.status == "queued":
            worker.take(job.id)
        elif changed.state.phase is None:
            worker.report(("phase", {"phase": "training"}))
        elif changed.status == "running":
            worker.succeed({"student": {"parameters": 5}})

    assert job.wait(on_progress=move_on).result == {"student": {"parameters": 5}}
    statuses = [status for status, _ in seen]
    assert statuses[0] == "queued"
    assert statuses[-1] == "succeeded"
    assert ("running", "training") in seen


def test_what_changes_while_a_change_is_told_is_told_too(condenser: Condenser, worker: Worker) -> None:
    job = condenser.jobs.create(SPEC)
    told: list[str] = []

    def end_meanwhile(changed: Any) -> None:
        told.append(changed.status)
        if len(told) == 1:
            worker.take(job.id)
            worker.succeed({})
            job.refresh()

    job.wait(on_progress=end_meanwhile)
    assert told == ["queued", "succeeded"]


def test_wait_raises_when_the_job_fails(condenser: Condenser, worker: Worker) -> None:
    job = condenser.jobs.create(SPEC)
    worker.take(job.id)
    worker.fail(Ending(reason="diverged", message="The loss is not finite.", hint="Lower the rate."))
    with pytest.raises(JobFailedError, match=r"diverged: The loss is not finite\.: Lower the rate\."):
        job.wait()


def test_wait_gives_up_when_its_time_is_over(condenser: Condenser) -> None:
    with pytest.raises(WaitTimeoutError, match="queued"):
        condenser.jobs.create(SPEC).wait(timeout_seconds=0.2)


def test_events_come_in_order_without_gaps_though_the_stream_breaks(
    api_url: str, api_key: str, worker: Worker
) -> None:
    with relay_to(api_url) as relay, Condenser(relay.url, api_key) as condenser:
        job = condenser.jobs.create(SPEC)
        relay.cut_after = 600
        condenser.close()
        with Condenser(relay.url, api_key) as watching:
            events = watching.jobs.get(job.id).events()
            first = next(events)
            assert (first.sequence, first.data["status"]) == (1, "queued")
            worker.take(job.id)
            worker.report(*(("progress", progress(done)) for done in range(20)))
            worker.succeed({})
            rest = list(events)
    assert [event.sequence for event in rest] == list(range(2, len(rest) + 2))
    assert rest[-1].ends_the_job
    assert relay.connections > 2


def progress(done: int) -> dict[str, Any]:
    return {"phase": "training", "done": done, "total": 20, "unit": "steps", "eta_seconds": None}


def test_events_of_an_ended_job_end_at_once(condenser: Condenser) -> None:
    job = condenser.jobs.create(SPEC).cancel()
    assert [event.type for event in job.events()] == ["status", "status"]
    assert list(job.events(after=2)) == []


def test_a_lost_answer_to_a_submission_makes_one_job(api_url: str, api_key: str) -> None:
    with relay_to(api_url) as relay, Condenser(relay.url, api_key) as condenser:
        relay.lose_answers = 1
        job = condenser.jobs.create(SPEC)
        assert [known.id for known in condenser.jobs.list()] == [job.id]
    assert relay.connections == 2


def test_a_lost_answer_to_a_retry_is_given_again(condenser: Condenser, api_url: str, api_key: str) -> None:
    cancelled = condenser.jobs.create(SPEC).cancel()
    with relay_to(api_url) as relay, Condenser(relay.url, api_key) as behind_relay:
        transport = behind_relay._service._transport
        relay.lose_answers = 1
        job = run(AsyncJob(transport, cancelled.state).retry())
    assert relay.connections == 2
    assert (job.status, len(job.state.transitions)) == ("queued", 3)


def test_requests_are_repeated_while_the_service_is_away(api_url: str, api_key: str) -> None:
    with relay_to(api_url) as relay, Condenser(relay.url, api_key) as condenser:
        relay.refuse = 2
        assert condenser.teachers.list()[0].id == "tiny"


class HastyConnection(BlockingConnection):
    """Notes for how long it should pause, and does not."""

    pauses: ClassVar[list[float]] = []

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


Connect = Callable[[str], AsyncCondenser]


@pytest.fixture
def hasty(api_key: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Makes clients that do not pause, and note in `HastyConnection.pauses` where they should have."""
    monkeypatch.setattr(HastyConnection, "pauses", [])
    services: list[AsyncCondenser] = []

    def connect(url: str) -> AsyncCondenser:
        services.append(AsyncCondenser(url, api_key, connect=HastyConnection))
        return services[-1]

    yield connect
    for service in services:
        run(service.close())


def test_a_service_that_stays_away_is_unreachable(hasty: Connect) -> None:
    service = hasty(NOBODY)
    with pytest.raises(ApiUnreachableError, match=r"127\.0\.0\.1:9 does not answer"):
        run(service.jobs.list())
    assert len(HastyConnection.pauses) == 5


def test_requests_are_repeated_while_a_proxy_finds_no_service(hasty: Connect, api_url: str) -> None:
    with relay_to(api_url) as relay:
        relay.answers = [BAD_GATEWAY, GATEWAY_TIMEOUT, BAD_GATEWAY]
        service = hasty(relay.url)
        job = run(service.jobs.create(SPEC))
        assert [known.id for known in run(service.jobs.list())] == [job.id]
        relay.interrupt()
        relay.answers = [BAD_GATEWAY] * 10
        with pytest.raises(UnavailableError, match="Bad Gateway"):
            run(service.jobs.list())
        assert len(relay.answers) == 4, "a request that somebody waits for is given up after seconds"


def test_a_key_is_not_made_twice_behind_a_proxy(hasty: Connect, api_url: str) -> None:
    with relay_to(api_url) as relay:
        relay.answers = [GATEWAY_TIMEOUT]
        with pytest.raises(UnavailableError):
            run(hasty(relay.url).keys.create("nightly", ["read"]))
        assert relay.connections == 1


def test_a_wait_outlasts_minutes_without_a_service(
    hasty: Connect, condenser: Condenser, api_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    job = condenser.jobs.create(SPEC)
    with relay_to(api_url) as relay:
        waiting = AsyncJob(hasty(relay.url)._transport, job.state)

        def restart(_: AsyncJob) -> None:
            if job.status == "queued":
                relay.interrupt()
                relay.answers = [BAD_GATEWAY] * 10 + [GATEWAY_TIMEOUT] * 5
                job.cancel()

        relay.answers = [BAD_GATEWAY] * 10
        with pytest.raises(JobFailedError, match="cancelled"):
            run(waiting.wait(restart))
        assert relay.answers == []
    assert sum(HastyConnection.pauses) > 300
    assert [record.getMessage() for record in caplog.records if "trying again" in record.getMessage()] == [
        f"{relay.url} does not answer: 502 Bad Gateway; trying again for 9:52"
    ] * 2


@pytest.mark.parametrize(
    ("timeout_seconds", "least", "most"), [(None, 300, 600), (100.0, 50, 100), (1.0, 7, 8)]
)
def test_a_wait_without_a_service_ends_too(
    hasty: Connect, condenser: Condenser, timeout_seconds: float | None, least: float, most: float
) -> None:
    waiting = AsyncJob(hasty(NOBODY)._transport, condenser.jobs.create(SPEC).state)
    with pytest.raises(ApiUnreachableError, match="does not answer"):
        run(waiting.wait(timeout_seconds=timeout_seconds))
    assert least < sum(HastyConnection.pauses) <= most


def test_a_stream_outlasts_minutes_without_a_service(
    hasty: Connect, condenser: Condenser, api_url: str
) -> None:
    job = condenser.jobs.create(SPEC).cancel()
    with relay_to(api_url) as relay:
        relay.refuse = 5
        relay.answers = [BAD_GATEWAY] * 10 + [GATEWAY_TIMEOUT] * 5
        events = iterate(AsyncJob(hasty(relay.url)._transport, job.state).events())
        assert [event.data["status"] for event in events] == ["queued", "cancelled"]
    away = hasty(NOBODY)
    HastyConnection.pauses.clear()
    with pytest.raises(ApiUnreachableError, match="does not answer"):
        list(iterate(AsyncJob(away._transport, job.state).events()))
    assert 300 < sum(HastyConnection.pauses) <= 600


def test_a_stream_of_a_job_that_waits_may_break_as_often_as_it_likes(
    hasty: Connect, condenser: Condenser, api_url: str
) -> None:
    job = condenser.jobs.create(SPEC).cancel()
    with relay_to(api_url) as relay:
        relay.answers = [CUT_STREAM, BAD_GATEWAY] * 50
        events = iterate(AsyncJob(hasty(relay.url)._transport, job.state).events())
        assert [event.data["status"] for event in events] == ["queued", "cancelled"]
    assert max(HastyConnection.pauses) < 1


@pytest.mark.parametrize("strange", [SIGN_IN, ANOTHER_SERVICE, REDIRECT])
def test_what_is_not_the_services_answer_is_not_taken_for_it(
    strange: bytes, api_url: str, api_key: str, condenser: Condenser
) -> None:
    job = condenser.jobs.create(SPEC).cancel()
    with relay_to(api_url) as relay, Condenser(relay.url, api_key) as behind_relay:
        there = behind_relay.jobs.get(job.id)
        calls: list[Callable[[], object]] = [
            there.refresh,
            there.wait,
            there.retry,
            lambda: list(there.events()),
            behind_relay.teachers.list,
            lambda: behind_relay.jobs.create(SPEC),
        ]
        calls += [there.delete] if strange != ANOTHER_SERVICE else []  # which may well have deleted something
        for call in calls:
            relay.interrupt()
            relay.answers = [strange]
            with pytest.raises(
                UnexpectedAnswerError, match=rf"{relay.url}/.* does not answer as the service"
            ):
                call()
            assert relay.answers == []
    assert job.refresh().status == "cancelled"


def test_several_submissions_with_one_key_make_one_job(condenser: Condenser) -> None:
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.append(condenser.jobs.create(SPEC, "the-same-key").id))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4
    assert len(set(made)) == 1


def test_teachers_say_which_students_fit(condenser: Condenser) -> None:
    (teacher,) = condenser.teachers.list()
    assert (teacher.id, teacher.family, teacher.parameters) == ("tiny", "sd1", 16)
    assert "b-small" in [option.student for option in teacher.students]
