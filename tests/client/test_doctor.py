"""What the doctor finds on machines and services of all kinds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from client.address import Address
from client.diagnosis import (
    Finding,
    check_disk,
    check_python,
    check_service,
    check_torch,
    judge_accelerators,
)
from store.key_format import new_key
from tests.client.test_commands import COMMAND, REPOSITORY


def states(findings: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.state for finding in findings}


def test_the_whole_of_it_against_a_service(api_url: str, api_key: str, tmp_path: Path) -> None:
    given = {"CONDENSER_URL": api_url, "CONDENSER_API_KEY": api_key, "PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(
        [*COMMAND, "doctor", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, **given},
        cwd=tmp_path,
    )
    findings = {each["check"]: each for each in json.loads(ended.stdout)}
    sound = ("Python", "torch", "servers", "ports", "service", "release", "key")
    assert {name: findings[name]["state"] for name in sound} == dict.fromkeys(sound, "good"), ended.stdout
    assert findings["workers"]["state"] == "warning"
    assert "jobs wait" in findings["workers"]["found"]
    is_wrong = any(each["state"] == "wrong" for each in findings.values())
    assert ended.returncode == is_wrong
    assert all(each["advice"] for each in findings.values() if each["state"] != "good")


def test_a_key_that_is_not_taken_and_a_service_that_is_not_there(api_url: str, tmp_path: Path) -> None:
    refused = list(check_service(Address(api_url, new_key(), tmp_path)))
    assert states(refused) == {"service": "good", "release": "good", "key": "wrong"}
    assert "--api-key" in str(refused[-1].advice)
    # Nobody there, no Condenser, and no address.
    for address in ("http://127.0.0.1:9", f"{api_url}/docs", "http://[::1", "http://a:b"):
        (away,) = check_service(Address(address, None, tmp_path))
        assert (away.state, address in away.found) == ("wrong", True)
    (unknown,) = check_service(Address(None, None, tmp_path))
    assert (unknown.state, "condenser up" in str(unknown.advice)) == ("warning", True)


@pytest.mark.parametrize(
    ("built_for", "names", "has_driver", "state", "words"),
    [
        ("12.8", ["NVIDIA H100"], True, "good", "NVIDIA H100"),
        (None, [], False, "good", "processor"),
        (None, [], True, "warning", "built for the CPU"),
        ("12.8", [], True, "warning", "finds no GPU"),
    ],
)
def test_accelerators(
    built_for: str | None, names: list[str], has_driver: bool, state: str, words: str
) -> None:
    judged = judge_accelerators(built_for, names, has_driver=has_driver)
    assert (judged.state, words in judged.found) == (state, True)


def test_a_torch_that_does_not_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.12: no such file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (wrong,) = check_torch()
    assert (wrong.state, "libcudart.so.12" in wrong.found) == ("wrong", True)


def test_an_old_python_and_a_full_disk() -> None:
    assert check_python(sys.version_info[:3]).state == "good"
    assert check_python((3, 10, 9)).state == "wrong"
    found = [check_disk(Path("data"), free).state for free in (20e9, 5e9, 0.5e9)]
    assert found == ["good", "warning", "wrong"]
