"""The campaign: jobs are submitted while faults fall, all chosen by one seed.

The seed decides what is tried, in which order, on whom and after which pauses. How that meets the work of
the processes is up to the machine, and what finds nobody is not counted: two runs of a seed are alike, not
the same.
"""

import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from threading import Event

import httpx
from sqlalchemy import select

from benchmarks.fault_campaign.faults import FAULTS, Undo
from benchmarks.fault_campaign.service import LEASE_SECONDS, RECONCILE_SECONDS, Service
from benchmarks.fault_campaign.verdict import judge
from store.database import create_engine, server_now, transaction
from store.errors import UnavailableError
from store.models import TERMINAL_STATUSES, Job
from store.objects import ObjectStore

LONGEST_UNDONE = 4
"""A fault is undone after at most so many others."""
SETTLE_SECONDS = 900
CAPTIONS = {"kind": "inline", "texts": ["a cat", "a dog"]}


@dataclass
class Report:
    """What a campaign came to.

    Attributes
    ----------
    faults
        How many there were of each kind, those that found nobody left out.
    statuses
        How many jobs ended in each.
    attempts
        Of all jobs together.
    looks
        How often Postgres and the API were there and the statuses were looked at.
    overdue_seconds
        How long a job was called running after its lease had ended, at most, in those looks, counted from
        when both were there again.
    seconds
        From the first fault to the last job's end.
    wrong
        Everything that should not be.
    """

    faults: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    looks: int = 0
    overdue_seconds: float = 0.0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


class Campaign:
    """One campaign against a service.

    Parameters
    ----------
    service
        What is attacked; it is started here and stopped by the caller.
    seed
        Decides everything that a seed can.
    jobs, faults
        How many.
    progress
        Told after each fault how many there have been.
    """

    def __init__(
        self, service: Service, *, seed: int, jobs: int, faults: int, progress: Callable[[int], object]
    ) -> None:
        self._service, self._random = service, Random(seed)
        self._jobs, self._faults, self._progress = jobs, faults, progress
        self._engine = create_engine(service.settings)
        self._submitted: list[str] = []
        self._undo: list[tuple[int, Undo]] = []
        self._there_since: float | None = None
        self._report = Report()

    def run(self) -> Report:
        """Submit, attack, heal, wait and judge."""
        self._service.heal()
        self._await(self._service.answers, "the API does not answer")
        began = time.monotonic()
        done = 0
        while done < self._faults:
            self._undo_what_is_due(done)
            if len(self._submitted) * self._faults <= done * self._jobs and len(self._submitted) < self._jobs:
                self._submit()
            done += self._strike(done)
            self._progress(done)
            self._look()
            Event().wait(self._random.uniform(0.05, 1.0))
        while len(self._submitted) < self._jobs:
            self._submit()
        self._undo_what_is_due(done + LONGEST_UNDONE)
        self._service.heal()
        self._await(self._service.answers, "the API does not answer after everything was put right")
        self._await(self._all_ended, "not all jobs come to an end")
        self._report.seconds = time.monotonic() - began
        return self._judged()

    def _strike(self, done: int) -> int:
        """Do what the seed says next; whether there was somebody to do it to."""
        names = list(FAULTS)
        (name,) = self._random.choices(names, [FAULTS[name][1] for name in names])
        later = self._random.randint(1, LONGEST_UNDONE)
        if not self._submitted:
            return 0
        fault = FAULTS[name][0](self._service, self._submitted, self._random)
        if not fault.target:
            return 0
        self._report.faults[name] += 1
        if fault.undo is not None:
            self._undo.append((done + later, fault.undo))
        return 1

    def _undo_what_is_due(self, done: int) -> None:
        due = [undo for when, undo in self._undo if when <= done]
        self._undo = [(when, undo) for when, undo in self._undo if when > done]
        for undo in due:
            undo()

    def _submit(self) -> None:
        """Submit a job as a careful client: with one key, again and again until it is answered."""
        key = str(uuid.UUID(int=self._random.getrandbits(128)))
        body = {"teacher": "tiny", "captions": CAPTIONS}

        def accepted() -> str | None:
            try:
                answer = self._service.http.post("/jobs", json=body, headers={"Idempotency-Key": key})
            except httpx.TransportError:
                return self._help_out()
            if answer.status_code in {409, 503}:
                return self._help_out()
            answer.raise_for_status()
            job_id: str = answer.json()["id"]
            return job_id

        self._submitted.append(self._await(accepted, "a submission is not accepted"))

    def _help_out(self) -> None:
        """Bring back what a submission cannot do without."""
        self._service.servers.start("postgres")
        self._service.start_api()

    def _look(self) -> None:
        """Look for jobs that are called running after their lease, with somebody there to see it."""
        try:
            with transaction(self._engine) as session:
                now = server_now(session)
                leases = session.scalars(select(Job.lease_expires_at).where(Job.status == "running")).all()
            self._service.http.get("/healthz").raise_for_status()
        except (UnavailableError, httpx.HTTPError):
            self._there_since = None
            return
        self._there_since = self._there_since or time.monotonic()
        late = max(((now - lease).total_seconds() for lease in leases if lease is not None), default=0.0)
        overdue = min(late, time.monotonic() - self._there_since)
        self._report.overdue_seconds = max(self._report.overdue_seconds, overdue)
        self._report.looks += 1

    def _all_ended(self) -> bool:
        self._service.heal()  # a worker that was told to end may have done so only just now
        self._look()
        with transaction(self._engine) as session:
            rows = session.execute(select(Job.id, Job.status)).all()
        for row in rows:
            if row.status == "paused":
                self._service.http.post(f"/jobs/{row.id}/resume")
        return all(row.status in TERMINAL_STATUSES for row in rows)

    def _judged(self) -> Report:
        report = self._report
        with transaction(self._engine) as session:
            rows = session.execute(select(Job.status, Job.attempt)).all()
        report.statuses = Counter(row.status for row in rows)
        report.attempts = sum(row.attempt for row in rows)
        objects = ObjectStore(self._service.settings)
        report.wrong += judge(self._engine, objects, self._submitted, self._service.cancel_asked)
        if report.overdue_seconds > LEASE_SECONDS:
            report.wrong.append(f"a job was called running {report.overdue_seconds:.1f} s after its lease")
        self._engine.dispose()
        return report

    def _await(self, condition: Callable[[], object], complaint: str) -> "object":
        deadline = time.monotonic() + SETTLE_SECONDS
        while not (result := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(complaint)
            Event().wait(RECONCILE_SECONDS)
        return result
