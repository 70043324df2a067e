"""Webhooks: written with the move, claimed by one, sent signed, tried for hours, logged, and given up."""

import base64
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import Engine, select
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from core.spec import DistillationSpec
from store import jobs, webhooks
from store.addresses import parse_networks
from store.database import server_now, transaction
from store.errors import (
    NotFoundError,
    TooManyWebhooksError,
    WebhookDisabledError,
    WebhooksNotConfiguredError,
)
from store.models import DEFAULT_TENANT_ID, Tenant, Webhook, WebhookDelivery
from store.settings import Settings
from store.webhook_deliveries import (
    CLAIM,
    FAILING_IS_GIVEN_UP,
    JITTER,
    KEPT,
    RETRY_PAUSES,
    AttemptOutcome,
    claim_deliveries,
    forget_old_deliveries,
    list_deliveries,
    record_attempt,
    redeliver,
)
from store.webhook_secrets import SecretBox, secret_of, sign
from store.webhook_sender import WebhookSender
from tests.store.receivers import Receiver, receiving

TENANT = DEFAULT_TENANT_ID
OTHER_TENANT = "00000000-0000-0000-0000-000000000002"
SECRET = secret_of(bytes(range(32)))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def box(settings: Settings) -> SecretBox:
    return SecretBox(settings)


@pytest.fixture
def register(engine: Engine, box: SecretBox, now: datetime) -> Callable[..., str]:
    """Registers an endpoint and returns its id."""
    with transaction(engine) as session:
        session.add(Tenant(id=OTHER_TENANT, name="other"))

    def make(url: str = "https://example.com/", events: tuple[str, ...] = (), tenant: str = TENANT) -> str:
        with transaction(engine) as session:
            return webhooks.create_webhook(
                session,
                tenant_id=tenant,
                url=url,
                description="",
                events=events,
                secret=box.seal(SECRET),
                now=now,
            ).id

    return make


@pytest.fixture
def sender(engine: Engine, settings: Settings) -> WebhookSender:
    """Sends to loopback too."""
    networks = parse_networks("127.0.0.0/8")
    return WebhookSender(engine, settings.model_copy(update={"outgoing_allowed_networks": networks}))


def deliveries(engine: Engine, webhook_id: str, tenant: str = TENANT) -> list[WebhookDelivery]:
    with transaction(engine) as session:
        return list_deliveries(session, webhook_id, tenant_id=tenant, after=None, limit=100).items


def webhook_of(engine: Engine, webhook_id: str) -> Webhook:
    with transaction(engine) as session:
        return webhooks.get_webhook(session, webhook_id, tenant_id=TENANT)


def test_each_move_is_told_once_to_those_who_asked(
    engine: Engine, register: Callable[..., str], running: Callable[[], jobs.Claim], now: datetime
) -> None:
    everything, ends = register(), register(events=("job.succeeded", "job.failed"))
    foreign = register(tenant=OTHER_TENANT)
    claim = running()
    with transaction(engine) as session:
        jobs.finish_succeeded(session, job_id=claim.job_id, lease_token=claim.lease_token, result={}, now=now)
    told = [delivery.event for delivery in deliveries(engine, everything)]
    assert sorted(told) == ["job.queued", "job.running", "job.succeeded"]
    [end] = deliveries(engine, ends)
    assert (end.event, end.job_id, end.status, end.next_attempt_at) == (
        "job.succeeded",
        claim.job_id,
        "pending",
        now,
    )
    assert end.payload["type"] == "job.succeeded"
    assert end.payload["data"] == {
        "job_id": claim.job_id,
        "sequence": 3,
        "teacher": "emoji-64",
        "status": "succeeded",
        "attempt": 1,
        "reason": None,
        "message": None,
        "hint": None,
    }
    assert deliveries(engine, foreign, OTHER_TENANT) == []


def test_a_move_that_is_rolled_back_tells_nobody(
    engine: Engine, register: Callable[..., str], spec: DistillationSpec, now: datetime
) -> None:
    webhook_id = register()

    def fail() -> None:
        with transaction(engine) as session:
            jobs.create_job(session, spec=spec, queue="cpu", now=now)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert deliveries(engine, webhook_id) == []


def test_removing_an_endpoint_while_jobs_move_fails_no_move(
    engine: Engine, register: Callable[..., str], queued: Callable[[], str]
) -> None:
    webhook_ids = [register() for _ in range(8)]

    def remove(webhook_id: str) -> None:
        with transaction(engine) as session:
            webhooks.delete_webhook(session, webhook_id, tenant_id=TENANT)

    with ThreadPoolExecutor(4) as threads:
        removals = [threads.submit(remove, webhook_id) for webhook_id in webhook_ids]
        moves = [threads.submit(queued) for _ in range(8)]
        assert len({move.result() for move in moves}) == 8
        for removal in removals:
            removal.result()
    with transaction(engine) as session:
        assert session.scalars(select(WebhookDelivery)).all() == []


def test_the_message_verifies_by_the_library_and_nothing_else_does(
    engine: Engine,
    register: Callable[..., str],
    queued: Callable[[], str],
    sender: WebhookSender,
    receiver: Receiver,
) -> None:
    webhook_id = register(receiver.url())
    job_id = queued()
    receiver.answers = [(200, b"got \x00 it", {})]
    at, [claimed] = sender.claim(10)
    assert sender.deliver(claimed, at).is_good
    [request] = receiver.received
    message = Verifier(SECRET).verify(request.body, request.headers)
    assert (message["type"], message["data"]["job_id"]) == ("job.queued", job_id)
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(request.body.replace(b"job.queued", b"job.failed"), request.headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(secret_of(bytes(32))).verify(request.body, request.headers)
    [delivery] = deliveries(engine, webhook_id)
    assert delivery.id == next(v for k, v in request.headers.items() if k.lower() == "webhook-id")
    [attempt] = delivery.log
    assert (delivery.status, attempt.number, attempt.status_code) == ("delivered", 1, 200)
    assert attempt.answer_excerpt == "got � it"
    assert attempt.latency_ms >= 0
    assert sender.claim(10)[1] == []


def test_a_rotated_secret_and_the_one_before_both_sign_for_a_day(
    engine: Engine,
    register: Callable[..., str],
    queued: Callable[[], str],
    box: SecretBox,
    now: datetime,
) -> None:
    webhook_id, new_secret = register(), secret_of(b"n" * 32)
    queued()
    with transaction(engine) as session:
        webhooks.rotate_secret(session, webhook_id, tenant_id=TENANT, secret=box.seal(new_secret), now=now)

    def signing(at: datetime) -> list[str]:
        with transaction(engine) as session:
            [claimed] = claim_deliveries(session, limit=1, now=at)
            session.rollback()
        return [box.open(secret) for secret in claimed.secrets]

    assert signing(now + timedelta(hours=23, minutes=59)) == [new_secret, SECRET]
    assert signing(now + timedelta(hours=24)) == [new_secret]


def test_a_doubly_signed_message_verifies_with_either_secret(engine: Engine) -> None:
    with transaction(engine) as session:
        now = server_now(session)
    new_secret = secret_of(b"n" * 32)
    headers = sign([new_secret, SECRET], message_id="m", at=now, content=b"{}")
    assert len(headers["webhook-signature"].split()) == 2
    for secret in (SECRET, new_secret):
        assert Verifier(secret).verify(b"{}", headers) == {}


def test_a_failed_message_is_tried_for_hours_and_then_no_more(
    engine: Engine,
    register: Callable[..., str],
    queued: Callable[[], str],
    now: datetime,
) -> None:
    webhook_id = register()
    queued()
    at, pauses = now, []
    for number in range(1, len(RETRY_PAUSES) + 2):
        with transaction(engine) as session:
            assert claim_deliveries(session, limit=9, now=at - timedelta(microseconds=1)) == []
            [claimed] = claim_deliveries(session, limit=9, now=at)
            chance = (number % 3) / 2
            record_attempt(
                session,
                delivery_id=claimed.id,
                attempt=claimed.attempt,
                outcome=AttemptOutcome(at=at, latency_ms=7, status_code=500, answer_excerpt="no"),
                chance=chance,
                now=at,
            )
        [delivery] = deliveries(engine, webhook_id)
        if delivery.next_attempt_at is None:
            break
        pauses.append((delivery.next_attempt_at - at) / RETRY_PAUSES[number - 1])
        assert pauses[-1] == pytest.approx(1 + JITTER * (2 * chance - 1))
        at = delivery.next_attempt_at
    assert len(pauses) == len(RETRY_PAUSES)
    assert min(pauses) == pytest.approx(1 - JITTER)
    assert max(pauses) == pytest.approx(1 + JITTER)
    assert timedelta(hours=20) < at - now < timedelta(hours=36)
    assert (delivery.status, delivery.attempts) == ("failed", len(RETRY_PAUSES) + 1)
    assert [attempt.number for attempt in delivery.log] == list(range(1, len(RETRY_PAUSES) + 2))
    assert webhook_of(engine, webhook_id).failing_since == now


def attempt_once(engine: Engine, at: datetime, **outcome: Any) -> None:
    with transaction(engine) as session:
        for claimed in claim_deliveries(session, limit=1, now=at):
            record_attempt(
                session,
                delivery_id=claimed.id,
                attempt=claimed.attempt,
                outcome=AttemptOutcome(at=at, latency_ms=1, **outcome),
                chance=0.5,
                now=at,
            )


def test_an_endpoint_that_is_gone_is_disabled_and_gets_nothing_more(
    engine: Engine, register: Callable[..., str], queued: Callable[[], str], now: datetime
) -> None:
    webhook_id = register()
    queued()
    queued()
    attempt_once(engine, now, status_code=410)
    assert webhook_of(engine, webhook_id).disabled_reason == "gone"
    queued()
    assert {delivery.status for delivery in deliveries(engine, webhook_id)} == {"failed"}
    assert len(deliveries(engine, webhook_id)) == 2
    with transaction(engine) as session, pytest.raises(WebhookDisabledError):
        redeliver(session, webhook_id, deliveries(engine, webhook_id)[0].id, tenant_id=TENANT, now=now)
    with transaction(engine) as session:
        webhooks.change_webhook(session, webhook_id, tenant_id=TENANT, changes={"enabled": True}, now=now)
    queued()
    assert [d.status for d in deliveries(engine, webhook_id)].count("pending") == 1


def test_an_endpoint_that_fails_for_days_is_disabled_and_one_success_forgives(
    engine: Engine, register: Callable[..., str], queued: Callable[[], str], now: datetime
) -> None:
    webhook_id = register()
    queued()
    attempt_once(engine, now, error="away")
    assert webhook_of(engine, webhook_id).failing_since == now
    attempt_once(engine, now + timedelta(minutes=1), status_code=204)
    assert webhook_of(engine, webhook_id).failing_since is None
    queued()
    began = now + timedelta(hours=1)
    attempt_once(engine, began, error="away")
    attempt_once(engine, began + FAILING_IS_GIVEN_UP - timedelta(seconds=1), error="away")
    assert webhook_of(engine, webhook_id).disabled_reason is None
    attempt_once(engine, began + 2 * FAILING_IS_GIVEN_UP, error="away")
    assert webhook_of(engine, webhook_id).disabled_reason == "failing"


def test_a_message_is_one_senders_and_a_lost_senders_word_counts_no_more(
    engine: Engine, register: Callable[..., str], queued: Callable[[], str], now: datetime
) -> None:
    webhook_ids = [register() for _ in range(6)]
    queued()

    def claim(_: int) -> list[str]:
        with transaction(engine) as session:
            return [claimed.id for claimed in claim_deliveries(session, limit=2, now=now)]

    with ThreadPoolExecutor(6) as threads:
        taken = [delivery_id for ids in threads.map(claim, range(6)) for delivery_id in ids]
    assert len(taken) == len(set(taken))
    taken += claim(0) + claim(0) + claim(0)
    assert len(taken) == len(set(taken)) == 6
    # The senders die. Others take the messages when the claims end; the dead ones' words are void.
    with transaction(engine) as session:
        again = claim_deliveries(session, limit=9, now=now + CLAIM)
        late = replace(again[0], attempt=again[0].attempt - 1)
        record_attempt(
            session,
            delivery_id=late.id,
            attempt=late.attempt,
            outcome=AttemptOutcome(at=now, latency_ms=1, status_code=204),
            chance=0,
            now=now + CLAIM,
        )
    assert {claimed.attempt for claimed in again} == {2}
    statuses = {d.status for webhook_id in webhook_ids for d in deliveries(engine, webhook_id)}
    assert statuses == {"pending"}


def test_a_slow_endpoint_leaves_senders_to_the_others(
    engine: Engine, register: Callable[..., str], queued: Callable[[], str], now: datetime
) -> None:
    busy, quiet = register(events=("job.queued",)), register(events=("job.cancelled",))
    job_ids = [queued() for _ in range(10)]
    with transaction(engine) as session:
        jobs.request_cancel(session, job_id=job_ids[0], now=now + timedelta(seconds=1))
        claimed = claim_deliveries(session, limit=8, now=now + timedelta(seconds=2))
        events = sorted(claim.payload["type"] for claim in claimed)
        assert events == ["job.cancelled", "job.queued", "job.queued"]
        assert claim_deliveries(session, limit=8, now=now + timedelta(seconds=3)) == []
    assert len(deliveries(engine, busy)) == 10
    assert len(deliveries(engine, quiet)) == 1


def test_no_transaction_is_open_while_a_message_is_sent(
    engine: Engine,
    register: Callable[..., str],
    queued: Callable[[], str],
    sender: WebhookSender,
    receiver: Receiver,
) -> None:
    register(receiver.url())
    queued()
    open_transactions: list[int] = []

    def look() -> None:
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND state <> 'idle'"
        )
        with engine.connect() as connection:
            open_transactions.append(connection.exec_driver_sql(query).scalar_one())

    receiver.before_answer = look
    at, [claimed] = sender.claim(1)
    assert sender.deliver(claimed, at).is_good
    assert open_transactions == [0]


def test_an_address_that_must_not_be_called_is_an_attempt_that_failed(
    engine: Engine,
    settings: Settings,
    register: Callable[..., str],
    queued: Callable[[], str],
    receiver: Receiver,
) -> None:
    """The URL was accepted when its name led elsewhere."""
    webhook_id = register(receiver.url("localhost"))
    queued()
    sender = WebhookSender(engine, settings)
    at, [claimed] = sender.claim(1)
    assert not sender.deliver(claimed, at).is_good
    [delivery] = deliveries(engine, webhook_id)
    assert "public internet" in str(delivery.log[0].error)
    assert delivery.status == "pending"
    assert receiver.received == []


def test_a_message_can_be_sent_again_under_its_id(
    engine: Engine,
    register: Callable[..., str],
    queued: Callable[[], str],
    sender: WebhookSender,
    receiver: Receiver,
    now: datetime,
) -> None:
    webhook_id = register(receiver.url())
    queued()
    at, [claimed] = sender.claim(1)
    sender.deliver(claimed, at)
    for _ in range(2):
        with transaction(engine) as session:
            redeliver(session, webhook_id, claimed.id, tenant_id=TENANT, now=now)
    with transaction(engine) as session, pytest.raises(NotFoundError):
        redeliver(session, webhook_id, claimed.id, tenant_id=OTHER_TENANT, now=now)
    at, [again] = sender.claim(9)
    sender.deliver(again, at)
    assert again.id == claimed.id
    [delivery] = deliveries(engine, webhook_id)
    assert (delivery.status, [entry.number for entry in delivery.log]) == ("delivered", [1, 2])
    assert len({request.body for request in receiver.received}) == 1


def test_old_messages_are_forgotten(
    engine: Engine, register: Callable[..., str], queued: Callable[[], str], now: datetime
) -> None:
    webhook_id = register()
    queued()
    with transaction(engine) as session:
        assert forget_old_deliveries(session, now=now + KEPT) == 0
        assert forget_old_deliveries(session, now=now + KEPT + timedelta(seconds=1)) == 1
    assert deliveries(engine, webhook_id) == []


def test_a_tenant_sees_its_own_endpoints_only_and_has_so_many(
    engine: Engine, register: Callable[..., str]
) -> None:
    webhook_id = register(tenant=OTHER_TENANT)
    with transaction(engine) as session, pytest.raises(NotFoundError):
        webhooks.get_webhook(session, webhook_id, tenant_id=TENANT)
    for _ in range(webhooks.MOST_WEBHOOKS):
        register()
    with pytest.raises(TooManyWebhooksError):
        register()
    with transaction(engine) as session:
        page = webhooks.list_webhooks(session, tenant_id=OTHER_TENANT, after=None, limit=10)
    assert [webhook.id for webhook in page.items] == [webhook_id]


def test_secrets_lie_encrypted_and_outlive_a_change_of_keys(
    engine: Engine, settings: Settings, register: Callable[..., str]
) -> None:
    sealed = webhook_of(engine, register()).secret
    assert SECRET not in sealed
    assert base64.b64decode(SECRET.removeprefix("whsec_")) not in sealed.encode()
    new_key = Fernet.generate_key().decode()
    assert settings.webhook_secret_keys is not None

    def box_with(keys: str) -> SecretBox:
        return SecretBox(settings.model_copy(update={"webhook_secret_keys": SecretStr(keys)}))

    assert box_with(f"{new_key}, {settings.webhook_secret_keys.get_secret_value()}").open(sealed) == SECRET
    with pytest.raises(WebhooksNotConfiguredError, match="WEBHOOK_SECRET_KEYS"):
        box_with(new_key).open(sealed)
    assert settings.webhook_secret_keys.get_secret_value() not in repr(settings)


def test_a_key_of_the_wrong_length_is_refused(settings: Settings) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Settings.model_validate(settings.model_dump() | {"webhook_secret_keys": "c2hvcnQ="})


def test_a_move_does_not_wait_for_a_change_of_the_endpoint(
    engine: Engine, register: Callable[..., str], queued: Callable[[], str], now: datetime
) -> None:
    webhook_id = register()
    with transaction(engine) as session:
        webhooks.change_webhook(session, webhook_id, tenant_id=TENANT, changes={"description": "d"}, now=now)
        queued()  # in a transaction of its own, while this one holds the endpoint
    assert len(deliveries(engine, webhook_id)) == 1
