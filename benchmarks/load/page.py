"""Writes the page of the measured load."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

AIMS = {"GET /jobs/{id}": 100, "POST /jobs": 250}
CHANGE = 2.0

INTRODUCTION = """# Load

`python -m benchmarks.load` made this page; it takes {minutes:.0f} minutes and stays on loopback. Everything
ran on one machine of {processors} processors and {memory_gib} GiB: Postgres, Valkey, the S3 server, one API
process, the clients, and a process that makes the database moves of workers in their stead (a trainer would
leave no processor free). In the 15 minutes before, {load_before:.1f} other processes on average wanted a
processor.

{jobs:,} jobs were submitted within {load_seconds:.0f} s, evenly. Meanwhile {pollers} clients read a recent
job once in {poll_seconds:g} s each, {waiters} followed one by long polls and {streamers} by event streams,
one job after another. Every job ran for four seconds, reported three times and succeeded.
"""


def write_page(page: Path, found: Mapping[str, Any]) -> None:
    """Write the page from the figures of a run."""
    plan, machine = found["plan"], found["machine"]
    shape = {**plan, **machine, "minutes": found["seconds"] / 60, "load_seconds": plan["seconds"]}
    parts = [INTRODUCTION.format(**shape), _latencies(found)]
    if found["shares"]:
        parts.append(_shares(found))
    parts.append(_resources(found))
    if "supervising" in found:
        parts.append(_supervising(found["supervising"]))
    page.write_text("\n".join(parts), encoding="utf-8")


def _latencies(found: Mapping[str, Any]) -> str:
    phases = [phase for phase in ("empty", "filled") if phase in found]
    titles = ("request", "database", "answers", "p50", "p95", "p99", "worst", "aim for p99")
    lines = [_row(titles), _row(["---"] * len(titles))]
    for request in found["empty"]["latency"]:
        for phase in phases:
            row = found[phase]["latency"][request]
            times = [f"{row[key]:.0f} ms" for key in ("p50_ms", "p95_ms", "p99_ms", "worst_ms")]
            aim = f"{AIMS[request]} ms" if request in AIMS else ""
            lines.append(_row([f"`{request}`", phase, f"{row['count']:,}", *times, aim]))
    told = [_told(phase, found[phase]) for phase in phases]
    if "filled" in found:
        changes = ", ".join(
            f"of `{request}` by a factor of {_change(found, request):.2f}" for request in AIMS
        )
        told.append(
            f"*Filled* is the same load with {found['filled_jobs']:,} more jobs and "
            f"{found['filled_points']:,} metric points in the database, copied in "
            f"{found['fill_seconds']:.0f} s. It changes the 99th percentile {changes}; the aim is {CHANGE:g}."
        )
    return "\n".join(["## Latencies", "", *lines, "", *(f"- {line}" for line in told), ""])


def _shares(found: Mapping[str, Any]) -> str:
    requests = (f"`{request}`, p50 and p99" for request in AIMS)
    titles = ("share of the load", "API processes", *requests, "cores of each")
    lines = [_row(titles), _row(["---"] * len(titles))]
    for load in [*found["shares"], {"share": 1.0, **found["empty"]}, {"share": 1.0, **found["spread"]}]:
        times = [
            " and ".join(f"{load['latency'][request][key]:.0f} ms" for key in ("p50_ms", "p99_ms"))
            for request in AIMS
        ]
        cores = [f"{used:.2f}" for name, used in load["cores"].items() if name.endswith("api")]
        lines.append(_row([f"{load['share']:g}", f"{len(cores)}", *times, " and ".join(cores)]))
    text = """How much of the load one API process carries, and what a second one on the same machine brings:
a share of the clients, and of the jobs in the same time. The database is empty."""
    told = f"- {_told('two processes', found['spread'])}"
    return "\n".join(["## What it carries", "", text, "", *lines, "", told, ""])


def _told(phase: str, found: Mapping[str, Any]) -> str:
    return (
        f"{phase}: {found['accepted']:,} jobs accepted, {found['error_count']} errors, {found['lost']} jobs "
        f"lost or doubled, {found['stream_events']:,} events streamed in order and without a gap, "
        f"{found['poll_changes']:,} changes told to long polls."
    )


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _change(found: Mapping[str, Any], request: str) -> float:
    before, after = (found[phase]["latency"][request]["p99_ms"] for phase in ("empty", "filled"))
    return float(after / before)


def _resources(found: Mapping[str, Any]) -> str:
    titles = ("process", "cores, empty", "cores, filled", "memory over both loads")
    lines = [_row(titles), _row(["---"] * len(titles))]
    last = found.get("filled", found["empty"])
    for name, cores in found["empty"]["cores"].items():
        memory = [*found["empty"]["memory_mib"][name], last["memory_mib"][name][-1]]
        path = " → ".join(f"{value:.0f}" for value in memory)
        lines.append(_row([name, f"{cores:.2f}", f"{last['cores'][name]:.2f}", f"{path} MiB"]))
    milliseconds = _milliseconds(found["empty"])
    bound = f"""Memory is that of the process alone: after a fifth of the first load, at its end, and at the
end of the last.

An API process took {milliseconds:.1f} ms of processor time for an answer, a streamed event counted as
one. Its Python runs on one core at a time, so that is what bounds it: past about {1_000 / milliseconds:.0f}
answers a second on such a core requests queue, and another process on another core is what helps.
"""
    return "\n".join(["## What it took", "", *lines, "", bound])


def _milliseconds(found: Mapping[str, Any]) -> float:
    """Processor time of the API for one answer or one event of a stream."""
    answers = sum(row["count"] for row in found["latency"].values())
    answers += found["stream_events"] + found["poll_changes"]
    return float(1_000 * found["cores"]["api"] * found["seconds"] / answers)


def _supervising(found: Mapping[str, Any]) -> str:
    times = [", ".join(f"{run['seconds']:.1f}" for run in found[kind]) for kind in ("alone", "supervised")]
    return f"""## What supervising costs

`python -m benchmarks.load --only-supervising --steps {found["steps"]} --pairs {len(found["alone"])}`
measures it by itself.
One specification of {found["steps"]} steps, in turns: {times[0]} s by `python -m core.run` alone,
{times[1]} s from claim to success under a worker that records events, beats and uploads. The ratio of the
sums is {found["wall_ratio"]:.3f}. Of the processor time, which other work on the machine disturbs less, the
supervisor took {100 * found["processor_share"]:.2f} % of what its trainer took (aim: under 1 %).
"""
