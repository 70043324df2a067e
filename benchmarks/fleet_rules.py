"""Whose turn it is, as `store.turns.claim_next` has it in SQL: the same rule over lists in memory.

A simulation makes hundreds of thousands of claims in a minute, which Postgres does not.
`tests/benchmarks/test_simulate_fleet.py` holds this rule against the SQL.
"""

import heapq
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Job = TypeVar("Job")


@dataclass
class TenantTurn(Generic[Job]):
    """What decides when a tenant is served: its running jobs, its last claim and what it has waiting."""

    name: str
    running: int = 0
    claimed_at: float = float("-inf")
    waiting: list[tuple[int, int, Job]] = field(default_factory=list)

    @property
    def rank(self) -> tuple[int, float, str]:
        """The least goes first."""
        return self.running, self.claimed_at, self.name


class Turns(Generic[Job]):
    """The waiting jobs of all tenants."""

    def __init__(self) -> None:
        self.tenants: dict[str, TenantTurn[Job]] = {}
        self.waiting = 0

    def submit(self, tenant: str, job: Job, *, number: int, priority: int = 0) -> None:
        """Let a job wait; of one tenant's the highest priority and then the lowest number goes first."""
        turn = self.tenants.setdefault(tenant, TenantTurn(tenant))
        heapq.heappush(turn.waiting, (-priority, number, job))
        self.waiting += 1

    def claim(self, now: float) -> tuple[str, Job] | None:
        """Take the job whose turn it is."""
        may = [one for one in self.tenants.values() if one.waiting]
        if not may:
            return None
        turn = min(may, key=lambda one: one.rank)
        _, _, job = heapq.heappop(turn.waiting)
        turn.running, turn.claimed_at = turn.running + 1, now
        self.waiting -= 1
        return turn.name, job

    def end(self, tenant: str) -> None:
        """Count a job as not running any more."""
        self.tenants[tenant].running -= 1
