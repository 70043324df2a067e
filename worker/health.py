"""Ask a worker of this machine whether it lives: ``python -m worker.health``, for containers' health checks.

It asks for the metrics, which another thread of the worker's process answers with than the one that works: a
busy worker is healthy, and so is one whose Postgres, Valkey or object store is away, as it goes on with its
training and must not be restarted for that. Nothing but the standard library is imported, for this runs again
and again.
"""

import os
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException

ANSWER_SECONDS = 5.0
ANYWHERE = {"0.0.0.0", "::", ""}  # noqa: S104  # told apart from an address, not listened on


def fault(environ: Mapping[str, str]) -> str | None:
    """Say what is wrong with the worker that these variables configured; None when it answers."""
    port = environ.get("WORKER_METRICS_PORT", "")
    if not port.isdecimal():
        return f"WORKER_METRICS_PORT is {port!r}: set it to the port at which the worker answers Prometheus"
    host = environ.get("WORKER_METRICS_HOST", "")
    address = "127.0.0.1" if host in ANYWHERE else host
    connection = HTTPConnection(address, int(port), timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, HTTPException) as error:
        return f"the worker does not answer at {address}:{port}: {error!r}"
    finally:
        connection.close()
    if answer.status != 200 or b"condenser_worker_running_jobs" not in content:
        return f"what answers at {address}:{port} is no worker: status {answer.status}"
    return None


if __name__ == "__main__":
    sys.exit(fault(os.environ))
