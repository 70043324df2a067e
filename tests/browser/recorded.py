"""A job that really ran, told again: what its trainer wrote, and the grids that it drew.

In ``recorded/`` lie the specification, ``events.jsonl`` and ``samples/`` of a training of a student of the
bundled teacher, as ``python -m core.run`` left them, but for fewer reports of progress and fewer colours in
the grids.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from core.spec import DistillationSpec
from store import jobs, leases
from store.database import server_now, transaction
from store.events import NewEvent
from store.objects import ObjectStore

RECORDED = Path(__file__).with_name("recorded")
HOURS = 3_600


@dataclass(frozen=True)
class Recording:
    """A recorded job, and where to tell it again."""

    engine: Engine
    object_store: ObjectStore

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = (RECORDED / "events.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def tell(self) -> str:
        """Submit the job and have it say all that it said, at the same distances of time, up to now."""
        spec = DistillationSpec.model_validate_json((RECORDED / "spec.json").read_bytes())
        told = [(datetime.fromisoformat(event.pop("at")), event.pop("type"), event) for event in self.events]
        with transaction(self.engine) as session:
            shift = server_now(session) - told[-1][0]
            begin = told[0][0] + shift - timedelta(seconds=2)
            job_id = jobs.create_job(session, spec=spec, queue="cpu", now=begin).id
            claim = jobs.claim_job(
                session, job_id=job_id, worker="recorded", now=begin, lease_seconds=24 * HOURS
            )
            assert claim is not None
            for position, (at, kind, data) in enumerate(told):
                if kind == "sample":
                    self._store(session, claim, NewEvent(kind, data), at + shift)
                    continue
                leases.record_events(
                    session,
                    job_id=job_id,
                    lease_token=claim.lease_token,
                    events=[NewEvent(kind, data)],
                    position=position + 1,
                    now=at + shift,
                )
        return job_id

    def _store(self, session: Any, claim: jobs.Claim, event: NewEvent, at: datetime) -> None:
        path = event.data["path"]
        stored = self.object_store.upload_file(RECORDED / path, f"jobs/{claim.job_id}/attempts/1/{path}")
        leases.add_artifacts(
            session,
            job_id=claim.job_id,
            lease_token=claim.lease_token,
            artifacts=[
                leases.NewArtifact(
                    path=path,
                    kind="sample",
                    step=event.data["step"],
                    key=stored.key,
                    size=stored.size,
                    sha256=stored.sha256,
                )
            ],
            event=event,
            now=at,
        )
