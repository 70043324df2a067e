"""Pages as HTTP: what they carry, what they refuse, and what goes wrong in words."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from api.jobs.requests import Submission
from api.pages import spec_form
from store.database import transaction
from store.tenants import set_quotas
from tests.api.conftest import visit

PAGES = ("/", "/ui/new", "/ui/compare", "/ui/teachers", "/ui/captions", "/ui/workers")
FORM = {"content-type": "application/x-www-form-urlencoded"}


def own(http: httpx.Client) -> dict[str, str]:
    """What a browser sends with a form of our own."""
    return FORM | {"Origin": str(http.base_url).rstrip("/")}


@pytest.mark.parametrize("path", PAGES)
def test_a_page_runs_and_loads_nothing_but_our_own(http: httpx.Client, path: str) -> None:
    answer = http.get(path).raise_for_status()
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert not re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=", answer.text)
    assert re.findall(r'(?:src|href)="(?!/|#)[^"]*"', answer.text) == []


def test_assets_are_kept_for_as_long_as_their_name(http: httpx.Client) -> None:
    names = re.findall(r'(?:src|href)="(/ui/static/[^"]+)"', http.get("/ui/new").text)
    assert len(names) >= 6
    for name in names:
        answer = http.get(name).raise_for_status()
        assert "immutable" in answer.headers["cache-control"]
        plain = http.get(name, headers={"Accept-Encoding": "identity"})
        assert plain.content == answer.content
        assert "content-encoding" not in plain.headers
    stale = re.sub(r"\.[0-9a-f]{12}\.", ".000000000000.", names[-1])
    assert http.get(stale).status_code == 404


@pytest.mark.parametrize(
    "path", ["/ui/nothing", "/ui/jobs/nothing", "/ui/jobs/nothing/files?attempt=1&path=a"]
)
def test_what_is_not_there_is_told_on_a_page(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "Not found" in answer.text


def test_an_address_that_is_not_valid_is_told_on_a_page(http: httpx.Client) -> None:
    answer = http.get("/", params={"search": "a\x00b"})
    assert (answer.status_code, "This address is not valid" in answer.text) == (422, True)
    assert http.get("/", params={"after": "nonsense"}).status_code == 422


def test_without_the_database_a_page_says_so_and_no_more(offline: httpx.Client) -> None:
    answer = offline.get("/")
    assert answer.status_code == 503
    assert "Try again in a moment" in answer.text
    assert "127.0.0.1" not in answer.text


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://evil.example"}, {"Origin": "null"}])
def test_a_form_of_another_page_changes_nothing(
    http: httpx.Client, jobs: Any, headers: dict[str, str]
) -> None:
    job_id = jobs.submit()
    for path in (f"/ui/jobs/{job_id}/cancel", f"/ui/jobs/{job_id}/delete", "/ui/new"):
        assert http.post(path, headers=FORM | headers).status_code == 403
    assert http.get(f"/jobs/{job_id}").json()["status"] == "queued"


def test_a_form_of_our_own_moves_a_job_and_shows_it(http: httpx.Client, jobs: Any) -> None:
    job_id = jobs.submit()
    answer = http.post(f"/ui/jobs/{job_id}/cancel", headers=own(http))
    assert (answer.status_code, answer.headers["location"]) == (303, f"/ui/jobs/{job_id}")
    assert http.get(f"/jobs/{job_id}").json()["status"] == "cancelled"
    again = http.post(f"/ui/jobs/{job_id}/cancel", headers=own(http))
    assert again.status_code == 409
    assert "has already ended" in again.text
    told_by_fetch = {"Sec-Fetch-Site": "same-origin"}
    retried = http.post(f"/ui/jobs/{job_id}/retry", headers=FORM | told_by_fetch, content="from_scratch=on")
    assert retried.status_code == 303
    assert http.get(f"/jobs/{job_id}").json()["status"] == "queued"
    assert http.post(f"/ui/jobs/{job_id}/delete", headers=own(http)).headers["location"] == "/"
    assert http.get(f"/jobs/{job_id}").status_code == 404


def test_a_job_shows_what_it_was_to_take_and_took(http: httpx.Client, jobs: Any) -> None:
    spec = {"teacher": "tiny", "captions": {"kind": "inline", "texts": ["cat", "dog"]}}
    first, second = jobs.run_through(**spec), jobs.run_through(**spec)
    pages = [http.get(f"/ui/jobs/{job_id}").raise_for_status().text for job_id in (first, second)]
    assert "Estimated when it was submitted" not in pages[0], "nothing was measured before it"
    assert "Estimated when it was submitted: under 1 s" in pages[1]
    assert f'by the speed of <a href="/ui/jobs/{first}">' in pages[1]


def test_one_form_makes_one_job(http: httpx.Client) -> None:
    page = http.get("/ui/new").text
    (key,) = re.findall(r'name="idempotency_key" value="([^"]+)"', page)
    spec = {"teacher": "tiny", "captions": {"kind": "inline", "texts": ["cat", "dog"]}, "drawn": {"count": 2}}
    form = spec_form.write_form(Submission.model_validate(spec).model_dump(mode="json"))
    form["idempotency_key"] = [key]
    first = http.post("/ui/new", data=form, headers=own(http))
    again = http.post("/ui/new", data=form, headers=own(http))
    assert (first.status_code, again.status_code) == (303, 303)
    assert first.headers["location"] == again.headers["location"]
    changed = http.post("/ui/new", data={**form, "seed": ["5"]}, headers=own(http))
    assert changed.status_code == 409
    assert "made a job already" in changed.text
    assert key not in changed.text
    (job,) = http.get("/jobs").json()["items"]
    assert first.headers["location"] == f"/ui/jobs/{job['id']}"


def test_a_form_that_a_quota_refuses_comes_back_as_it_was_filled_in(
    http: httpx.Client, engine: Engine
) -> None:
    with transaction(engine) as session:
        set_quotas(session, "default", {"queued_jobs": 0})
    form = spec_form.write_form(Submission(teacher="tiny").model_dump(mode="json"))
    form["training.steps"] = ["1234"]
    answer = http.post("/ui/new", data=form, headers=own(http))
    assert answer.status_code == 409
    assert "0 jobs of tenant default are queued, and 0 may be" in answer.text
    assert 'value="1234"' in answer.text


def test_a_job_waits_for_its_time_only_until_that_has_come(http: httpx.Client, engine: Engine) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    body = {"teacher": "tiny", "options": {"not_before": tomorrow.isoformat()}}
    job_id = http.post("/jobs", json=body).raise_for_status().json()["id"]
    seen = {"seen": seen_of(http.get("/").text)}
    assert http.get("/ui/fragments/jobs", params=seen).status_code == 204
    assert "Waits for its time" in http.get("/").text
    assert "It waits for its time" in http.get(f"/ui/jobs/{job_id}").text
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET not_before = '2024-01-01T00:00:00Z'"))
    refreshed = http.get("/ui/fragments/jobs", params=seen)
    assert (refreshed.status_code, "Waits for a worker" in refreshed.text) == (200, True)
    assert "It waits for a" in http.get(f"/ui/jobs/{job_id}").text


def seen_of(page: str) -> str:
    (seen,) = re.findall(r'id="seen" name="seen" value="([^"]+)"', page)
    return seen


def test_a_form_with_a_wrong_field_comes_back_with_the_words_at_the_field(http: httpx.Client) -> None:
    form = spec_form.write_form(Submission(teacher="tiny").model_dump(mode="json"))
    form["training.steps"] = ["<b>many"]
    answer = http.post("/ui/new", data=form, headers=own(http))
    assert answer.status_code == 422
    assert 'id="training.steps-error"' in answer.text
    assert 'value="&lt;b&gt;many"' in answer.text
    assert http.get("/jobs").json()["items"] == []


def test_a_form_is_filled_with_what_is_known_of_an_address(http: httpx.Client) -> None:
    for student, shown in (("c-tiny", "c-tiny"), ("anything", "b-small")):
        page = http.get("/ui/new", params={"preset": "x", "teacher": "x", "student": student})
        page.raise_for_status()
        assert f"<option selected>{shown}</option>" in page.text


def test_a_job_whose_captions_have_several_lines_is_not_offered_as_a_form(http: httpx.Client) -> None:
    captions = {"kind": "inline", "texts": ["a dog", "a cat\non a mat"]}
    job = http.post("/jobs", json={"teacher": "tiny", "captions": captions}).raise_for_status().json()
    answer = http.get("/ui/new", params={"clone": job["id"]})
    assert answer.status_code == 409
    assert f"condenser clone {job['id']}" in answer.text
    clone = http.post(f"/jobs/{job['id']}/clone").raise_for_status().json()
    assert clone["spec"]["captions"] == captions


def test_a_form_that_is_no_form_is_refused(http: httpx.Client) -> None:
    as_json = own(http) | {"content-type": "application/json"}
    assert http.post("/ui/new", content="{}", headers=as_json).status_code == 415
    many = "&".join(f"field{number}=1" for number in range(1_500))
    assert http.post("/ui/new", content=many, headers=own(http)).status_code == 415


def test_keys_are_managed_with_the_scope_admin_and_by_a_form_of_our_own(
    http: httpx.Client, make_key: Any
) -> None:
    refused = http.get("/ui/keys")  # with a key that may write
    assert (refused.status_code, "scope admin" in refused.text) == (403, True)
    key_id = make_key("read").row.id
    assert http.post(f"/ui/keys/{key_id}/revoke", headers=own(http)).status_code == 403
    visit(http, make_key("read", "admin").row.id)
    form = {"name": "a", "scopes": ["read"]}
    assert http.post("/ui/keys", data=form, headers=FORM).status_code == 403
    assert http.post("/ui/keys", data=form | {"scopes": ["write"]}, headers=own(http)).status_code == 403
    made = http.post("/ui/keys", data=form | {"days": "7"}, headers=own(http)).raise_for_status()
    assert re.search(r"condenser_[0-9A-Za-z]{38}", made.text)
    assert http.post(f"/ui/keys/{key_id}/revoke", headers=own(http)).status_code == 303
    assert http.post("/ui/keys/nothing/revoke", headers=own(http)).status_code == 404


def test_captions_come_from_a_page_of_our_own(http: httpx.Client) -> None:
    for headers, status in (({"Origin": "http://evil.example"}, 403), ({}, 403), (own(http), 201)):
        sent = headers | {"content-type": "application/octet-stream"}
        answer = http.post("/ui/captions?name=a.txt", content=b"a cat\n", headers=sent)
        assert answer.status_code == status
    large = http.post("/ui/captions?name=b.txt", content=b"x" * (5 * 2**20), headers=sent)
    assert large.status_code == 201, "the limit is that of caption files"
    assert http.get("/ui/captions").text.count("Delete the file") == 2
    assert http.get("/ui/new?captions=nothing").status_code == 404


def test_a_list_that_is_shown_already_is_not_sent_again(http: httpx.Client, jobs: Any) -> None:
    job_id = jobs.submit()
    fragment = http.get("/ui/fragments/jobs").raise_for_status().text
    (seen,) = re.findall(r'name="seen" value="([^"]+)"', fragment)
    assert http.get("/ui/fragments/jobs", params={"seen": seen}).status_code == 204
    jobs.claim(job_id)
    assert "running" in http.get("/ui/fragments/jobs", params={"seen": seen}).text


def test_pages_are_no_part_of_the_public_api(offline: httpx.Client) -> None:
    paths = offline.get("/openapi.json").json()["paths"]
    assert [path for path in paths if path == "/" or path.startswith("/ui")] == []
