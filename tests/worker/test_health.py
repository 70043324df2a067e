"""The health check of a worker's container, asked of a real exporter, of nothing, and of something else."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prometheus_client import start_http_server

from worker.health import fault
from worker.monitoring import REGISTRY


@pytest.fixture
def exporter() -> Iterator[int]:
    """The metrics of a worker, answered as a worker does."""
    server, thread = start_http_server(0, "127.0.0.1", registry=REGISTRY)
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_a_worker_that_answers_is_healthy_wherever_it_listens(exporter: int) -> None:
    for host in ("127.0.0.1", "0.0.0.0"):
        assert fault({"WORKER_METRICS_PORT": str(exporter), "WORKER_METRICS_HOST": host}) is None


def test_the_command_exits_accordingly_and_loads_nothing_large(exporter: int) -> None:
    program = (
        "import runpy, sys; sys.argv = ['x']\ntry: runpy.run_module('worker.health', run_name='__main__')\n"
    )
    program += "finally: assert not {'celery', 'pydantic', 'sqlalchemy'} & set(sys.modules)"
    environment = {"WORKER_METRICS_PORT": str(exporter)}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    ended = subprocess.run([sys.executable, "-c", program], env={}, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "set it to the port" in ended.stderr


def test_a_worker_that_is_not_there_is_not_healthy() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert "does not answer" in (fault({"WORKER_METRICS_PORT": str(port)}) or "")


def test_something_else_at_its_port_is_no_worker() -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        assert "is no worker" in (fault({"WORKER_METRICS_PORT": str(server.server_port)}) or "")
        server.shutdown()
        thread.join(10)
