"""What clients send about webhooks, and what the service says about them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from store import models
from store.models import DeliveryStatus, WebhookDisabledReason

EventType = Literal["job.queued", "job.running", "job.paused", "job.succeeded", "job.failed", "job.cancelled"]

_NO_NUL = r"^[^\x00]*$"
_Url = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2_000,
        pattern=_NO_NUL,
        description="HTTPS, at a public address. Every message is a POST to it.",
        examples=["https://example.com/hooks/condenser"],
    ),
]
_Description = Annotated[str, Field(max_length=500, pattern=_NO_NUL, description="For you to tell it by.")]
_Events = Annotated[
    list[EventType], Field(max_length=20, description="What it is told of; of everything when empty.")
]
WEBHOOK_EXAMPLE: dict[str, Any] = {
    "id": "019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa",
    "url": "https://example.com/hooks/condenser",
    "description": "Nightly distillations",
    "events": ["job.succeeded", "job.failed"],
    "enabled": True,
    "disabled_reason": None,
    "failing_since": None,
    "previous_secret_expires_at": None,
    "created_at": "2026-03-02T10:15:00Z",
    "updated_at": "2026-03-02T10:15:00Z",
}


class NewWebhook(BaseModel):
    """An endpoint to be told of jobs' moves."""

    model_config = ConfigDict(extra="forbid")

    url: _Url
    description: _Description = ""
    events: _Events = []


class WebhookChanges(BaseModel):
    """Fields of an endpoint that are to change; the others stay."""

    model_config = ConfigDict(extra="forbid")

    url: _Url | None = None
    description: _Description | None = None
    events: _Events | None = None
    enabled: bool | None = Field(
        default=None, description="False: nothing is sent, and what waited counts as failed. True: anew."
    )


class Webhook(BaseModel):
    """An endpoint that is told of jobs' moves."""

    model_config = ConfigDict(json_schema_extra={"examples": [WEBHOOK_EXAMPLE]})

    id: str
    url: str
    description: str
    events: list[str] = Field(description="What it is told of; of everything when empty.")
    enabled: bool
    disabled_reason: WebhookDisabledReason | None = Field(
        description="`by_user`; `gone`: it answered 410; `failing`: it had taken nothing for five days."
    )
    failing_since: datetime | None = Field(description="First failure after the last message that it took.")
    previous_secret_expires_at: datetime | None = Field(
        description="Until then the secret before the last rotation signs too."
    )
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, webhook: models.Webhook, **more: Any) -> Self:
        """Describe a row."""
        own = {name: getattr(webhook, name) for name in Webhook.model_fields if hasattr(webhook, name)}
        return cls.model_validate(own | {"enabled": webhook.disabled_reason is None} | more)


class WebhookWithSecret(Webhook):
    """An endpoint whose secret was just made. It is shown this once."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [WEBHOOK_EXAMPLE | {"secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"}]
        }
    )

    secret: str = Field(description="Verify every message with it, by a library of Standard Webhooks.")


class DeliveryAttempt(BaseModel):
    """One sending of a message, and what came of it."""

    model_config = ConfigDict(from_attributes=True)

    number: int
    at: datetime
    latency_ms: int
    status_code: int | None = Field(description="Of the answer, if there was one.")
    answer_excerpt: str | None = Field(description="The first 1,000 characters of the answer.")
    error: str | None = Field(description="Why there was no answer.")


class Delivery(BaseModel):
    """A message to an endpoint."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "id": "019ab2c4-8a10-7d20-8a3e-5d3f1c0b7e11",
                    "event": "job.succeeded",
                    "job_id": "019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa",
                    "status": "delivered",
                    "payload": {
                        "type": "job.succeeded",
                        "timestamp": "2026-03-02T10:21:09+00:00",
                        "data": {"job_id": "019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa", "status": "succeeded"},
                    },
                    "next_attempt_at": None,
                    "created_at": "2026-03-02T10:21:09Z",
                    "finished_at": "2026-03-02T10:21:10Z",
                    "attempts": [
                        {
                            "number": 1,
                            "at": "2026-03-02T10:21:10Z",
                            "latency_ms": 84,
                            "status_code": 204,
                            "answer_excerpt": "",
                            "error": None,
                        }
                    ],
                }
            ]
        },
    )

    id: str = Field(description="The message's `webhook-id`, the same at each attempt.")
    event: str
    job_id: str
    status: DeliveryStatus
    payload: dict[str, Any]
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None
    attempts: Sequence[DeliveryAttempt]

    @classmethod
    def of(cls, delivery: models.WebhookDelivery) -> Self:
        """Describe a row with its log."""
        own = {name: getattr(delivery, name) for name in cls.model_fields if name != "attempts"}
        log = [DeliveryAttempt.model_validate(attempt) for attempt in delivery.log]
        return cls.model_validate(own | {"attempts": log})
