"""A large upload goes through the API's process without ever being in its memory."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MEBIBYTE = 2**20
UPLOAD_BYTES = 200 * MEBIBYTE
LARGEST_GROWTH_BYTES = 32 * MEBIBYTE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's account of a process")


@pytest.fixture
def process(
    service_environment: dict[str, str], free_port: int, tmp_path: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """The API as it is started in production."""
    command = [sys.executable, "-m", "api"]
    with (tmp_path / "api.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--port", str(free_port)],
            cwd=REPOSITORY,
            env=os.environ | service_environment,
            stdout=log,
            stderr=log,
        )
        yield process
        process.terminate()
        process.wait()


def resident_bytes(process: "subprocess.Popen[bytes]", account: str) -> int:
    """Resident memory now (VmRSS), or at most so far (VmHWM)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(rf"{account}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1_024


def lines(size: int) -> Iterator[bytes]:
    block = b"a caption that is neither long nor short\n" * 1_600
    for _ in range(0, size, len(block)):
        yield block


def test_memory_stays_flat_over_a_large_upload(
    process: "subprocess.Popen[bytes]",
    free_port: int,
    api_key: str,
    eventually: Callable[..., Any],
    tmp_path: Path,
) -> None:
    headers = {"Authorization": f"Bearer {api_key}"}
    with httpx.Client(
        base_url=f"http://127.0.0.1:{free_port}", headers=headers, timeout=120, trust_env=False
    ) as client:

        def is_ready() -> bool:
            assert process.poll() is None, (tmp_path / "api.log").read_text()
            try:
                return client.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        eventually(is_ready)
        # What every first request loads is no growth.
        assert client.post("/captions", params={"name": "small.txt"}, content=b"a\n").status_code == 201
        before = resident_bytes(process, "VmRSS")
        answer = client.post("/captions", params={"name": "large.txt"}, content=lines(UPLOAD_BYTES))
        assert answer.status_code == 201
        assert answer.json()["size"] >= UPLOAD_BYTES
        growth = resident_bytes(process, "VmHWM") - before
    assert growth < LARGEST_GROWTH_BYTES
