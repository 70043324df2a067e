"""Keys by the client and the command, against the real API."""

import json
import os
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from client import ApiUnreachableError, Condenser, ForbiddenError, NotFoundError, UnauthenticatedError
from embedded.files import write_private
from embedded.first_key import KEY_FILE
from store.key_format import new_key
from tests.client.network import relay_to
from tests.client.test_commands import COMMAND, REPOSITORY
from tests.client.test_commands import environment as environment
from tests.client.test_commands import run as run


def test_a_key_made_by_the_client_works_until_it_is_revoked(condenser: Condenser, api_url: str) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    made = condenser.keys.create("builds", ["read", "write"], expires_at=until)
    assert made.key not in repr(made)
    assert (made.expires_at, made.scopes) == (until, ["read", "write"])
    with Condenser(api_url, made.key) as other:
        assert other.jobs.list() == []
        with pytest.raises(ForbiddenError, match="admin"):
            other.keys.list()
        condenser.keys.revoke(made.id)
        with pytest.raises(UnauthenticatedError):
            other.jobs.list()
    assert [key.name for key in condenser.keys.list() if key.revoked_at] == ["builds"]
    with pytest.raises(NotFoundError):
        condenser.keys.revoke("nothing")


def test_without_a_key_nothing_works_and_the_error_says_so(api_url: str) -> None:
    with Condenser(api_url) as stranger, pytest.raises(UnauthenticatedError, match="An API key is needed"):
        stranger.jobs.list()


def test_a_key_that_may_have_been_made_is_not_made_again(api_url: str, api_key: str) -> None:
    with relay_to(api_url) as relay, Condenser(relay.url, api_key) as condenser:
        before = len(condenser.keys.list())
        condenser.close()
    with relay_to(api_url) as relay, Condenser(relay.url, api_key) as condenser:
        relay.lose_answers = 1
        with pytest.raises(ApiUnreachableError):
            condenser.keys.create("lost", ["read"])
    with Condenser(api_url, api_key) as condenser:
        assert len(condenser.keys.list()) == before + 1


def test_the_commands(run: Any) -> None:
    made = run("keys", "create", "builds", "--scope", "write", "--expires-in-days", "3")
    key = made.stdout.strip()
    assert "will not be shown again" in made.stderr
    listed = [line.split("\t") for line in run("keys", "list").stdout.splitlines()]
    assert [row[2] for row in listed] == ["builds", "test"]
    assert (listed[0][1], listed[0][3], listed[0][5]) == (f"{key[:16]}…", "write", "never")
    assert listed[0][4].startswith("until ")
    assert run("keys", "revoke", listed[0][0]).stderr == "revoked\n"
    assert json.loads(run("keys", "list", "--json").stdout)[0]["revoked_at"]
    assert "revoked" in run("keys", "list").stdout


def test_a_lifetime_that_is_no_number_is_refused(run: Any) -> None:
    refused = run("keys", "create", "x", "--expires-in-days", "nan", code=2)
    assert "'--expires-in-days'" in refused.stderr


def test_the_command_never_repeats_a_key(run: Any) -> None:
    for key in (new_key(), "secret-of-mine", "condenser_ümlaut", "condenser_two\nlines", "condenser_a b"):
        refused = run("--api-key", key, "list", code=1)
        assert "API key" in refused.stderr
        assert key not in refused.stderr + refused.stdout
    assert "CONDENSER_API_KEY" in run("--help").stdout


class Recorder(BaseHTTPRequestHandler):
    """Answers everything with an empty page, and keeps what it was sent."""

    seen: list[str | None]

    def do_GET(self) -> None:
        self.seen.append(self.headers.get("Authorization"))
        body = b'{"items": []}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_the_key_of_a_data_folder_is_sent_to_no_other_service(tmp_path: Path) -> None:
    seen: list[str | None] = []
    server = HTTPServer(("127.0.0.1", 0), type("Here", (Recorder,), {"seen": seen}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    write_private(tmp_path / KEY_FILE, f"{new_key()}\n")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}
    options = ["--url", f"http://127.0.0.1:{server.server_port}", "--data-dir", str(tmp_path)]
    try:
        for given in ({}, {"CONDENSER_API_KEY": "given"}):
            subprocess.run([*COMMAND, *options, "list"], env=environment | given, check=True)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert seen == [None, "Bearer given"]
