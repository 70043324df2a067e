"""Who is let in: with no key, a wrong one, one that allows too little, and one that does."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from sqlalchemy import Engine, text

from api.app import create_app
from api.monitoring import ApiMetrics
from store.api_keys import create_key
from store.database import server_now, transaction
from store.errors import MissingSettingError
from store.key_format import SHOWN_CHARACTERS, is_well_formed, new_key
from store.models import Scope
from store.settings import Settings

PUBLIC = {"/healthz", "/readyz", "/metrics", "/files"}
PROBLEM = "urn:condenser:problem:"
KeyMaker = Callable[..., str]


@pytest.fixture
def make_key(engine: Engine, api_settings: Settings) -> KeyMaker:
    """Makes a key as an operator does."""

    def make(*scopes: Scope, **options: Any) -> str:
        with transaction(engine) as session:
            now, pepper = server_now(session), api_settings.required_pepper()
            return create_key(session, name="k", scopes=scopes, pepper=pepper, now=now, **options).key

    return make


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def operations(http: httpx.Client) -> Iterator[tuple[str, str, dict[str, Any]]]:
    document = http.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_every_route_but_health_wants_a_key_and_says_so(offline: httpx.Client) -> None:
    with httpx.Client(base_url=offline.base_url, trust_env=False) as stranger:
        for method, path, operation in operations(stranger):
            answer = stranger.request(method, path, json={})
            if path in PUBLIC:
                assert "security" not in operation
                assert answer.status_code != 401
                continue
            assert operation["security"] == [{"ApiKey": []}], path
            assert {"401", "403"} <= operation["responses"].keys(), path
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == 'Bearer realm="condenser"'
            assert answer.json()["type"] == PROBLEM + "missing_api_key"
        assert stranger.get("/docs").status_code == 200
        scheme = stranger.get("/openapi.json").json()["components"]["securitySchemes"]["ApiKey"]
        assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


def test_no_route_is_left_out_of_the_description(offline_settings: Settings, offline: httpx.Client) -> None:
    described = {(method, path) for method, path, _ in operations(offline)}
    routes = {
        (method, route.path)
        for route in iter_route_contexts(create_app(offline_settings).routes)
        for method in route.methods or ()
    }
    undescribed = {path for _, path in routes - described}
    pages = {path for path in undescribed if path in {"/", "/playground"} or path.startswith("/ui/")}
    assert undescribed - pages == {"/openapi.json", "/docs", "/docs/style.css"}
    assert described < routes


def test_a_key_is_asked_for_before_anything_else_is_looked_at(offline: httpx.Client) -> None:
    with httpx.Client(base_url=offline.base_url, trust_env=False) as stranger:
        answers = [
            stranger.post("/jobs", json={"teacher": "nobody"}),
            stranger.post("/jobs", content=b"x", headers={"Content-Type": "text/plain"}),
            stranger.get("/jobs", params={"limit": 0}),
            stranger.get("/jobs/nothing"),
        ]
    assert [answer.status_code for answer in answers] == [401] * 4


@pytest.mark.parametrize(
    "authorization",
    ["Basic Y29uZGVuc2VyOmNvbmRlbnNlcg==", "Bearer", "condenser_", "Token abc", "Bearer\tx", ""],
)
def test_another_way_to_say_who_one_is_counts_as_none(offline: httpx.Client, authorization: str) -> None:
    answer = offline.get("/jobs", headers={"Authorization": authorization})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith('Bearer realm="condenser"')


def test_a_mistyped_key_is_told_without_the_database(offline: httpx.Client) -> None:
    key = new_key()
    for wrong in (key[:-1], key + "0", key[:-1] + ("0" if key[-1] != "0" else "1"), "secret", "ä"):
        header = f"Bearer {wrong}".encode("latin-1")
        answer = offline.get("/jobs", headers={"Authorization": header})  # type: ignore[dict-item]
        assert answer.status_code == 401, wrong
        assert answer.json()["type"] == PROBLEM + "malformed_api_key"
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert offline.get("/jobs", headers=bearer(key)).status_code == 503, "an unknown one needs the database"


def test_unknown_revoked_and_expired_keys_are_refused(
    http: httpx.Client, make_key: KeyMaker, engine: Engine
) -> None:
    revoked, expired = make_key("read"), make_key("read", expires_at=datetime.now(UTC) - timedelta(days=1))
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE api_keys SET revoked_at = now() WHERE shown = :shown"),
            {"shown": revoked[:SHOWN_CHARACTERS]},
        )
    for key, code in (
        (new_key(), "invalid_api_key"),
        (revoked, "invalid_api_key"),
        (expired, "expired_api_key"),
    ):
        answer = http.get("/jobs", headers=bearer(key))
        assert (answer.status_code, answer.json()["type"]) == (401, PROBLEM + code)
        assert key[SHOWN_CHARACTERS:] not in answer.text


def test_an_installation_without_keys_refuses_everybody(http: httpx.Client, engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM api_keys")).scalar_one() == 0
    assert http.get("/jobs", headers=bearer(new_key())).status_code == 401
    assert http.get("/healthz", headers=bearer(new_key())).status_code == 200


def test_the_api_does_not_start_without_a_pepper(offline_settings: Settings, serve: Any) -> None:
    from api.services import Services

    with pytest.raises(MissingSettingError, match="API_KEY_PEPPER"):
        Services(offline_settings.model_copy(update={"api_key_pepper": None}), ApiMetrics())


@pytest.mark.parametrize("scope", ["read", "write", "admin"])
def test_a_scope_opens_its_routes_and_no_others(http: httpx.Client, make_key: KeyMaker, scope: Scope) -> None:
    headers = bearer(make_key(scope))
    for method, path, _ in operations(http):
        if path in PUBLIC:
            continue
        changes_nothing = method == "GET" or path == "/estimates"
        needed = (
            {"admin"} if path.startswith("/keys") else {"read", "write"} if changes_nothing else {"write"}
        )
        nobody = re.sub(r"{\w+}", "nobody", path)
        answer = http.request(method, nobody, headers=headers)
        assert (answer.status_code == 403) == (scope not in needed), (method, path, answer.text)
        if answer.status_code == 403:
            missing = "admin" if needed == {"admin"} else "read" if "read" in needed else "write"
            assert answer.json()["type"] == PROBLEM + "missing_scope"
            assert f'error="insufficient_scope", scope="{missing}"' in answer.headers["www-authenticate"]


def test_making_listing_and_revoking_keys(http: httpx.Client) -> None:
    expires_at = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    wanted = {"name": "nightly builds", "scopes": ["write", "read"], "expires_at": expires_at}
    answer = http.post("/keys", json=wanted)
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    created = answer.json()
    key = created.pop("key")
    assert is_well_formed(key)
    assert created["shown"] == key[:SHOWN_CHARACTERS]
    assert (created["name"], created["scopes"]) == ("nightly builds", ["read", "write"])
    assert datetime.fromisoformat(created["expires_at"]) == datetime.fromisoformat(expires_at)
    assert http.get("/jobs", headers=bearer(key)).status_code == 200

    listed = http.get("/keys").json()["items"]
    assert [{**entry, "last_used_at": None} for entry in listed] == [created]
    assert listed[0]["last_used_at"] is not None
    assert key[SHOWN_CHARACTERS:] not in json.dumps(listed)

    for _ in range(2):
        assert http.delete(f"/keys/{created['id']}").status_code == 204
    # Though a moment ago it was good.
    assert http.get("/jobs", headers=bearer(key)).status_code == 401
    assert http.get("/keys").json()["items"][0]["revoked_at"] is not None


@pytest.mark.parametrize(
    ("held", "wanted", "missing"),
    [
        (["admin"], ["read"], "read"),
        (["admin", "read"], ["write"], "write"),
        (["admin", "read"], ["read", "admin"], None),
        (["admin", "write"], ["read"], None),
    ],
)
def test_a_key_is_given_no_more_than_its_maker_has(
    http: httpx.Client, make_key: KeyMaker, held: list[Scope], wanted: list[Scope], missing: str | None
) -> None:
    made = http.post("/keys", json={"name": "k", "scopes": wanted}, headers=bearer(make_key(*held)))
    assert made.status_code == (403 if missing else 201)
    if missing:
        problem = made.json()
        assert (problem["type"], problem["errors"][0]["field"]) == (PROBLEM + "missing_scope", "scopes")
        assert f'scope="{missing}"' in made.headers["www-authenticate"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["everything"]}, "scopes.0"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-12:00"}, "expires_at"),
        ({"tenant": "another"}, "tenant"),
    ],
)
def test_a_bad_wish_for_a_key_is_named_by_its_field(
    http: httpx.Client, change: dict[str, Any], field: str
) -> None:
    refused = http.post("/keys", json={"name": "k", "scopes": ["read"]} | change)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == field
    assert http.get("/keys").status_code == 200


def test_a_key_that_was_checked_is_good_for_a_while_when_the_database_is_away(
    offline: httpx.Client,
) -> None:
    assert offline.post("/jobs", json={"teacher": "nobody"}).status_code == 422


def test_a_key_that_was_revoked_elsewhere_is_refused_when_its_check_is_old(
    api_settings: Settings, serve: Any, engine: Engine, make_key: KeyMaker
) -> None:
    key = make_key("read")
    with serve(api_settings.model_copy(update={"key_cache_seconds": 0})) as http:
        assert http.get("/jobs", headers=bearer(key)).status_code == 200
        with engine.begin() as connection:
            connection.execute(text("UPDATE api_keys SET revoked_at = now()"))
        assert http.get("/jobs", headers=bearer(key)).status_code == 401
