"""The key of a data folder: made at the first start, kept, used unasked, replaced when it is bad."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from embedded.first_key import KEY_FILE, ensure_first_key, first_key
from embedded.stack import running
from embedded.state import running_stack

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "from client.cli import app; app()"]


def asked(url: str | None, key: str | None) -> int:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.get(f"{url}/keys", headers=headers, trust_env=False).status_code


@pytest.mark.timeout(600)
def test_the_owner_of_a_data_folder_never_has_to_think_of_a_key(
    data_dir: Path, eventually: Callable[..., Any]
) -> None:
    with running(data_dir, environ=os.environ, durable=False, with_services=True) as stack:
        key = first_key(data_dir)
        assert key is not None
        assert stat.S_IMODE((data_dir / KEY_FILE).stat().st_mode) == 0o600
        assert stack.api_url is not None
        assert (asked(stack.api_url, key), asked(stack.api_url, None)) == (200, 401)

        with httpx.Client(base_url=stack.api_url, trust_env=False, follow_redirects=True) as browser:
            page = browser.get("/ui/teachers").raise_for_status()
        assert (page.url.path, "first key of this data folder" in page.text) == ("/ui/teachers", True)

        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "HOME": str(data_dir)}
        command = [*COMMAND, "--data-dir", str(data_dir), "keys", "list"]
        listed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        key_id, _, name, *_ = listed.stdout.strip().split("\t")
        assert name == "first key of this data folder"

        # Nobody waited for it, and it shall be there all the same.
        assert [each.name for each in stack.processes[-3:]] == ["api", "interactive", "worker"]
        with psycopg.connect(stack.variables["DATABASE_URL"], autocommit=True) as database:
            roles = "SELECT DISTINCT role FROM workers ORDER BY role"
            both = [("interactive",), ("training",)]
            eventually(lambda: database.execute(roles).fetchall() == both)

        everything = {**os.environ, **stack.environment()}
        ensure_first_key(data_dir, stack.api_url, everything)
        assert first_key(data_dir) == key, "a good key is kept"
        revoked = httpx.delete(
            f"{stack.api_url}/keys/{key_id}", headers={"Authorization": f"Bearer {key}"}, trust_env=False
        )
        assert revoked.status_code == 204
        ensure_first_key(data_dir, stack.api_url, everything)
        second = first_key(data_dir)
        assert second != key
        assert asked(stack.api_url, second) == 200
        for log in (data_dir / "logs").iterdir():
            for secret in (key, second, stack.variables["API_KEY_PEPPER"]):
                assert secret is not None
                assert secret not in log.read_text(errors="replace"), log
    subprocess.run([*command[:-2], "up", "--detach"], env=environment, check=True, capture_output=True)
    again = running_stack(data_dir)
    assert again is not None
    assert first_key(data_dir) == second, "it outlasts a restart, and so does the pepper"
    assert asked(again.api_url, second) == 200
