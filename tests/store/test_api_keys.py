"""Keys in the database: what is kept of them, and when they are good."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import Engine, text

from store.api_keys import Caller, CreatedKey, create_key, find_caller, list_keys, revoke_key
from store.database import transaction
from store.errors import (
    ExpiredApiKeyError,
    InvalidApiKeyError,
    InvalidCursorError,
    MissingSettingError,
    NotFoundError,
)
from store.key_format import SHOWN_CHARACTERS, new_key
from store.settings import Settings
from store.tenants import ensure_tenant
from tests.conftest import TEST_PEPPER

MINUTE = timedelta(minutes=1)


def make(engine: Engine, now: datetime, tenant: str = "default", **options: Any) -> CreatedKey:
    with transaction(engine) as session:
        tenant_id = ensure_tenant(session, tenant, now=now)
    with transaction(engine, tenant_id=tenant_id) as session:
        options = {"name": "k", "scopes": ["read"], "pepper": TEST_PEPPER} | options
        return create_key(session, now=now, **options)


def find(engine: Engine, key: str, now: datetime, pepper: str = TEST_PEPPER) -> Caller:
    with transaction(engine) as session:
        return find_caller(session, key=key, pepper=pepper, now=now)


def last_use(engine: Engine) -> datetime | None:
    with transaction(engine) as session:
        return list_keys(session).items[0].last_used_at


def test_a_key_names_its_tenant_and_scopes(
    engine: Engine, now: datetime, tenant_id: Callable[[str], str]
) -> None:
    created = make(engine, now, "vision", scopes=["admin", "read"])
    expected = Caller(tenant_id("vision"), created.row.id, frozenset({"read", "admin"}))
    assert find(engine, created.key, now) == expected


def test_the_key_itself_is_not_in_the_database(engine: Engine, now: datetime) -> None:
    key = make(engine, now).key
    with engine.connect() as connection:
        row = connection.execute(text("SELECT k::text FROM api_keys k")).scalar_one()
    assert key[:SHOWN_CHARACTERS] in row
    assert key[SHOWN_CHARACTERS:] not in row


def test_only_the_very_key_under_the_very_pepper_is_good(engine: Engine, now: datetime) -> None:
    key = make(engine, now).key
    with pytest.raises(InvalidApiKeyError):
        find(engine, new_key(), now)
    with pytest.raises(InvalidApiKeyError):
        find(engine, key, now, pepper="another pepper")


def test_a_revoked_key_is_refused_for_good(engine: Engine, now: datetime) -> None:
    created = make(engine, now)
    for later in (MINUTE, 2 * MINUTE):
        with transaction(engine) as session:
            assert revoke_key(session, key_id=created.row.id.upper(), now=now + later) == created.row.id
    with pytest.raises(InvalidApiKeyError):
        find(engine, created.key, now)
    with transaction(engine) as session:
        assert list_keys(session).items[0].revoked_at == now + MINUTE


def test_a_key_expires_at_its_very_time(engine: Engine, now: datetime) -> None:
    key = make(engine, now, expires_at=now + MINUTE).key
    find(engine, key, now + MINUTE - timedelta(microseconds=1))
    with pytest.raises(ExpiredApiKeyError):
        find(engine, key, now + MINUTE)


def test_its_use_is_noted_once_a_minute(engine: Engine, now: datetime) -> None:
    key = make(engine, now).key
    assert last_use(engine) is None
    seen = []
    for seconds in (0, 1, 60, 61, 90, 125):
        find(engine, key, now + timedelta(seconds=seconds))
        noted = last_use(engine)
        assert noted is not None
        seen.append((noted - now).seconds)
    assert seen == [0, 0, 0, 61, 61, 125]


def test_a_use_that_somebody_else_is_noting_is_not_waited_for(engine: Engine, now: datetime) -> None:
    created = make(engine, now)
    with engine.connect() as other, ThreadPoolExecutor() as threads:
        other.execute(text("SELECT FROM api_keys FOR UPDATE"))
        found = threads.submit(find, engine, created.key, now).result(timeout=30)
    assert found.key_id == created.row.id


def test_a_refused_key_is_not_noted_as_used(engine: Engine, now: datetime) -> None:
    key = make(engine, now, expires_at=now).key
    with pytest.raises(ExpiredApiKeyError):
        find(engine, key, now)
    assert last_use(engine) is None


def test_pages_of_keys(engine: Engine, now: datetime) -> None:
    made = [make(engine, now + index * MINUTE).row.id for index in range(5)]
    seen: list[str] = []
    after = None
    while True:
        with transaction(engine) as session:
            page = list_keys(session, after=after, limit=2)
        seen += [row.id for row in page.items]
        after = page.next
        if not page.has_more:
            break
    assert seen == made[::-1]
    with transaction(engine) as session, pytest.raises(InvalidCursorError):
        list_keys(session, after="nonsense")


def test_a_tenant_revokes_and_lists_its_own_keys_alone(
    engine: Engine, now: datetime, tenant_id: Callable[[str], str]
) -> None:
    theirs, own = make(engine, now, "theirs"), make(engine, now, "own")
    with transaction(engine, tenant_id=tenant_id("own")) as session:
        assert [row.id for row in list_keys(session).items] == [own.row.id]
        with pytest.raises(NotFoundError):
            revoke_key(session, key_id=theirs.row.id, now=now)
    assert find(engine, theirs.key, now).tenant_id == tenant_id("theirs")


def test_the_pepper_comes_from_the_environment_or_a_file(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = settings.model_dump(exclude={"api_key_pepper"})
    with pytest.raises(MissingSettingError, match="API_KEY_PEPPER is not set"):
        Settings(**values).required_pepper()
    file = tmp_path / "pepper"
    file.write_text("p" * 40 + "\n")
    monkeypatch.setenv("API_KEY_PEPPER_FILE", str(file))
    from_file = Settings(**values)
    assert from_file.required_pepper() == "p" * 40
    assert "p" * 40 not in repr(from_file)
    with pytest.raises(ValidationError, match="32"):
        Settings.model_validate(values | {"api_key_pepper": "short"})
