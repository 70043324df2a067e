"""Sends the messages that wait in the outbox of webhooks.

Every API process runs one dispatcher: it claims due messages and hands each to a thread of its own, which
sends it with no transaction open and records what came of it. Several processes may do so at once: a claim
belongs to one of them.
"""

import json
import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime

from store.database import Clock, Engine, server_now, transaction
from store.errors import (
    DestinationFailedError,
    DestinationRefusedError,
    UnavailableError,
    WebhooksNotConfiguredError,
)
from store.outgoing import OutgoingSender
from store.settings import Settings
from store.webhook_deliveries import AttemptOutcome, ClaimedDelivery, claim_deliveries, record_attempt
from store.webhook_secrets import SecretBox, sign

logger = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 16 * 2**10
EXCERPT_CHARACTERS = 1_000


class WebhookSender:
    """Sends messages and records the outcome.

    Parameters
    ----------
    engine, settings
        The database; the keys of the secrets, and what a receiver has to answer.
    sender
        Makes the requests.
    clock
        Tells the time within a transaction.
    chance
        Gives a number from 0 to 1 for each attempt.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        *,
        sender: OutgoingSender | None = None,
        clock: Clock = server_now,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._box = SecretBox(settings)
        self._sender = sender or OutgoingSender(settings.outgoing_allowed_networks)
        self._clock = clock
        self._chance = chance

    def claim(self, limit: int) -> tuple[datetime, list[ClaimedDelivery]]:
        """Take messages that are due, and say when."""
        with transaction(self._engine) as session:
            now = self._clock(session)
            return now, claim_deliveries(session, limit=limit, now=now)

    def deliver(self, delivery: ClaimedDelivery, at: datetime) -> AttemptOutcome:
        """Send one message, sign it as of a time, and record what came of it."""
        outcome = self._post(delivery, at)
        with transaction(self._engine) as session:
            record_attempt(
                session,
                delivery_id=delivery.id,
                attempt=delivery.attempt,
                outcome=outcome,
                chance=self._chance(),
                now=self._clock(session),
            )
        return outcome

    def _post(self, delivery: ClaimedDelivery, at: datetime) -> AttemptOutcome:
        content = json.dumps(delivery.payload, separators=(",", ":"), ensure_ascii=False).encode()
        began = time.monotonic()
        try:
            secrets = [self._box.open(secret) for secret in delivery.secrets]
            answer = self._sender.post(
                delivery.url,
                content=content,
                headers={
                    "Content-Type": "application/json",
                    **sign(secrets, message_id=delivery.id, at=at, content=content),
                },
                timeout_seconds=self._settings.webhook_timeout_seconds,
                max_answer_bytes=MAX_ANSWER_BYTES,
            )
        except (DestinationFailedError, DestinationRefusedError, WebhooksNotConfiguredError) as error:
            return AttemptOutcome(at=at, latency_ms=_milliseconds_since(began), error=error.detail)
        excerpt = answer.body.decode(errors="replace").replace("\x00", "�")[:EXCERPT_CHARACTERS]
        return AttemptOutcome(
            at=at,
            latency_ms=_milliseconds_since(began),
            status_code=answer.status,
            answer_excerpt=excerpt,
        )


def _milliseconds_since(began: float) -> int:
    return round((time.monotonic() - began) * 1_000)


def run_webhook_sender(engine: Engine, settings: Settings, stop: threading.Event) -> None:
    """Send what is due until ``stop`` is set; the body of a thread."""
    if not settings.webhook_senders:
        return
    sender = WebhookSender(engine, settings)
    under_way: set[Future[AttemptOutcome]] = set()
    with ThreadPoolExecutor(settings.webhook_senders, thread_name_prefix="webhook") as threads:
        while not stop.is_set():
            pause = settings.webhook_poll_seconds
            try:
                sent = _send_due(sender, threads, settings.webhook_senders - len(under_way))
            except UnavailableError as error:
                logger.warning("webhooks: %s", error.detail)
                sent, pause = set(), settings.reconcile_seconds
            except Exception:
                # As in the reconciler: what nobody foresaw must not end all sending while the process lives.
                logger.exception("webhooks: the look for due messages failed")
                sent, pause = set(), settings.reconcile_seconds
            under_way |= sent
            if len(under_way) == settings.webhook_senders:
                wait(under_way, pause, FIRST_COMPLETED)
            elif not sent:
                stop.wait(pause)
            under_way = {sending for sending in under_way if not _has_ended(sending)}


def _send_due(sender: WebhookSender, threads: ThreadPoolExecutor, free: int) -> set[Future[AttemptOutcome]]:
    """Hand as many due messages to the threads as there are free ones."""
    if not free:
        return set()
    at, claimed = sender.claim(free)
    return {threads.submit(sender.deliver, delivery, at) for delivery in claimed}


def _has_ended(sending: Future[AttemptOutcome]) -> bool:
    """Tell whether a sending is over; one whose record failed is sent again when its claim ends."""
    if not sending.done():
        return False
    if error := sending.exception():
        logger.error("webhooks: an attempt was not recorded", exc_info=error)
    return True
