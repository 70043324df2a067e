"""Generations: whose turn it is, who holds one, and that none is drawn or kept for nobody."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Engine, event, select

from store import generations, workers
from store.database import transaction
from store.errors import GenerationEndedError, LeaseLostError, NotFoundError, QuotaExceededError
from store.generation_endings import EXPLANATIONS, generation_ending
from store.generations import Drawing, GenerationClaim, Picture, claim_next_generation, picture_key
from store.ids import new_id
from store.interactive_capacity import interactive_capacity
from store.models import GENERATION_REASONS, GENERATION_STATUSES, Generation, UnclaimedObject
from store.objects import ObjectStore
from store.queue import count_hints
from store.quotas import Quotas
from store.reconciler import forget_what_is_old, reconcile_once
from store.settings import Settings
from store.sweeper import remove_unclaimed_objects
from store.unclaimed import announce, take_due
from store.versions import latest_versions
from store.workers import Announcement, sign_off
from tests.postgres_locks import waits_for_a_lock

Ask = Callable[..., str]
WATCH = 30.0
LEASE = 20.0


def drawing(model: Any) -> Drawing:
    return Drawing(
        model=model,
        job_id="00000000-0000-7000-8000-000000000001",
        attempt=1,
        teacher="emoji-64",
        teacher_revision=None,
        name="b-small",
        sampler="ddim",
        steps=4,
        guidance_scale=2.0,
    )


def picture(key: str) -> Picture:
    return Picture(key=key, size=9, sha256="0", width=8, height=8, seconds=0.5, load_seconds=0.0)


@pytest.fixture
def ask(engine: Engine, now: datetime) -> Ask:
    """Makes a queued generation and returns its id."""

    def make(*, tenant: str | None = None, at: datetime = now, quotas: Quotas = Quotas()) -> str:  # noqa: B008
        with transaction(engine, tenant_id=tenant) as session:
            made = generations.create_generation(
                session,
                job_id=new_id(at),
                prompt="a cat",
                seed=3,
                drawings=[drawing("teacher"), drawing("student")],
                now=at,
                watch_seconds=WATCH,
                quotas=quotas,
            )
        return made.id

    return make


@pytest.fixture
def take(engine: Engine, now: datetime) -> Callable[..., GenerationClaim | None]:
    def claim(at: datetime = now, worker: str = "w") -> GenerationClaim | None:
        with transaction(engine) as session:
            return claim_next_generation(session, worker=worker, now=at, lease_seconds=LEASE)

    return claim


def read(engine: Engine, generation_id: str) -> Generation:
    with transaction(engine) as session:
        return generations.get_generation(session, generation_id)


def draw(engine: Engine, claim: GenerationClaim, position: int, now: datetime) -> str:
    """Store a picture as a worker does, but for the object itself."""
    key = picture_key(claim.generation_id, claim.lease_token, position)
    with transaction(engine) as session:
        announce(session, key, now=now)
    with transaction(engine) as session:
        generations.add_picture(
            session,
            generation_id=claim.generation_id,
            lease_token=claim.lease_token,
            position=position,
            picture=picture(key),
        )
    return key


def given_up(engine: Engine, now: datetime) -> list[str]:
    with transaction(engine) as session:
        return list(take_due(session, now=now))


def test_a_generation_gets_its_pictures_one_by_one_and_leaves_no_object_behind(
    engine: Engine, ask: Ask, take: Any, now: datetime
) -> None:
    generation_id = ask()
    claim = take()
    assert (claim.generation_id, claim.prompt, claim.seed) == (generation_id, "a cat", 3)
    assert [each["model"] for each in claim.drawings] == ["teacher", "student"]
    assert take() is None
    lease = {"generation_id": generation_id, "lease_token": claim.lease_token}
    keys = [draw(engine, claim, 0, now)]
    half = read(engine, generation_id)
    assert (half.version, "key" in half.drawings[0], "key" in half.drawings[1]) == (3, True, False)
    keys.append(draw(engine, claim, 1, now))
    with transaction(engine) as session:
        generations.finish_generation(session, **lease, now=now)
    done = read(engine, generation_id)
    assert (done.status, done.finished_at, done.version) == ("succeeded", now, 5)
    with transaction(engine) as session:
        assert session.scalars(select(UnclaimedObject)).all() == []
        assert latest_versions(session, [generation_id, new_id(now)]) == {generation_id: 5}
        with pytest.raises(GenerationEndedError):
            generations.cancel_generation(session, generation_id=generation_id, now=now)
        kept = generations.remove_old_generations(session, now=now + timedelta(hours=1), keep_seconds=7_200)
        assert kept == []
        gone = generations.remove_old_generations(session, now=now + timedelta(hours=3), keep_seconds=7_200)
        assert gone == [generation_id]
    assert given_up(engine, now + timedelta(hours=3)) == sorted(keys)
    with pytest.raises(NotFoundError):
        read(engine, generation_id)


def test_whoever_waits_must_go_on_asking(engine: Engine, ask: Ask, take: Any, now: datetime) -> None:
    left, watched = ask(), ask()
    later = now + timedelta(seconds=WATCH + 1)
    with transaction(engine) as session:
        generations.keep_watched(session, watched, until=later + timedelta(seconds=WATCH))
    assert read(engine, watched).version == 1, "nothing that a reader sees has changed"
    assert take(at=later).generation_id == watched, "the older one is not watched any more"
    with transaction(engine) as session:
        assert generations.count_waiting(session, now=later) == 0
        assert generations.expire_generations(session, now=later) == [left]
    ended = read(engine, left)
    assert (ended.status, ended.reason) == ("expired", "not_watched")
    with transaction(engine) as session:
        generations.keep_watched(session, left, until=later + timedelta(days=1))
    assert read(engine, left).watched_until < later, "one that has ended is not watched"


@pytest.mark.parametrize("end", ["cancelled", "deleted", "not_watched", "lost"])
def test_a_worker_hears_that_its_generation_is_wanted_no_more(
    engine: Engine, ask: Ask, take: Any, now: datetime, end: str
) -> None:
    generation_id = ask()
    claim = take()
    lease = {"generation_id": generation_id, "lease_token": claim.lease_token}
    first = draw(engine, claim, 0, now)
    with transaction(engine) as session:
        generations.extend_lease(session, **lease, now=now + timedelta(seconds=10), lease_seconds=5)
    later = now + timedelta(seconds=16)
    with transaction(engine) as session:
        if end == "cancelled":
            for _ in range(2):
                assert generations.cancel_generation(session, generation_id=generation_id, now=later)
        elif end == "deleted":
            generations.delete_generation(session, generation_id=generation_id, now=later)
        elif end == "not_watched":
            later = now + timedelta(seconds=WATCH + 1)
            generations.expire_generations(session, now=later)
        else:
            assert generations.expire_generations(session, now=later) == [generation_id]
    with transaction(engine) as session, pytest.raises(LeaseLostError):
        generations.extend_lease(session, **lease, now=later, lease_seconds=LEASE)
    with pytest.raises(LeaseLostError):
        draw(engine, claim, 1, later)
    with transaction(engine) as session, pytest.raises(LeaseLostError):
        generations.finish_generation(session, **lease, now=later)
    if end == "deleted":
        assert given_up(engine, later) == [first]
        return
    reasons = {"cancelled": "cancelled_by_user", "not_watched": "not_watched", "lost": "worker_lost"}
    row = read(engine, generation_id)
    statuses = {"cancelled": "cancelled", "not_watched": "expired", "lost": "failed"}
    assert (row.status, row.reason) == (statuses[end], reasons[end])
    assert row.message == EXPLANATIONS[row.reason].sentence


@pytest.mark.parametrize("meanwhile", ["claimed", "released"])
def test_one_that_changes_hands_meanwhile_is_cancelled_all_the_same(
    engine: Engine, ask: Ask, take: Any, now: datetime, eventually: Callable[..., Any], meanwhile: str
) -> None:
    generation_id = ask()
    claim = None if meanwhile == "claimed" else take()
    statements: list[str] = []

    def change_hands() -> GenerationClaim | None:
        if claim is None:
            return cast(GenerationClaim | None, take())
        with transaction(engine) as session, pytest.raises(LeaseLostError):
            generations.release_generation(
                session, generation_id=generation_id, lease_token=claim.lease_token, now=now
            )
        return None

    with ThreadPoolExecutor(1) as pool, transaction(engine) as session:
        others: list[Future[GenerationClaim | None]] = []

        def interfere(_: Any, __: Any, statement: str, *___: Any) -> None:
            statements.append(statement)
            if len(statements) == 2:
                others.append(pool.submit(change_hands))
                eventually(lambda: others[0].done() or waits_for_a_lock(engine))

        event.listen(session.connection(), "before_cursor_execute", interfere)
        cancelled = generations.cancel_generation(session, generation_id=generation_id, now=now)
        assert (cancelled.status, cancelled.finished_at) == ("cancelled", now)
        session.commit()
        assert others[0].result() is None
    assert read(engine, generation_id).status == "cancelled"


def test_a_worker_that_stops_gives_it_back_and_another_begins_anew(
    engine: Engine, ask: Ask, take: Any, now: datetime
) -> None:
    generation_id = ask()
    first = take()
    key = draw(engine, first, 0, now)
    lease = {"generation_id": generation_id, "lease_token": first.lease_token}
    with transaction(engine) as session:
        generations.release_generation(session, **lease, now=now)
    assert given_up(engine, now) == [key]
    second = take(worker="other")
    assert second.lease_token == first.lease_token + 1
    assert all("key" not in each for each in second.drawings)
    with transaction(engine) as session, pytest.raises(LeaseLostError):
        generations.fail_generation(session, **lease, ending=generation_ending("bad_teacher"), now=now)


def test_tenants_take_turns_and_none_may_ask_for_more_than_its_quota(
    engine: Engine, ask: Ask, take: Any, tenant_id: Callable[[str], str], now: datetime
) -> None:
    a, b = tenant_id("a"), tenant_id("b")
    quota = Quotas(open_generations=3)
    of_a = [ask(tenant=a, at=now + timedelta(milliseconds=each), quotas=quota) for each in range(3)]
    of_b = ask(tenant=b, at=now + timedelta(seconds=1), quotas=quota)
    with pytest.raises(QuotaExceededError) as refused:
        ask(tenant=a, quotas=quota)
    assert (refused.value.quota, refused.value.limit, refused.value.present) == ("open_generations", 3, 3)
    order = [take(at=now + timedelta(seconds=2 + each)).generation_id for each in range(3)]
    assert order == [of_a[0], of_b, of_a[1]]
    with transaction(engine, tenant_id=b) as session:
        for act in (generations.cancel_generation, generations.delete_generation):
            with pytest.raises(NotFoundError):
                act(session, generation_id=of_a[2], now=now)
    after = now + timedelta(seconds=WATCH + 5)
    assert ask(tenant=a, at=after, quotas=Quotas(open_generations=3)), "what nobody watches does not count"


def test_it_is_known_whether_a_worker_is_there_and_free(
    engine: Engine, ask: Ask, take: Any, tenant_id: Callable[[str], str], now: datetime
) -> None:
    def reason(at: datetime = now) -> str | None:
        with transaction(engine, tenant_id=tenant_id("a")) as session:
            return interactive_capacity(session, now=at, lease_seconds=LEASE).waiting_reason

    assert reason() == "no_worker"
    with transaction(engine) as session:
        for name, role in (("w", "interactive"), ("another", "training")):
            told = Announcement(name, role, "h", "q", "0.1.0", "a processor", 2, None)
            workers.announce(session, told, started_at=now, now=now)
    assert reason() is None
    ask(tenant=tenant_id("b"))
    assert take() is not None
    assert reason() == "workers_busy", "with another tenant's generation"
    assert reason(now + timedelta(seconds=LEASE)) == "no_worker"
    with transaction(engine) as session:
        sign_off(session, "w")
    assert reason() == "no_worker"


def test_after_an_outage_nothing_is_ended_before_workers_and_readers_could_be_heard(
    engine: Engine, ask: Ask, take: Any, settings: Settings, now: datetime
) -> None:
    drawn = ask()
    claim = take()
    waits = ask()
    later = now + timedelta(seconds=LEASE + WATCH)
    reconcile_once(engine, settings, later, is_heard=False)
    assert [read(engine, each).status for each in (drawn, waits)] == ["running", "queued"]
    with transaction(engine) as session:
        for each in (drawn, waits):
            generations.keep_watched(session, each, until=later + timedelta(seconds=WATCH))
        lease = {"generation_id": claim.generation_id, "lease_token": claim.lease_token}
        generations.extend_lease(session, **lease, now=later, lease_seconds=LEASE)
    reconcile_once(engine, settings, later, is_heard=True)
    assert [read(engine, each).status for each in (drawn, waits)] == ["running", "queued"]
    reconcile_once(engine, settings, later + timedelta(seconds=LEASE + WATCH), is_heard=True)
    assert [read(engine, each).status for each in (drawn, waits)] == ["expired", "expired"]


def test_the_reconciler_rings_again_for_what_waits_and_clears_up_the_rest(
    engine: Engine,
    ask: Ask,
    take: Any,
    settings: Settings,
    object_store: ObjectStore,
    now: datetime,
    tmp_path: Path,
) -> None:
    def reconcile(at: datetime) -> int:
        assert reconcile_once(engine, settings, at) is not None
        forget_what_is_old(engine, settings, at)
        return count_hints(settings, settings.interactive_queue)

    done = ask()
    claim = take()
    key = draw(engine, claim, 0, now)
    file = tmp_path / "0.png"
    file.write_bytes(b"a picture")
    object_store.upload_file(file, key)
    with transaction(engine) as session:
        generations.finish_generation(session, generation_id=done, lease_token=claim.lease_token, now=now)
    left, waits = ask(), ask()
    with transaction(engine) as session:
        generations.keep_watched(session, waits, until=now + timedelta(days=3))
    assert [reconcile(now), reconcile(now)] == [2, 2], "as many hints as wait, however often it looks"
    later = now + timedelta(seconds=settings.generation_keep_seconds / 2)
    reconcile(later)
    assert [read(engine, each).status for each in (done, left, waits)] == ["succeeded", "expired", "queued"]
    reconcile(now + timedelta(seconds=settings.generation_keep_seconds + 1))
    with pytest.raises(NotFoundError):
        read(engine, done)
    assert object_store.list_keys("generations/") == [key]
    remove_unclaimed_objects(engine, object_store, now + timedelta(days=2))
    assert object_store.list_keys("generations/") == []


def test_every_move_and_reason_is_known() -> None:
    assert set(generations.ALLOWED_MOVES) == set(GENERATION_STATUSES)
    assert set(EXPLANATIONS) == set(GENERATION_REASONS)
