"""``python -m benchmarks.contract --cases 5000``: the service against its own description.

Starts the embedded servers in a folder of its own, serves the API as in production on a seeded database, and
prints a summary. Ends with status 1 when an answer is not as described.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

from benchmarks import admission
from benchmarks.contract.cases import run_cases
from benchmarks.contract.seed import seed
from embedded.ports import LOOPBACK, PortBook
from embedded.stack import running
from store.database import create_engine
from store.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
TEACHER = "emoji-64"
READY_TRIES = 100


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5_000, help="requests, all operations together")
    parser.add_argument("--seed", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), environ={}, durable=False) as stack:
        # Nothing may call out: the messages of the seeded webhooks stay where they are.
        environment = os.environ | stack.environment() | admission.VARIABLES | {"WEBHOOK_SENDERS": "0"}
        alembic = [sys.executable, "-m", "alembic", "upgrade", "head"]
        subprocess.run(alembic, cwd=REPOSITORY, env=environment, check=True, capture_output=True)
        port = PortBook(Path(folder) / "api-port.json").take(["api"])["api"]
        command = [sys.executable, "-m", "api"]
        options = ["--host", LOOPBACK, "--port", str(port)]
        api = subprocess.Popen([*command, *options], cwd=REPOSITORY, env=environment)
        try:
            return report_on(f"http://{LOOPBACK}:{port}", environment, arguments.cases, arguments.seed)
        finally:
            api.terminate()
            api.wait()


def report_on(base_url: str, environment: dict[str, str], cases: int, seed_number: int) -> int:
    """Send the cases to a running service and print what was found."""
    settings = Settings.model_validate({name.lower(): value for name, value in environment.items()})
    transport = httpx.HTTPTransport(retries=READY_TRIES)
    with httpx.Client(base_url=base_url, transport=transport, timeout=60) as http:
        document = http.get("/openapi.json").json()
    engine = create_engine(settings)
    seeded = seed(engine, settings, TEACHER)
    engine.dispose()
    operations = sum(len(path) for path in document["paths"].values())
    cases_of_each = -(-cases // operations)
    api_key = admission.make_api_key(environment)
    report = run_cases(document, base_url, api_key, seeded, cases_of_each=cases_of_each, seed=seed_number)
    print("\n".join(report.lines()))
    return 1 if report.failures else 0


sys.exit(main())
