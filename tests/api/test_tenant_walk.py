"""Another tenant's ids, tried on every route there is: none of them exists.

The routes come from the OpenAPI document. A path parameter that no maker below can give a real value for
fails the test, and so does a route that needs a body it does not get: whoever adds a route adds its case.
"""

import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from sqlalchemy import Engine, text

from api.app import create_app
from core.spec import DistillationSpec
from store.api_keys import create_key
from store.database import server_now, transaction
from store.events import NewEvent
from store.jobs import claim_job, create_job, finish_succeeded
from store.leases import NewArtifact, add_artifacts, record_events
from store.objects import ObjectStore
from store.settings import Settings
from tests.api.conftest import visit

BODIES: dict[tuple[str, str], Any] = {
    ("PATCH", "/webhooks/{webhook_id}"): {"description": "changed"},
    ("POST", "/jobs/{job_id}/generate"): {"prompt": "cat"},
}
"""What a route must be sent to get as far as looking for the id."""


@dataclass
class Resident:
    """A tenant with a client of its own, and makers of everything that has an id."""

    tenant_id: str
    engine: Engine
    http: httpx.Client
    webhook_id: str = ""

    def make_job_id(self, **paths: str) -> str:
        """A job that has succeeded and left events, curves and files, each at its kind's name by default."""
        with transaction(self.engine, tenant_id=self.tenant_id) as session:
            now = server_now(session)
            spec = DistillationSpec(teacher="tiny", student="b-tiny")
            job_id = create_job(session, spec=spec, queue="cpu", now=now).id
        with transaction(self.engine) as session:
            claim = claim_job(session, job_id=job_id, worker="w", now=now, lease_seconds=60)
            assert claim is not None
            lease: dict[str, Any] = {"job_id": job_id, "lease_token": claim.lease_token, "now": now}
            told = [NewEvent("metrics", {"step": 1, "values": {"loss": 1.0}})]
            record_events(session, **lease, events=told, position=1)
            files = [
                NewArtifact(
                    path=paths.get(kind, kind), kind=kind, step=1, key=f"{job_id}/{kind}", size=5, sha256="0"
                )
                for kind in ("student_archive", "checkpoint_file", "sample", "log")
            ]
            add_artifacts(session, **lease, artifacts=files, event=None)
            finish_succeeded(session, **lease, result={})
        return job_id

    def make_generation_id(self) -> str:
        """A generation that waits."""
        job_id = self.make_job_id()
        return str(self.http.post(f"/jobs/{job_id}/generate", json={"prompt": "cat"}).json()["id"])

    def make_key_id(self) -> str:
        return str(self.http.post("/keys", json={"name": "k", "scopes": ["read"]}).json()["id"])

    def make_file_id(self) -> str:
        """A caption file; each is another one, so that none is shared."""
        content = f"{secrets.token_hex()}\n".encode()
        return str(self.http.post("/captions", params={"name": "a.txt"}, content=content).json()["id"])

    def make_webhook_id(self) -> str:
        body = {"url": "https://example.org/hook", "events": []}
        self.webhook_id = str(self.http.post("/webhooks", json=body).json()["id"])
        return self.webhook_id

    def make_delivery_id(self) -> str:
        """A message to the webhook made last."""
        self.make_job_id()
        deliveries = self.http.get(f"/webhooks/{self.webhook_id}/deliveries").json()["items"]
        return str(deliveries[0]["id"])

    def value_of(self, parameter: str) -> str:
        maker = getattr(self, f"make_{parameter}", None)
        assert maker is not None, f"add a maker of {parameter} here"
        value: str = maker()
        return value


@pytest.fixture
def resident(
    http: httpx.Client, engine: Engine, api_settings: Settings, tenant_id: Callable[[str], str]
) -> Iterator[Callable[[str], Resident]]:
    clients: list[httpx.Client] = []

    def make(name: str) -> Resident:
        with transaction(engine, tenant_id=tenant_id(name)) as session:
            key = create_key(
                session,
                name="everything",
                scopes=["write", "admin"],
                pepper=api_settings.required_pepper(),
                now=server_now(session),
            )
        headers = {"Authorization": f"Bearer {key.key}", "Origin": str(http.base_url).rstrip("/")}
        clients.append(httpx.Client(base_url=http.base_url, headers=headers, timeout=20, trust_env=False))
        visit(clients[-1], key.row.id)
        return Resident(tenant_id(name), engine, clients[-1])

    yield make
    for client in clients:
        client.close()


def routes_with_ids(http: httpx.Client) -> list[tuple[str, str, dict[str, Any]]]:
    document = http.get("/openapi.json").json()
    return [
        (method.upper(), path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if "{" in path
    ]


def requests_of(method: str, path: str, operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The request as it comes, and once more for every media type that may be asked for."""
    body = BODIES.get((method, path))
    media = [kind for answer in operation["responses"].values() for kind in answer.get("content", {})]
    for accept in ("*/*", *sorted(set(media) - {"application/json", "application/problem+json"})):
        yield {"headers": {"Accept": accept}, **({"json": body} if body is not None else {})}


def filled(path: str, owner: Resident) -> str:
    return re.sub(r"{(\w+)}", lambda match: owner.value_of(match[1]), path)


@pytest.mark.parametrize(("owner_name", "stranger_name"), [("default", "b"), ("b", "default"), ("a", "b")])
def test_no_route_knows_an_id_of_another_tenant(
    http: httpx.Client,
    engine: Engine,
    resident: Callable[[str], Resident],
    owner_name: str,
    stranger_name: str,
    record_property: Callable[[str, Any], None],
) -> None:
    owner, stranger = resident(owner_name), resident(stranger_name)
    routes = routes_with_ids(http)
    assert len(routes) > 10
    for method, path, operation in routes:
        for request in requests_of(method, path, operation):
            url = filled(path, owner)
            before = everything(engine)
            refused = stranger.http.request(method, url, **request)
            assert refused.status_code == 404, (method, path, request, refused.text)
            assert refused.json()["type"] == "urn:condenser:problem:not_found"
            assert everything(engine) == before, (method, path)
            with owner.http.stream(method, url, **request) as allowed:
                assert allowed.status_code < 400 or allowed.status_code == 409, (method, path, allowed.read())
    record_property("routes", len(routes))
    print(f"{len(routes)} routes with ids: {stranger_name} finds nothing of {owner_name}")  # noqa: T201


def everything(engine: Engine) -> list[Any]:
    """All that a request might have changed, but for when a key was used, and what the reconciler does."""
    with engine.connect() as connection:
        return [
            connection.execute(text(query)).all()
            for query in (
                "SELECT to_jsonb(j) - 'hinted_at' FROM jobs j ORDER BY id",
                "SELECT count(*) FROM job_events",
                "SELECT id, revoked_at FROM api_keys ORDER BY id",
                "SELECT job_id FROM deleted_jobs ORDER BY job_id",
                "SELECT id FROM caption_files ORDER BY id",
                "SELECT * FROM generations ORDER BY id",
                "SELECT id, description, secret FROM webhooks ORDER BY id",
                "SELECT tenant_id, key FROM idempotency_records ORDER BY key",
            )
        ]


def test_lists_and_cursors_show_nothing_of_another_tenant(resident: Callable[[str], Resident]) -> None:
    owner, stranger = resident("default"), resident("b")
    job_id = owner.make_job_id()
    own_job = stranger.make_job_id()
    for query in ({}, {"status": "succeeded"}, {"teacher": "tiny"}, {"limit": 1}):
        items = stranger.http.get("/jobs", params=query).json()["items"]
        assert [job["id"] for job in items] == [own_job], query
    assert stranger.http.get("/jobs", params={"after": job_id}).json()["items"] == []
    shown = [key["name"] for key in stranger.http.get("/keys").json()["items"]]
    assert shown == ["everything"]


def test_equal_idempotency_keys_of_two_tenants_make_two_jobs(resident: Callable[[str], Resident]) -> None:
    headers, made = {"Idempotency-Key": "k"}, []
    for tenant in (resident("a"), resident("b")):
        spec = {"teacher": "tiny", "seed": len(made)}
        answers = [tenant.http.post("/jobs", json=spec, headers=headers) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 201]
        assert answers[0].content == answers[1].content
        made.append(answers[0].json()["id"])
    assert made[0] != made[1]


PAGE_QUERIES = {
    "files": {"attempt": 1, "path": "sample.png"},
    "picture": {"attempt": 1, "path": "sample.png"},
    "log": {"attempt": 1},
}
"""What a page wants to be asked beside the id of a job."""
MOVES = ("pause", "resume", "cancel", "save-now", "sample-now", "retry", "delete")


def page_requests(settings: Settings, job_id: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every request for a page that has an id in its path, or in the query of the form."""
    for route in iter_route_contexts(create_app(settings).routes):
        path = route.path or ""
        if not path.startswith("/ui/") or "{job_id}" not in path:
            continue
        for method in route.methods or ():
            for move in MOVES if "{move}" in path else ("",):
                url = path.format(job_id=job_id, move=move)
                assert "{" not in url
                yield method, url, {"params": PAGE_QUERIES.get(url.rpartition("/")[2], {})}
    yield "GET", "/ui/new", {"params": {"clone": job_id}}


@pytest.mark.parametrize(("owner_name", "stranger_name"), [("default", "b"), ("b", "default"), ("a", "b")])
def test_no_page_knows_a_job_of_another_tenant(
    engine: Engine,
    api_settings: Settings,
    object_store: ObjectStore,
    resident: Callable[[str], Resident],
    tmp_path: Path,
    owner_name: str,
    stranger_name: str,
) -> None:
    owner, stranger = resident(owner_name), resident(stranger_name)
    job_id = owner.make_job_id(log="trainer.log", sample="sample.png")
    for kind in ("sample", "log"):
        held = tmp_path / kind
        held.write_bytes(b"held")
        object_store.upload_file(held, f"{job_id}/{kind}")
    requests = list(page_requests(api_settings, job_id))
    assert len(requests) > 10
    seen = set()
    for method, url, request in requests:
        before = everything(engine)
        refused = stranger.http.request(method, url, **request)
        assert (refused.status_code, "Not found" in refused.text) == (404, True), (method, url, refused.text)
        assert everything(engine) == before, (method, url)
        if not url.endswith("/delete"):
            allowed = owner.http.request(method, url, **request)
            assert allowed.status_code in {200, 307, 409}, (method, url, allowed.text)
            seen.add(allowed.status_code)
    assert seen == {200, 307, 409}, "a job that has ended can be moved nowhere, but deleted"


def test_no_page_knows_a_key_or_a_caption_file_of_another_tenant(
    engine: Engine, resident: Callable[[str], Resident]
) -> None:
    owner, stranger = resident("a"), resident("b")
    key_id, file_id = owner.make_key_id(), owner.make_file_id()
    before = everything(engine)
    for method, url in (
        ("GET", f"/ui/new?captions={file_id}"),
        ("POST", f"/ui/keys/{key_id}/revoke"),
        ("POST", f"/ui/captions/{file_id}/delete"),
    ):
        assert stranger.http.request(method, url).status_code == 404, url
        assert everything(engine) == before, url
        assert owner.http.request(method, url).status_code in {200, 303}
        before = everything(engine)


def test_no_page_knows_a_generation_of_another_tenant(
    engine: Engine, resident: Callable[[str], Resident]
) -> None:
    owner, stranger = resident("a"), resident("b")
    generation_id, job_id = owner.make_generation_id(), owner.make_job_id()
    chosen = {"prompt": "cat", "first": f"student:{job_id}", "second": ""}
    before = everything(engine)
    for method, path in (
        ("GET", f"/ui/fragments/generations/{generation_id}"),
        ("POST", f"/ui/generations/{generation_id}/cancel"),
        ("GET", f"/ui/generations/{generation_id}/pictures/0"),
        ("GET", f"/ui/playground?job={job_id}"),
        ("GET", f"/ui/playground?generation={generation_id}"),
    ):
        assert stranger.http.request(method, path).status_code == 404, path
    asked = {"data": chosen | {"previous": generation_id}, "headers": {"HX-Request": "true"}}
    assert "There is no such job" in stranger.http.post("/ui/playground", **asked).text
    assert everything(engine) == before
    assert job_id not in stranger.http.get("/ui/playground").text
    assert job_id in owner.http.get("/ui/playground").text
    assert owner.http.post("/ui/playground", data=chosen).status_code == 200
    given_up = owner.http.post(f"/ui/generations/{generation_id}/cancel")
    assert (given_up.status_code, "cancelled" in given_up.text) == (200, True)
    assert owner.http.get(f"/ui/fragments/generations/{generation_id}").status_code == 286


def test_lists_on_pages_show_nothing_of_another_tenant(resident: Callable[[str], Resident]) -> None:
    owner, stranger = resident("a"), resident("b")
    job_id = owner.make_job_id()
    for path in ("/", "/ui/fragments/jobs", "/ui/compare?teacher=tiny"):
        assert job_id in owner.http.get(path).text
        shown = stranger.http.get(path)
        assert (shown.status_code, job_id in shown.text) == (200, False)
    estimate = stranger.http.post("/estimates", json={"teacher": "tiny"}).json()
    assert estimate["measured_on"] is None
