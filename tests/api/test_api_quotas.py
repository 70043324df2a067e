"""Quotas as a client meets them."""

from typing import Any

import pytest
from sqlalchemy import Engine

from store.database import transaction
from store.settings import Settings
from store.tenants import set_quotas

SPEC = {"teacher": "tiny", "captions": {"kind": "inline", "texts": ["cat", "dog"]}}


def test_a_submission_past_a_quota_is_refused_with_the_limit_and_the_value(
    api_settings: Settings, serve: Any, engine: Engine
) -> None:
    with serve(api_settings.model_copy(update={"quota_queued_jobs": 1})) as http:
        first = http.post("/jobs", json=SPEC)
        assert first.status_code == 201
        clone = f"/jobs/{first.json()['id']}/clone"
        for refused in (http.post("/jobs", json=SPEC, headers={"Idempotency-Key": "k"}), http.post(clone)):
            assert refused.status_code == 409
            problem = refused.json()
            assert problem["type"] == "urn:condenser:problem:quota_exceeded"
            assert problem["quota"] == {"name": "queued_jobs", "limit": 1, "present": 1}
            assert "1 jobs of tenant default are queued, and 1 may be" in problem["detail"]
        with transaction(engine) as session:
            set_quotas(session, "default", {"queued_jobs": 2})
        again = http.post("/jobs", json=SPEC, headers={"Idempotency-Key": "k"})
        assert (again.status_code, "idempotency-replayed" in again.headers) == (201, False)


@pytest.mark.parametrize(
    ("settings_change", "quota"),
    [
        ({"quota_captions_per_job": 1}, {"name": "captions_per_job", "limit": 1, "present": 2}),
        ({"quota_bytes_stored": 0}, {"name": "bytes_stored", "limit": 0, "present": 0}),
    ],
)
def test_the_other_quotas_are_named_too(
    api_settings: Settings, serve: Any, settings_change: dict[str, Any], quota: dict[str, Any]
) -> None:
    with serve(api_settings.model_copy(update=settings_change)) as http:
        refused = http.post("/jobs", json=SPEC)
        assert (refused.status_code, refused.json()["quota"]) == (409, quota)
        assert http.get("/jobs").json()["items"] == []
