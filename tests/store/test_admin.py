"""The operator's command, run as an operator runs it."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from store.api_keys import Caller, find_caller, list_keys
from store.database import server_now, transaction
from store.errors import ExpiredApiKeyError
from store.key_format import is_well_formed
from store.models import DEFAULT_TENANT_ID, Scope
from store.quotas import NO_LIMITS, Quotas
from store.tenants import get_tenant
from tests.conftest import TEST_PEPPER

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(service_environment: dict[str, str]) -> Run:
    def run(*arguments: str, code: int = 0, **changes: str) -> "subprocess.CompletedProcess[str]":
        environment = {"PATH": os.environ["PATH"], **service_environment, **changes}
        ended = subprocess.run(
            [sys.executable, "-m", "store.admin", *arguments],
            cwd=Path(__file__).parents[2],
            env={name: value for name, value in environment.items() if value},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == code, ended.stderr
        return ended

    return run


def caller_of(engine: Engine, key: str, later: timedelta = timedelta()) -> Caller:
    with transaction(engine) as session:
        return find_caller(session, key=key, pepper=TEST_PEPPER, now=server_now(session) + later)


def test_the_first_key_of_a_new_tenant_may_do_everything(
    run: Run, engine: Engine, tenant_id: Callable[[str], str]
) -> None:
    made = run("create-key", "--tenant", "vision")
    assert made.stderr == "tenant vision was made\n"
    key = made.stdout.strip()
    assert is_well_formed(key)
    caller = caller_of(engine, key)
    assert (caller.tenant_id, caller.scopes) == (tenant_id("vision"), {"write", "admin"})
    with transaction(engine) as session:
        assert list_keys(session).items[0].created_by is None


def test_a_key_of_the_default_tenant_with_some_scopes_for_some_days(run: Run, engine: Engine) -> None:
    made = run("create-key", "--scope", "read", "--name", "reports", "--expires-in-days", "2")
    assert made.stderr == ""
    expected: frozenset[Scope] = frozenset({"read"})
    assert caller_of(engine, made.stdout.strip()).scopes == expected
    with pytest.raises(ExpiredApiKeyError):
        caller_of(engine, made.stdout.strip(), timedelta(days=2, minutes=1))
    with transaction(engine) as session:
        assert [(row.tenant_id, row.name) for row in list_keys(session).items] == [
            (DEFAULT_TENANT_ID, "reports")
        ]


@pytest.mark.parametrize("days", ["0", "-1", "nan", "1e308", "36501", "soon"])
def test_a_key_is_good_for_a_number_of_days_that_a_calendar_holds(
    run: Run, engine: Engine, days: str
) -> None:
    refused = run("create-key", f"--expires-in-days={days}", code=2)
    assert f"{days} is no number of days up to 36500" in refused.stderr
    with transaction(engine) as session:
        assert list_keys(session).items == []


@pytest.mark.parametrize("name", ["Vision", "a b", "-a", "", "a" * 64, "a;DROP TABLE jobs"])
def test_a_bad_name_of_a_tenant_is_refused(run: Run, engine: Engine, name: str) -> None:
    assert "cannot be a tenant's name" in run("create-key", f"--tenant={name}", code=1).stderr
    with transaction(engine) as session:
        assert list_keys(session).items == []


def test_without_a_pepper_the_command_says_what_to_set(run: Run) -> None:
    refused = run("create-key", code=1, API_KEY_PEPPER="")
    assert "API_KEY_PEPPER is not set" in refused.stderr
    assert refused.stdout == ""


def test_an_unusable_setting_is_named_and_not_repeated(run: Run) -> None:
    refused = run("create-key", code=1, API_KEY_PEPPER="secret", DATABASE_URL="mysql://u:hidden@h/d")
    assert "API_KEY_PEPPER" in refused.stderr
    assert "DATABASE_URL" in refused.stderr
    assert "secret" not in refused.stderr
    assert "hidden" not in refused.stderr


def test_quotas_are_set_and_shown(run: Run, engine: Engine) -> None:
    run("create-key", "--tenant", "vision")
    run("set-quotas", "vision", "--running-jobs", "2", "--bytes-stored", "1000")
    run(
        *("set-quotas", "vision", "--queued-jobs", "3", "--running-jobs", "default"),
        *("--open-generations", "5"),
    )
    with transaction(engine) as session:
        limits = NO_LIMITS.of(get_tenant(session, "vision"))
        assert limits == Quotas(queued_jobs=3, bytes_stored=1_000, open_generations=5)
    listed = run("list-tenants", QUOTA_RUNNING_JOBS="7").stdout.splitlines()
    assert listed[0].startswith("default\tstores 0 bytes\tqueued_jobs=10000 running_jobs=7 ")
    shown = "queued_jobs=3 running_jobs=7 bytes_stored=1000 captions_per_job=unlimited open_generations=5"
    assert listed[1].endswith(shown)
    assert "There is no tenant nobody" in run("set-quotas", "nobody", "--queued-jobs", "1", code=1).stderr
    assert "neither a number nor default" in run("set-quotas", "vision", "--queued-jobs", "-1", code=2).stderr
