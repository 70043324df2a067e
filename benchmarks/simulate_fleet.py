"""A fleet of 1,000 workers and 100,000 jobs, simulated: ``python -m benchmarks.simulate_fleet``.

Real are: the rule of whose turn it is (`benchmarks.fleet_rules`, which a test holds against the SQL), the
rhythm and the limits of settings, supervisor and reconciler, and the time of every move, drawn from what
`benchmarks.fleet_sql` measured. Assumed are the demand and the disasters, which `Scenario` names. Not
simulated: the network, the object store, and what API requests ask of the database.

A heartbeat, with what it reports of the training, that the database takes at once changes nothing but the
database's load; it is counted every ten seconds, and slows all else down by its share. Heartbeats are
simulated one by one where they decide: when the database comes back after an outage, and the reconciler and
1,000 workers are after the same leases.
"""

import argparse
import json
import random
from collections.abc import Generator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import simpy

from benchmarks.fleet_rules import Turns
from benchmarks.fleet_sql import REPOSITORY
from benchmarks.fleet_sql import RESULT as MEASURED
from core.files import write_json
from store.settings import Settings
from worker.attempt import Rhythm

RESULT = REPOSITORY / "docs" / "results" / "fleet"
SETTINGS = {name: Settings.model_fields[name].default for name in Settings.model_fields}
LEASE, BEAT = SETTINGS["lease_seconds"], SETTINGS["heartbeat_seconds"]
COUNTED_EVERY = 10.0
RECONCILE, MAX_ATTEMPTS = SETTINGS["reconcile_seconds"], SETTINGS["max_attempts"]

Event = Generator[simpy.Event, Any, Any]


@dataclass(frozen=True)
class Scenario:
    """What the fleet meets.

    Attributes
    ----------
    workers, jobs, tenants
        How many; the n-th tenant submits in proportion to 1 / n.
    mean_minutes
        Of a job; log-normal, so that some take ten times as long.
    load
        Share of the workers that the demand keeps busy.
    burst
        Jobs that the first tenant submits at once, after a fifth of the others.
    lost_hints
        Share of the messages that the broker loses.
    days_between_deaths
        Of a worker; it is back after a minute.
    outage_seconds
        How long the database is away, once, in the middle.
    connections
        Moves that the database makes at a time.
    reconciler_retry
        Seconds after which a pass that the database was away for is tried again; the real one's are those
        between any two.
    """

    workers: int = 1_000
    jobs: int = 100_000
    tenants: int = 50
    mean_minutes: float = 30
    load: float = 0.9
    burst: int = 5_000
    lost_hints: float = 0.01
    days_between_deaths: float = 7
    outage_seconds: float = 120
    connections: int = 4
    reconciler_retry: float = RECONCILE
    seed: int = 0


@dataclass
class Job:
    """One job: what it takes, and what has become of it."""

    number: int
    tenant: str
    seconds: float
    attempts_used: int = 0
    waits_since: float = 0.0
    hinted: bool = True


@dataclass
class Run:
    """An attempt: under a lease that ends unless its worker beats."""

    job: Job
    began: float
    worker: simpy.Process
    lease_ends: float | None = None  # known only while nobody beats
    is_silenced: bool = False  # its worker lives, and cannot beat

    def reports_a_second(self, now: float) -> float:
        """Heartbeats; there is always some progress to wait for the next one, and no more than that."""
        return 1 / min(Rhythm().patience(now - self.began), BEAT)


@dataclass
class Findings:
    """What is reported."""

    claim_milliseconds: list[float] = field(default_factory=list)
    waits: list[tuple[float, str, float]] = field(default_factory=list)
    minutes: list[dict[str, float]] = field(default_factory=list)
    ended: int = 0
    failed: int = 0
    leases_lost_by_death: int = 0
    leases_lost_by_outage: int = 0
    hints_sent_again: int = 0
    empty_claims: int = 0
    demand_ended: float = float("inf")


class Fleet:
    """The simulated service."""

    def __init__(self, scenario: Scenario, milliseconds: dict[str, list[float]]) -> None:
        self.scenario, self.milliseconds = scenario, milliseconds
        self.random = random.Random(scenario.seed)  # a simulation
        self.env = simpy.Environment()
        self.broker = simpy.Store(self.env)
        self.database = simpy.Resource(self.env, scenario.connections)
        self.is_up = self.env.event().succeed()
        self.turns: Turns[Job] = Turns()
        self.tenant_rows: dict[str, simpy.Resource] = {}
        self.running: dict[int, Run] = {}
        self.moves = 0.0
        self.reports_a_second = 0.0
        self.found = Findings()

    def simulate(self) -> Findings:
        """Let every job come to its end."""
        for _ in range(self.scenario.workers):
            self.env.process(self._worker())
        self.env.process(self._demand())
        self.env.process(self._reconciler())
        self.env.process(self._counter())
        self.env.process(self._observer())
        if self.scenario.outage_seconds:
            self.env.process(self._outage())
        while self.found.ended + self.found.failed < self.scenario.jobs:
            self.env.step()
        return self.found

    def _demand(self) -> Event:
        scenario = self.scenario
        names = [f"tenant-{number:03d}" for number in range(1, scenario.tenants + 1)]
        weights = [1 / number for number in range(1, scenario.tenants + 1)]
        pause = scenario.mean_minutes * 60 / (scenario.workers * scenario.load)
        for number in range(scenario.jobs):
            at_once = 0 <= number - scenario.jobs // 5 < scenario.burst
            if not at_once:
                yield self.env.timeout(self.random.expovariate(1 / pause))
            tenant = names[0] if at_once else self.random.choices(names, weights)[0]
            # A log-normal of shape 1 has the mean exp(mu + 1/2).
            seconds = 60 * scenario.mean_minutes * self.random.lognormvariate(-0.5, 1)
            self._queue(Job(number, tenant, max(seconds, 5.0)))
            if self.random.random() >= scenario.lost_hints:
                self.broker.put(number)
            self.moves += 1
        self.found.demand_ended = self.env.now

    def _queue(self, job: Job) -> None:
        job.waits_since = self.env.now
        self.turns.submit(job.tenant, job, number=job.number)

    def _worker(self) -> Event:
        while True:
            yield self.broker.get()
            asked = self.env.now
            job = yield from self._claim()
            if job is None:
                self.found.empty_claims += 1
                continue
            self.found.claim_milliseconds.append(1_000 * (self.env.now - asked))
            self.found.waits.append((job.waits_since, job.tenant, asked - job.waits_since))
            process = self.env.active_process
            assert process is not None
            run = self.running[job.number] = Run(job, self.env.now, process)
            death = self.random.expovariate(1 / (86_400 * self.scenario.days_between_deaths))
            try:
                yield self.env.timeout(min(job.seconds, death))
                if death < job.seconds:
                    run.lease_ends = run.lease_ends or self.env.now - self._since_beat(run) + LEASE
                    run.is_silenced = False
                    yield self.env.timeout(60)
                    continue
                # From its last beat on the job is this worker's until it is finished or taken back.
                yield from self._use("finish")
            except simpy.Interrupt:  # the lease is gone: the trainer is killed
                continue
            if self.running.pop(job.number, None) is run:
                self.turns.end(run.job.tenant)
                self.found.ended += 1

    def _claim(self) -> Generator[simpy.Event, Any, Job | None]:
        """Wait for the database, and for the row of the tenant whose turn it is."""
        yield from self._connected()
        with self.database.request() as connection:
            yield connection
            taken = self.turns.claim(self.env.now)
            if taken is None:
                yield self.env.timeout(self._time_of("claim"))
                return None
            tenant, job = taken
            row = self.tenant_rows.setdefault(tenant, simpy.Resource(self.env, 1))
            with row.request() as lock:
                yield lock
                yield self.env.timeout(self._time_of("claim"))
            self.moves += 1
            return job

    def _use(self, move: str) -> Event:
        yield from self._connected()
        with self.database.request() as connection:
            yield connection
            yield self.env.timeout(self._time_of(move))
        self.moves += 1

    def _connected(self) -> Event:
        while not self.is_up.triggered:
            yield self.is_up
            yield self.env.timeout(self.random.uniform(0, Rhythm().retry))

    def _time_of(self, move: str) -> float:
        """Draw a measured time, slowed down by the database's load of reports."""
        milliseconds = self.random.choice(self.milliseconds[move])
        share = self.reports_a_second * self._mean("report") / 1_000 / self.scenario.connections
        return milliseconds / 1_000 / max(1 - share, 0.05)

    def _mean(self, move: str) -> float:
        return sum(self.milliseconds[move]) / len(self.milliseconds[move])

    def _since_beat(self, run: Run) -> float:
        return (self.env.now - run.began) % BEAT

    def _reconciler(self) -> Event:
        while True:
            yield self.env.timeout(RECONCILE)
            while not self.is_up.triggered:
                yield self.env.timeout(self.scenario.reconciler_retry)
            yield from self._use("reconcile")
            ended = [run for run in self.running.values() if (run.lease_ends or float("inf")) < self.env.now]
            for run in ended:
                self._take_back(run)
            missing = self.turns.waiting - len(self.broker.items)
            for _ in range(missing):
                self.broker.put(0)
            self.found.hints_sent_again += max(missing, 0)
            self.moves += max(missing, 0)

    def _take_back(self, run: Run) -> None:
        del self.running[run.job.number]
        self.turns.end(run.job.tenant)
        self.moves += 1
        run.job.attempts_used += 1
        if run.is_silenced:
            self.found.leases_lost_by_outage += 1
            run.worker.interrupt()
        else:
            self.found.leases_lost_by_death += 1
        if run.job.attempts_used >= MAX_ATTEMPTS:
            self.found.failed += 1
        else:
            self._queue(run.job)

    def _outage(self) -> Event:
        """Let the database go away: no lease is extended until each worker's next try after it is back."""
        scenario = self.scenario
        middle = scenario.jobs * scenario.mean_minutes * 60 / (scenario.workers * scenario.load) / 2
        yield self.env.timeout(middle)
        self.is_up = self.env.event()
        silenced = [run for run in self.running.values() if run.lease_ends is None]
        for run in silenced:
            run.is_silenced = True
            run.lease_ends = self.env.now - self._since_beat(run) + LEASE
        yield self.env.timeout(scenario.outage_seconds)
        self.is_up.succeed()
        for run in silenced:
            self.env.process(self._beat(run))

    def _beat(self, run: Run) -> Event:
        yield self.env.timeout(self.random.uniform(0, Rhythm().retry))
        yield from self._use("heartbeat")
        if self.running.get(run.job.number) is run and run.is_silenced:
            run.lease_ends, run.is_silenced = None, False

    def _counter(self) -> Event:
        while True:
            runs = self.running.values() if self.is_up.triggered else ()
            self.reports_a_second = sum(run.reports_a_second(self.env.now) for run in runs)
            yield self.env.timeout(COUNTED_EVERY)

    def _observer(self) -> Event:
        while True:
            before = self.moves
            yield self.env.timeout(60)
            moves = (self.moves - before) / 60
            minute = {"minute": self.env.now / 60, "running": len(self.running)}
            minute["waiting"] = self.turns.waiting
            self.found.minutes.append(minute | {"moves": moves, "reports": self.reports_a_second})


def summary(scenario: Scenario, found: Findings) -> dict[str, Any]:
    """Return the figures of the page."""
    busy = [one for one in found.minutes if 60 * one["minute"] <= found.demand_ended]
    rates = {name: [one[name] for one in busy] for name in ("moves", "reports")}
    writes = [sum(each) for each in zip(*rates.values(), strict=True)]
    first = "tenant-001"
    others = [wait for _, tenant, wait in found.waits if tenant != first]
    own = [wait for _, tenant, wait in found.waits if tenant == first]
    return {
        "scenario": asdict(scenario),
        "jobs": {"succeeded": found.ended, "failed": found.failed},
        "claim_milliseconds": percentiles(found.claim_milliseconds),
        "wait_seconds": {"tenant with the burst": percentiles(own), "all others": percentiles(others)},
        "leases_lost": {"by death": found.leases_lost_by_death, "by outage": found.leases_lost_by_outage},
        "hints_sent_again": found.hints_sent_again,
        "empty_claims": found.empty_claims,
        "database_writes_a_second": percentiles(writes)
        | {f"mean of {name}": round(sum(each) / len(each), 2) for name, each in rates.items() if each},
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """Return the median, high percentiles and the greatest of some values."""
    ordered = sorted(values) or [0.0]
    at = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "worst": 1.0}
    return {name: round(ordered[int(share * (len(ordered) - 1))], 2) for name, share in at.items()}


def plot(found: Findings, path: Path) -> None:
    """Draw waiting jobs, claim latencies and writes over the simulated time."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "fleet"
    from matplotlib import pyplot as plt

    shown = found.minutes[::10]
    hours = [one["minute"] / 60 for one in shown]
    figure, (fleet, writes, latency) = plt.subplots(3, 1, figsize=(8, 8), layout="constrained")
    for name in ("running", "waiting"):
        fleet.plot(hours, [one[name] for one in shown], label=name)
    fleet.set(ylabel="jobs", yscale="symlog", title="1,000 workers, 100,000 jobs, simulated")
    fleet.legend()
    stacked = [[one[name] for one in shown] for name in ("reports", "moves")]
    writes.stackplot(hours, stacked, labels=("heartbeats with reports", "moves of jobs"))
    writes.set(ylabel="database writes a second", xlabel="simulated hours")
    writes.legend(loc="lower right")
    ordered = sorted(found.claim_milliseconds)
    shares = [position / len(ordered) for position in range(len(ordered))]
    latency.plot(ordered[::50], shares[::50])
    latency.set(xscale="log", xlabel="claim latency, ms", ylabel="share of claims")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Simulate, print the figures, and write them with a plot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate_fleet", description=main.__doc__)
    for one in fields(Scenario):
        parser.add_argument(f"--{one.name.replace('_', '-')}", type=type(one.default), default=one.default)
    scenario = Scenario(**vars(parser.parse_args()))
    found = Fleet(scenario, json.loads(MEASURED.read_text())["milliseconds"]).simulate()
    figures = summary(scenario, found)
    print(json.dumps(figures, indent=2))
    write_json(RESULT.with_suffix(".json"), figures)
    plot(found, RESULT.with_suffix(".svg"))


if __name__ == "__main__":
    main()
