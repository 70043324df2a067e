"""Clients that have signed in; what they ask of the public API they ask with the tests' own key."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from store.api_keys import CreatedKey, create_key
from store.database import server_now, transaction
from store.models import Scope
from store.settings import Settings
from tests.api.conftest import serving, visit


@pytest.fixture
def make_key(engine: Engine, api_settings: Settings) -> Callable[..., CreatedKey]:
    """Makes a key of the default tenant as an operator does."""

    def make(*scopes: Scope, **options: Any) -> CreatedKey:
        with transaction(engine) as session:
            now, pepper = server_now(session), api_settings.required_pepper()
            given = {"name": "tests of pages", "scopes": scopes or ["write"], "pepper": pepper, "now": now}
            return create_key(session, **given | options)

    return make


@pytest.fixture
def http(api_settings: Settings, make_key: Callable[..., CreatedKey]) -> Iterator[httpx.Client]:
    """A visitor who may change things."""
    with serving(api_settings) as client:
        visit(client, make_key("write").row.id)
        yield client


@pytest.fixture(scope="module")
def offline(offline_settings: Settings) -> Iterator[httpx.Client]:
    """A visitor of a service whose servers are all down."""
    with serving(offline_settings) as client:
        visit(client, str(uuid.UUID(int=1)))
        yield client
