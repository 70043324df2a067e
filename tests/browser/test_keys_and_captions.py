"""The pages of the keys and of the captions: made, shown once, used and taken away."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from store.session_tokens import COOKIE_PREFIX
from tests.browser.test_sessions import sign_in


@pytest.fixture
def session_token(sign_in_as: Callable[..., str]) -> str:
    """A visitor who may do everything."""
    return sign_in_as("write", "admin")


def confirm(page: Page, summary: str, button: str) -> None:
    """Open a question by keyboard, and say yes."""
    page.locator("summary", has_text=summary).press("Enter")
    page.get_by_role("button", name=button).press("Enter")


def test_a_key_is_made_shown_once_used_and_revoked(visitor: Any, look: Callable[..., None]) -> None:
    page = visitor.open("/ui/keys")
    page.get_by_label("read", exact=False).first.uncheck()
    page.get_by_label("What it is for").fill("nightly builds")
    page.get_by_role("button", name="Make the key").click()
    expect(page.get_by_role("alert")).to_have_text("Choose what the key may do.")
    expect(page.get_by_label("What it is for")).to_have_value("nightly builds")
    page.get_by_label("write", exact=False).first.check()
    page.get_by_label("Expires").select_option("in 30 days")
    page.get_by_role("button", name="Make the key").click()
    key = page.locator("#created-key").inner_text()
    assert key.startswith("condenser_")
    row = page.locator("#keys tr", has_text="nightly builds")
    expect(row).to_contain_text("never")
    expect(row).to_contain_text("expires in 29 d")
    other = visitor.open("/ui/sign-in", signed_in=False)
    sign_in(other, key)
    expect(other.locator(".viewer")).to_contain_text("nightly builds")
    expect(other.get_by_role("link", name="Keys")).to_have_count(0)
    page.goto("/ui/keys")
    assert key not in page.content()
    expect(row).not_to_contain_text("never")
    look("keys", "/ui/keys", "#keys")
    confirm(page, "Revoke nightly builds", "Revoke the key")
    expect(row).to_contain_text("revoked")
    expect(page.locator("#keys summary")).to_have_count(1)  # that of the visitor's own key
    other.context.clear_cookies()
    assert COOKIE_PREFIX not in str(other.context.cookies())
    other.goto("/ui/sign-in")
    sign_in(other, key)
    expect(other.get_by_role("alert")).to_be_visible()


def test_captions_are_uploaded_used_in_a_job_and_deleted(
    visitor: Any, jobs: Any, look: Callable[..., None], tmp_path: Path
) -> None:
    page = visitor.open("/ui/captions", width=360)
    expect(page.locator("#no-files")).to_contain_text("Upload one above")
    expect(page.locator("#bundled tr", has_text="emoji-64")).to_contain_text("14,")
    wrong, right = tmp_path / "captions.doc", tmp_path / "captions.txt"
    for file in (wrong, right):
        file.write_text("a cat\na dog\n")
        page.get_by_label("A caption a line").set_input_files(file)
        page.get_by_role("button", name="Upload").click()
        if file == wrong:
            expect(page.locator("#upload-told")).to_contain_text("Allowed: *.txt")
    row = page.locator("#files tr", has_text="captions.txt")
    expect(row).to_contain_text("12 bytes")
    expect(row).to_contain_text("not counted yet")
    row.get_by_role("link", name="Use in a new job").click()
    file_id = page.locator('[name="captions~UploadedCaptions.id"]').input_value()
    expect(page.get_by_label("Kind of captions", exact=True)).to_have_value("UploadedCaptions")
    (job_id,) = jobs.submit(captions={"kind": "uploaded", "id": file_id})
    claim = jobs.claim(job_id)
    counts = {"count": 1_234, "drawn": 2, "text_only": 1_232, "held_out": 0, "report": {}}
    jobs.report(claim, 1, ("captions", counts))
    page.goto("/ui/captions")
    expect(row).to_contain_text("1,234")
    look("captions", "/ui/captions", "#files")
    confirm(page, "Delete captions.txt", "Delete the file")
    expect(page.get_by_role("alert")).to_contain_text(job_id)
    jobs.fail(claim)
    confirm(page, "Delete captions.txt", "Delete the file")
    expect(page.locator("#no-files")).to_be_visible()
