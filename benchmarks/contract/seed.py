"""A database with something of everything in it, so that generated requests find what they name."""

import random
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Engine

from core.spec import DistillationSpec
from store import generations, jobs, webhooks
from store.database import server_now, transaction
from store.endings import ending_of
from store.events import NewEvent
from store.leases import NewArtifact, add_artifacts, record_events
from store.models import DEFAULT_TENANT_ID
from store.settings import Settings
from store.webhook_deliveries import AttemptOutcome, claim_deliveries, list_deliveries, record_attempt
from store.webhook_secrets import SecretBox, secret_of

ENDS = ("queued", "running", "paused", "cancelled", "failed", "succeeded")


@dataclass
class Seeded:
    """Ids that requests may name, by the name of the path parameter."""

    job_id: list[str] = field(default_factory=list)
    generation_id: list[str] = field(default_factory=list)
    webhook_id: list[str] = field(default_factory=list)
    deliveries: list[tuple[str, str]] = field(default_factory=list)

    def parameters(self, chance: random.Random) -> dict[str, str]:
        """Choose ids that exist, those of a delivery and its webhook together."""
        webhook_id, delivery_id = chance.choice(self.deliveries)
        return {
            "job_id": chance.choice(self.job_id),
            "generation_id": chance.choice(self.generation_id),
            "webhook_id": webhook_id if chance.random() < 0.5 else chance.choice(self.webhook_id),
            "delivery_id": delivery_id,
        }


def seed(engine: Engine, settings: Settings, teacher: str, *, jobs_of_each: int = 4) -> Seeded:
    """Write webhooks, jobs at every stage of their life, and messages that were sent."""
    seeded = Seeded()
    box = SecretBox(settings)
    with transaction(engine) as session:
        for number in range(8):
            webhook = webhooks.create_webhook(
                session,
                tenant_id=DEFAULT_TENANT_ID,
                url=f"https://receiver.invalid/{number}",
                description="",
                events=[],
                secret=box.seal(secret_of(bytes(32))),
                now=server_now(session),
            )
            seeded.webhook_id.append(webhook.id)
    for number in range(jobs_of_each * len(ENDS)):
        with transaction(engine) as session:
            now = server_now(session)
            spec = DistillationSpec(teacher=teacher, seed=number)
            job_id = jobs.create_job(session, spec=spec, queue="cpu", now=now).id
            seeded.job_id.append(job_id)
            _live(session, job_id, ENDS[number % len(ENDS)], now)
            generation = generations.create_generation(
                session,
                job_id=job_id,
                prompt="cat",
                seed=number,
                drawings=[_drawing(job_id, teacher)],
                now=now,
                watch_seconds=3_600,
            )
            seeded.generation_id.append(generation.id)
    with transaction(engine) as session:
        now = server_now(session)
        for claimed in claim_deliveries(session, limit=20, now=now):
            record_attempt(
                session,
                delivery_id=claimed.id,
                attempt=claimed.attempt,
                outcome=AttemptOutcome(at=now, latency_ms=9, status_code=500, answer_excerpt="no"),
                chance=0.5,
                now=now,
            )
        for webhook_id in seeded.webhook_id:
            page = list_deliveries(session, webhook_id, tenant_id=DEFAULT_TENANT_ID, after=None, limit=50)
            seeded.deliveries += [(webhook_id, delivery.id) for delivery in page.items]
    return seeded


def _drawing(job_id: str, teacher: str) -> generations.Drawing:
    return generations.Drawing(
        model="teacher",
        job_id=job_id,
        attempt=1,
        teacher=teacher,
        teacher_revision=None,
        name=teacher,
        sampler="ddim",
        steps=4,
        guidance_scale=2.0,
    )


def _live(session: Any, job_id: str, end: str, now: datetime) -> None:
    """Take a job to where it shall be."""
    if end == "queued":
        return
    if end == "paused":
        jobs.request_pause(session, job_id=job_id, now=now)
        return
    if end == "cancelled":
        jobs.request_cancel(session, job_id=job_id, now=now)
        return
    claim = jobs.claim_job(session, job_id=job_id, worker="seed", now=now, lease_seconds=86_400)
    if claim is None:
        raise RuntimeError(f"the new job {job_id} cannot be claimed")
    lease: dict[str, Any] = {"job_id": job_id, "lease_token": claim.lease_token, "now": now}
    told = [NewEvent("metrics", {"step": step, "values": {"loss": 1 / step}}) for step in range(1, 50)]
    record_events(session, **lease, events=told, position=1)
    prefix = f"jobs/{job_id}/attempts/1/"
    paths: list[tuple[str, Any, int | None]] = [
        ("student.zip", "student_archive", None),
        ("student/unet.fp16.safetensors", "student_file", None),
        ("checkpoints/step-00000010/a.safetensors", "checkpoint_file", 10),
        ("samples/step-00000010.png", "sample", 10),
        ("trainer.log", "log", None),
    ]
    files = [
        NewArtifact(path=path, kind=kind, step=step, key=prefix + path, size=3, sha256="0" * 64)
        for path, kind, step in paths
    ]
    add_artifacts(session, **lease, artifacts=files, event=None)
    if end == "failed":
        jobs.finish_failed(session, **lease, ending=ending_of("diverged"))
    elif end == "succeeded":
        jobs.finish_succeeded(session, **lease, result={"frechet_distance": 1.5})
