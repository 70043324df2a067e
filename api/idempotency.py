"""Requests that are carried out once however often they are sent, and answered the same each time.

The answer that is kept is the very text that the first request got.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from starlette.responses import Response

from api.tenant_services import TenantServices
from store import idempotency
from store.database import Session, server_now
from store.idempotency import IdempotencyKey, KeptAnswer

REPLAYED_HEADER = "Idempotency-Replayed"


@dataclass(frozen=True)
class Carried:
    """The answer to a request, and whether it was an earlier one that carried it out."""

    answer: KeptAnswer
    is_replay: bool

    def response(self) -> Response:
        """Put the answer on its way."""
        headers = {"Location": self.answer.location} if self.answer.location else {}
        if self.is_replay:
            headers[REPLAYED_HEADER] = "true"
        return Response(
            self.answer.body,
            status_code=self.answer.status_code,
            headers=headers,
            media_type="application/json",
        )


def key_of(text: str | None, *request: str) -> IdempotencyKey | None:
    """Join the key that a client sent with a fingerprint of its request, whatever tells that from others."""
    if text is None:
        return None
    return IdempotencyKey(text, hashlib.sha256("\x00".join(request).encode()).hexdigest())


def carried_before(services: TenantServices, key: IdempotencyKey | None) -> Carried | None:
    """Find the answer to a request that was carried out before."""
    if key is None:
        return None
    with services.transaction() as session:
        kept = idempotency.find_answer(session, key, now=server_now(session))
    return None if kept is None else Carried(kept, is_replay=True)


def carry_out_once(
    services: TenantServices,
    key: IdempotencyKey | None,
    action: Callable[[Session, datetime], tuple[KeptAnswer, str | None]],
    *,
    seal: Callable[[str], str] | None = None,
) -> Carried:
    """Carry a request out in one transaction with the record of its key.

    Parameters
    ----------
    services
        The application's services.
    key
        None for a request without one, which is carried out each time.
    action
        Carries it out and gives the answer, and the id of the job that it was about.
    seal
        Encrypts the body for its keeping, where it holds a secret; its user decrypts what comes back as a
        replay.

    Raises
    ------
    RequestInProgressError
        While another request with the key is under way.
    IdempotencyConflictError
        When the key came with another request.
    """
    with services.transaction() as session:
        now = server_now(session)
        if key is not None and (kept := idempotency.begin(session, key, now=now)) is not None:
            return Carried(kept, is_replay=True)
        answer, job_id = action(session, now)
        if key is not None:
            body = answer.body if seal is None else seal(answer.body)
            kept = KeptAnswer(answer.status_code, body, answer.location)
            idempotency.keep_answer(session, key, kept, job_id=job_id, now=now)
    return Carried(answer, is_replay=False)
