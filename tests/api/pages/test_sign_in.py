"""Who gets to see the pages: sessions, what begins and ends them, and what they allow."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr

from api.app import create_app
from api.jobs.requests import Submission
from api.pages import spec_form
from store.api_keys import CreatedKey
from store.key_format import new_key
from store.session_tokens import new_session_token, session_cookie
from store.settings import Settings
from tests.api.conftest import serving, visit
from tests.conftest import TEST_PEPPER

COOKIE = session_cookie(TEST_PEPPER)
UPLOAD = ("POST", "/ui/captions")  # sent by a script, which wants a problem and no page
FOR_EVERYBODY = ("/ui/sign-in", "/ui/sign-out", "/ui/static/")
KeyMaker = Callable[..., CreatedKey]


@pytest.fixture
def browser(http: httpx.Client) -> Iterator[httpx.Client]:
    """A browser that has not signed in, and sends what browsers send with a form of our own."""
    headers = {"Origin": str(http.base_url).rstrip("/")}
    with httpx.Client(base_url=http.base_url, timeout=20, trust_env=False, headers=headers) as client:
        yield client


def sign_in(browser: httpx.Client, key: str, wanted: str = "/", **headers: str) -> httpx.Response:
    return browser.post("/ui/sign-in", data={"key": key, "next": wanted}, headers=headers)


def cookie_of(answer: httpx.Response) -> Any:
    cookies = SimpleCookie(answer.headers["set-cookie"])
    return cookies[COOKIE]


def test_every_page_asks_a_stranger_to_sign_in(browser: httpx.Client, api_settings: Settings) -> None:
    asked = 0
    for route in iter_route_contexts(create_app(api_settings).routes):
        path = re.sub(r"{\w+(:path)?}", "cancel", route.path or "")
        if path.startswith(FOR_EVERYBODY) or not (path in {"/", "/playground"} or path.startswith("/ui/")):
            continue
        for method in route.methods or ():
            answer = browser.request(method, path)
            if (method, path) == UPLOAD:
                assert answer.status_code == 401
                continue
            assert answer.status_code == 303, (method, path)
            assert answer.headers["location"].partition("?")[0] == "/ui/sign-in", (method, path)
            refreshed = browser.request(method, path, headers={"HX-Request": "true"})
            assert refreshed.status_code == 401
            assert refreshed.headers["hx-redirect"] == "/ui/sign-in"
            asked += 1
    assert asked > 12


def test_a_stranger_is_brought_back_to_the_page_that_was_wanted(browser: httpx.Client) -> None:
    wanted = "/ui/compare?teacher=tiny&split=drawn"
    asked = browser.get(wanted)
    assert httpx.URL(asked.headers["location"]).params["next"] == wanted
    page = browser.get(asked.headers["location"]).raise_for_status().text
    assert f'name="next" value="{wanted.replace("&", "&amp;")}"' in page
    address = str(browser.base_url.join("/ui/jobs/nothing"))
    headers = {"HX-Request": "true", "HX-Current-URL": address}
    part = browser.get("/ui/fragments/jobs/nothing", headers=headers)
    assert httpx.URL(part.headers["hx-redirect"]).params["next"] == "/ui/jobs/nothing"
    form = browser.post("/ui/jobs/nothing/cancel", headers={"Referer": address})
    assert httpx.URL(form.headers["location"]).params["next"] == "/ui/jobs/nothing"


def test_a_key_signs_in_and_the_cookie_does_not_hold_it(browser: httpx.Client, make_key: KeyMaker) -> None:
    made = make_key("write", name="Ada & <laptop>")
    answer = sign_in(browser, f" {made.key}\n", "/ui/teachers")
    assert (answer.status_code, answer.headers["location"]) == (303, "/ui/teachers")
    cookie = cookie_of(answer)
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "lax", "/")
    assert (cookie["max-age"], cookie["secure"]) == ("43200", "")
    assert made.key[len("condenser_") :] not in answer.headers["set-cookie"]
    page = browser.get("/ui/teachers").raise_for_status().text
    assert "Ada &amp; &lt;laptop&gt;" in page
    assert "default" in page
    assert browser.get("/ui/sign-in?next=/ui/new").headers["location"] == "/ui/new"


def test_over_https_the_cookie_is_for_https_alone(browser: httpx.Client, make_key: KeyMaker) -> None:
    origin = browser.headers["Origin"].replace("http:", "https:")
    answer = sign_in(browser, make_key().key, **{"X-Forwarded-Proto": "https", "Origin": origin})
    assert cookie_of(answer)["secure"] is True


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("", "Paste a key."),
        ("secret", "is not an API key"),
        ("\x00ä", "is not an API key"),
        ("unknown", "There is no such key"),
        ("expired", "The key has expired"),
        ("admin", "lacks the scope read"),
    ],
)
def test_a_wrong_key_is_told_and_signs_nobody_in(
    browser: httpx.Client, make_key: KeyMaker, wrong: str, words: str
) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    keys = {
        "unknown": new_key,
        "expired": lambda: make_key(expires_at=yesterday).key,
        "admin": lambda: make_key("admin").key,
    }
    key = keys[wrong]() if wrong in keys else wrong
    answer = sign_in(browser, key, "/ui/new")
    assert answer.status_code == 422
    assert words in answer.text
    assert 'name="next" value="/ui/new"' in answer.text
    assert "set-cookie" not in answer.headers
    if wrong in keys:
        assert key[16:] not in answer.text


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.example",
        "///evil.example",
        "https://evil.example/ui/new",
        "/\\evil.example",
        "\\\\evil.example",
        "/ui/\\..\\evil",
        "javascript:alert(1)",
        "/\t/evil.example",
        "/ui/new\r\nLocation: //evil.example",
        "/jobs",
        "/ui/" + "x" * 3_000,
        "",
    ],
)
def test_nobody_is_led_to_an_address_that_is_not_ours(
    browser: httpx.Client, make_key: KeyMaker, wanted: str
) -> None:
    shown = browser.get("/ui/sign-in", params={"next": wanted})
    assert 'name="next" value="/"' in shown.raise_for_status().text
    assert sign_in(browser, make_key().key, wanted).headers["location"] == "/"
    assert browser.get("/ui/sign-in", params={"next": wanted}).headers["location"] == "/"


def test_a_key_that_is_revoked_ends_its_sessions(
    browser: httpx.Client, http: httpx.Client, make_key: KeyMaker
) -> None:
    made = make_key()
    sign_in(browser, made.key)
    assert browser.get("/").status_code == 200
    assert http.delete(f"/keys/{made.row.id}").status_code == 204
    for _ in range(2):
        assert browser.get("/ui/new").headers["location"] == "/ui/sign-in?next=%2Fui%2Fnew"
    assert browser.get("/jobs").status_code == 401
    shown = browser.get("/ui/sign-in")
    assert "The session is over" in shown.text
    assert COOKIE not in browser.cookies


def test_a_session_is_over_after_a_time_and_under_another_pepper(
    browser: httpx.Client, make_key: KeyMaker
) -> None:
    key_id, now = make_key().row.id, datetime.now(UTC)
    for pepper, hours, status in ((TEST_PEPPER, 1, 200), (TEST_PEPPER, -1, 303), ("x" * 32, 1, 303)):
        token = new_session_token(key_id, expires_at=now + timedelta(hours=hours), pepper=pepper)
        assert browser.get("/", headers={"Cookie": f"{COOKIE}={token}"}).status_code == status


def test_two_installations_on_one_host_keep_their_sessions_apart(
    http: httpx.Client, api_settings: Settings, make_key: KeyMaker
) -> None:
    """One jar of cookies for both, as browsers have one for all ports of a host."""
    other_settings = api_settings.model_copy(update={"api_key_pepper": SecretStr("of another installation")})
    keys = [make_key().key, make_key(pepper=other_settings.required_pepper()).key]
    with serving(other_settings) as other, httpx.Client(trust_env=False, timeout=20) as browser:
        addresses = [str(client.base_url).rstrip("/") for client in (http, other)]

        def statuses() -> list[int]:
            return [browser.get(f"{address}/").status_code for address in addresses]

        for address, key in zip(addresses, keys, strict=True):
            browser.post(f"{address}/ui/sign-in", data={"key": key}, headers={"Origin": address})
        assert statuses() == [200, 200]
        browser.post(f"{addresses[1]}/ui/sign-out", headers={"Origin": addresses[1]})
        assert statuses() == [200, 303]


def test_signing_out_ends_the_session(browser: httpx.Client, make_key: KeyMaker) -> None:
    sign_in(browser, make_key().key)
    answer = browser.post("/ui/sign-out")
    assert answer.status_code == 303
    assert COOKIE not in browser.cookies
    assert "You have signed out" in browser.get(answer.headers["location"]).text
    assert browser.get("/").status_code == 303


def test_a_session_reads_the_public_api_and_changes_nothing_of_it(
    browser: httpx.Client, make_key: KeyMaker, jobs: Any
) -> None:
    job_id = jobs.submit()
    sign_in(browser, make_key("write", "admin").key)
    assert browser.get(f"/jobs/{job_id}/metrics").status_code == 200
    assert browser.get(f"/jobs/{job_id}", headers={"Authorization": "Basic x"}).status_code == 401
    assert browser.get("/keys").status_code == 200
    for method, path in (
        ("POST", "/jobs"),
        ("POST", "/estimates"),
        ("POST", f"/jobs/{job_id}/cancel"),
        ("DELETE", f"/jobs/{job_id}"),
        ("POST", "/keys"),
    ):
        assert browser.request(method, path, json={"teacher": "tiny"}).status_code == 401, path
    assert browser.get(f"/jobs/{job_id}").json()["status"] == "queued"


def test_who_may_only_look_is_shown_nothing_that_changes_anything(
    browser: httpx.Client, make_key: KeyMaker, jobs: Any
) -> None:
    job_id = jobs.submit()
    visit(browser, make_key("read").row.id)
    for path in ("/", f"/ui/jobs/{job_id}", f"/ui/fragments/jobs/{job_id}", "/ui/new", "/ui/teachers"):
        page = browser.get(path).raise_for_status().text
        forms = set(re.findall(r'<form[^>]* method="post"[^>]* action="([^"]+)"', page))
        assert forms <= {"/ui/sign-out"} | ({"/ui/new"} if path == "/ui/new" else set()), path
        assert "Submit the job" not in page
        assert "New job" not in page
    for path in ("/ui/new", f"/ui/jobs/{job_id}/cancel", f"/ui/jobs/{job_id}/delete"):
        refused = browser.post(path)
        assert refused.status_code == 403
        assert "scope write" in refused.text
        assert "Sign out" in refused.text
    assert jobs_status(browser, job_id) == "queued"
    form = spec_form.write_form(Submission(teacher="tiny").model_dump(mode="json"))
    estimate = browser.post("/ui/fragments/estimate", data=form).raise_for_status()
    assert "Training memory" in estimate.text
    visit(browser, make_key("admin").row.id)
    refused = browser.get("/")
    assert (refused.status_code, "scope read" in refused.text) == (403, True)


def jobs_status(browser: httpx.Client, job_id: str) -> str:
    return str(browser.get(f"/jobs/{job_id}").json()["status"])


def test_a_page_that_may_use_the_api_sends_no_forms_all_the_same(
    api_settings: Settings, serve: Any, make_key: KeyMaker, jobs: Any
) -> None:
    origin = "http://localhost:3000"
    job_id = jobs.submit()
    with serve(api_settings.model_copy(update={"cors_origins": [origin]})) as http:
        visit(http, make_key().row.id)
        for path in (f"/ui/jobs/{job_id}/cancel", "/ui/sign-in", "/ui/sign-out"):
            assert http.post(path, headers={"Origin": origin}).status_code == 403
        assert jobs_status(http, job_id) == "queued"


def test_the_owner_of_the_machine_is_signed_in_unasked(
    api_settings: Settings, serve: Any, make_key: KeyMaker, tmp_path: Path
) -> None:
    file = tmp_path / "api-key"
    changes = {"dashboard_key_file": file, "public_hosts": ["*"], "cors_origins": ["http://localhost:1"]}
    with serve(api_settings.model_copy(update=changes)) as http:
        browser = httpx.Client(base_url=http.base_url, trust_env=False, follow_redirects=True)
        with browser:
            assert "Where keys come from" in browser.get("/").text, "the key is not made yet"
            file.write_text(f"{make_key(name='of this folder').key}\n")
            wanted = browser.get("/ui/teachers")
            assert (wanted.url.path, "of this folder" in wanted.text) == ("/ui/teachers", True)
            out = browser.post("/ui/sign-out", headers={"Sec-Fetch-Site": "same-origin"})
            assert "You have signed out" in out.text
            for headers in (
                {"Host": "condenser.example"},
                {"X-Forwarded-For": "203.0.113.7"},
                {"X-Forwarded-For": "127.0.0.1"},
                {"X-Real-IP": "127.0.0.1"},
                {"Via": "1.1 proxy"},
                {"Origin": "http://localhost:1"},
            ):
                answer = browser.get("/ui/sign-in", headers=headers)
                assert "Where keys come from" in answer.text, headers
                assert COOKIE not in browser.cookies
            assert browser.get("/jobs").status_code == 401, "the API itself asks for a key or a session"
            file.write_text(new_key())
            assert "Where keys come from" in browser.get("/").text
