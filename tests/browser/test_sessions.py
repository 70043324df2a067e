"""Signing in by the page, what ends a session that a page is open in, and two tenants at one service."""

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from store.api_keys import revoke_key
from store.database import server_now, transaction
from store.key_format import new_key


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()


def test_a_visitor_signs_in_with_a_key_and_out_again(
    visitor: Any, make_key: Callable[..., Any], jobs: Any, look: Callable[..., None]
) -> None:
    look("sign-in", "/ui/sign-in", "h1", signed_in=False)
    (job_id,) = jobs.submit()
    page = visitor.open(f"/ui/jobs/{job_id}", signed_in=False)
    expect(page.get_by_label("API key")).to_be_focused()
    sign_in(page, new_key())
    expect(page.get_by_role("alert")).to_contain_text("There is no such key")
    page.get_by_label("API key").press_sequentially(make_key(name="Ada").key)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/ui/jobs/{job_id}")
    expect(page.locator(".viewer")).to_contain_text("Ada")
    expect(page.locator("#log")).to_contain_text("Queued")
    assert page.evaluate("document.cookie") == "", "no script can read it"
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_text("You have signed out")).to_be_visible()
    page.go_back()
    page.reload()
    expect(page.get_by_label("API key")).to_be_visible()


def test_open_pages_of_a_key_that_is_revoked_ask_to_sign_in(
    visitor: Any, make_key: Callable[..., Any], jobs: Any, site: Any, engine: Any
) -> None:
    (job_id,) = jobs.submit()
    made = make_key()
    pages = [visitor.open(path, signed_in=False) for path in ("/", f"/ui/jobs/{job_id}")]
    for page in pages:
        sign_in(page, made.key)
        expect(page.locator("#jobs, #job")).to_have_count(1)
    with transaction(engine) as session:
        revoke_key(session, key_id=made.row.id, now=server_now(session))
    over = [page.get_by_text("The session is over") for page in pages]
    expect(over[0]).to_be_visible(timeout=20_000)
    jobs.claim(job_id)  # the page of the job, which is still told of events, asks for more
    expect(over[1]).to_be_visible(timeout=20_000)
    sign_in(pages[1], make_key().key)
    expect(pages[1].locator(".job-facts .status")).to_have_text("running")


def test_two_tenants_see_nothing_of_each_other(
    visitor: Any, make_key: Callable[..., Any], jobs: Any, tenant_id: Callable[[str], str]
) -> None:
    (job_id,) = jobs.submit()
    page = visitor.open(f"/ui/jobs/{job_id}", signed_in=False)
    sign_in(page, make_key(tenant_id=tenant_id("vision"), name="Grace").key)
    expect(page.get_by_role("heading")).to_have_text("Not found")
    expect(page.locator(".viewer")).to_contain_text("vision")
    page.get_by_role("link", name="All jobs").click()
    expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    assert jobs.status(job_id) == "queued"


def test_a_key_that_may_only_look_is_shown_no_buttons(
    visitor: Any, make_key: Callable[..., Any], jobs: Any, look: Callable[..., None]
) -> None:
    (job_id,) = jobs.submit()
    page = visitor.open(f"/ui/jobs/{job_id}", signed_in=False, width=360)
    sign_in(page, make_key("read").key)
    expect(page.locator(".job-facts .status")).to_have_text("queued")
    expect(page.get_by_role("button")).to_have_text(["Sign out"])
    page.get_by_role("link", name="Estimate").click()
    expect(page.locator("#estimate")).to_contain_text("Training memory")
    expect(page.get_by_role("button", name="Submit the job")).to_have_count(0)
