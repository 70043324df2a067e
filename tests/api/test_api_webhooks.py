"""Webhooks over HTTP: registered, told, changed, rotated, redelivered."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook as Verifier

from api.webhooks.schemas import EventType
from store.addresses import parse_networks
from store.settings import Settings
from store.webhooks import EVENT_TYPES, MOST_WEBHOOKS
from tests.store.receivers import Receiver, receiving

NO_WEBHOOK = "019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa"
PROBLEM = "urn:condenser:problem:"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def api_settings(api_settings: Settings) -> Settings:
    """Messages may go to loopback, and go at once."""
    changes = {"outgoing_allowed_networks": parse_networks("127.0.0.0/8"), "webhook_poll_seconds": 0.05}
    return api_settings.model_copy(update=changes)


def register(http: httpx.Client, url: str, **fields: Any) -> dict[str, Any]:
    answer = http.post("/webhooks", json={"url": url, **fields})
    assert answer.status_code == 201, answer.text
    webhook: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/webhooks/{webhook['id']}"
    return webhook


def test_the_documented_events_are_those_that_are_sent() -> None:
    assert set(EVENT_TYPES) == set(EventType.__args__)


def test_an_endpoint_is_told_of_a_jobs_moves_and_the_log_says_so(
    http: httpx.Client, jobs: Any, receiver: Receiver, eventually: Callable[..., Any]
) -> None:
    webhook = register(http, receiver.url(), events=["job.queued", "job.cancelled"])
    job_id = jobs.submit()
    http.post(f"/jobs/{job_id}/cancel")

    def delivered() -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = http.get(f"/webhooks/{webhook['id']}/deliveries").json()["items"]
        return items if [item["status"] for item in items] == ["delivered"] * 2 else []

    items = eventually(delivered)
    assert [item["event"] for item in items] == ["job.cancelled", "job.queued"]
    assert items[0]["attempts"][0]["status_code"] == 204
    messages = {
        Verifier(webhook["secret"]).verify(request.body, request.headers)["type"]
        for request in receiver.received
    }
    assert messages == {"job.queued", "job.cancelled"}

    again = http.post(f"/webhooks/{webhook['id']}/deliveries/{items[0]['id']}/redeliver")
    assert (again.status_code, again.json()["status"]) == (200, "pending")
    eventually(lambda: len(receiver.received) == 3)
    eventually(delivered)
    first = http.get(f"/webhooks/{webhook['id']}/deliveries", params={"limit": 1}).json()
    assert (first["has_more"], first["next"], len(first["items"])) == (True, items[0]["id"], 1)
    second = http.get(f"/webhooks/{webhook['id']}/deliveries", params={"after": first["next"]}).json()
    assert [item["id"] for item in second["items"]] == [items[1]["id"]]


def test_a_secret_is_shown_once(http: httpx.Client) -> None:
    webhook = register(http, "https://example.com/hook")
    secret = webhook.pop("secret")
    path = f"/webhooks/{webhook['id']}"
    assert http.get(path).json() == webhook
    assert http.get("/webhooks").json()["items"] == [webhook]
    rotated = http.post(f"{path}/rotate-secret").json()
    assert rotated["secret"] not in {secret, None}
    assert rotated["previous_secret_expires_at"] is not None
    assert secret not in http.get(path).text + http.get("/webhooks").text


def test_an_endpoint_is_changed_disabled_enabled_and_deleted(http: httpx.Client) -> None:
    path = f"/webhooks/{register(http, 'https://example.com/hook')['id']}"
    changed = http.patch(path, json={"events": ["job.failed"], "description": "d"}).json()
    assert (changed["events"], changed["description"], changed["enabled"]) == (["job.failed"], "d", True)
    off = http.patch(path, json={"enabled": False}).json()
    assert (off["enabled"], off["disabled_reason"]) == (False, "by_user")
    on = http.patch(path, json={"enabled": True, "url": "https://example.com/other"}).json()
    assert (on["enabled"], on["disabled_reason"], on["url"]) == (True, None, "https://example.com/other")
    assert http.delete(path).status_code == 204
    assert http.delete(path).status_code == http.get(path).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"),
        ({"url": "https://10.0.0.1/"}, "url"),
        ({"url": "ftp://example.com/"}, "url"),
        ({"url": "https://example.com/\x00"}, "url"),
        ({"url": "https://example.com/", "events": ["job.exploded"]}, "events.0"),
        ({"url": "https://example.com/", "event": []}, "event"),
    ],
)
def test_a_bad_endpoint_is_named_by_its_field(http: httpx.Client, body: dict[str, Any], field: str) -> None:
    refused = http.post("/webhooks", json=body)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == field
    if field == "event":
        assert refused.json()["errors"][0]["allowed"] == ["description", "events", "url"]
    path = f"/webhooks/{register(http, 'https://example.com/hook')['id']}"
    assert http.patch(path, json=body).status_code == (200 if body == {} else 422)


def test_what_does_not_exist_is_not_found(http: httpx.Client) -> None:
    path = f"/webhooks/{register(http, 'https://example.com/hook')['id']}"
    for webhook_id in (NO_WEBHOOK, "nothing"):
        assert http.get(f"/webhooks/{webhook_id}").status_code == 404
        assert http.patch(f"/webhooks/{webhook_id}", json={}).status_code == 404
        assert http.post(f"/webhooks/{webhook_id}/rotate-secret").status_code == 404
        assert http.get(f"/webhooks/{webhook_id}/deliveries").status_code == 404
        assert http.post(f"{path}/deliveries/{webhook_id}/redeliver").status_code == 404


def test_there_are_so_many_and_no_more(http: httpx.Client) -> None:
    for _ in range(MOST_WEBHOOKS):
        register(http, "https://example.com/hook")
    refused = http.post("/webhooks", json={"url": "https://example.com/hook"})
    assert (refused.status_code, refused.json()["type"]) == (409, PROBLEM + "too_many_webhooks")


def test_without_a_key_there_are_no_webhooks(api_settings: Settings, serve: Any) -> None:
    with serve(api_settings.model_copy(update={"webhook_secret_keys": None})) as http:
        refused = http.post("/webhooks", json={"url": "https://example.com/hook"})
    assert (refused.status_code, refused.json()["type"]) == (409, PROBLEM + "webhooks_not_configured")
    assert "WEBHOOK_SECRET_KEYS" in refused.json()["detail"]
