"""``condenser workers``: what there is to train on, and what it does."""

import typer

from client.address import address_of
from client.commands.jobs import AsJson
from client.examples import example
from client.models import WorkerState
from client.output import write_json, write_table
from client.quantities import megabytes


def add_to(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command(epilog=example("condenser workers"))(workers)


def workers(context: typer.Context, as_json: AsJson = False) -> None:
    """List the workers, and what each runs."""
    with address_of(context).connect() as condenser:
        known = condenser.workers.list()
    if as_json:
        write_json([worker.model_dump(mode="json") for worker in known])
        return
    columns = ["worker", "state", "runs", "device", "count", "memory", "queue", "release", "last heartbeat"]
    write_table(columns, [_row(worker) for worker in known])


def _row(worker: WorkerState) -> list[str]:
    others = [f"{worker.other_jobs} of others"] if worker.other_jobs else []
    return [
        worker.name,
        worker.state,
        ", ".join([*worker.job_ids, *others]),
        worker.device,
        str(worker.device_count),
        "" if worker.memory_bytes is None else megabytes(worker.memory_bytes),
        worker.queue,
        worker.release,
        f"{worker.last_heartbeat_at.astimezone():%Y-%m-%d %H:%M:%S}",
    ]
