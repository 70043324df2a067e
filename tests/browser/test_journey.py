"""From the form to the finished student in one browser, with a real worker and the bundled teacher."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

LONGEST_RUN_MILLISECONDS = 300_000
CAPTIONS = ["panda", "lion", "red apple", "rocket", "soccer ball", "robot", "koala", "pear"]
KNOBS = {
    "training.steps": "6",
    "training.batch_size": "4",
    "latents.steps": "4",
    "training.log_every": "1",
    "training.checkpoint_every": "3",
    "training.sample_every": "2",
    "evaluation.samples": "2",
    "evaluation.steps": "4",
}


def fill(page: Page, name: str, value: str) -> None:
    page.locator(f'[name="{name}"]').fill(value)


def submit_small_job(page: Page) -> None:
    """Fill the form as a person would: a preset, captions of one's own, some knobs of the folded parts."""
    page.get_by_role("link", name="Quick look").click()
    page.get_by_label("Kind of captions", exact=True).select_option("InlineCaptions")
    fill(page, "captions~InlineCaptions.texts", "\n".join(CAPTIONS))
    page.get_by_label("Kind of captions that the teacher draws").select_option("DrawnByText")
    fill(page, "drawn~DrawnByText.texts", "\n".join(CAPTIONS[:4]))
    for part in ("Latents", "Training", "Evaluation"):
        page.locator("summary", has_text=part).first.click()
    for name, value in KNOBS.items():
        fill(page, name, value)
    fill(page, "evaluation.grid_prompts", "\n".join(CAPTIONS[:6]))
    page.get_by_role("button", name="Submit the job").click()


@pytest.mark.timeout(900)  # a real training, on a machine that may have much else to do
def test_a_job_is_submitted_watched_to_its_end_and_compared(
    visitor: Any,
    site: Any,
    work: Callable[[], Any],
    look: Callable[..., None],
    eventually: Callable[..., Any],
) -> None:
    look("empty-jobs", "/", "text=No jobs yet")
    look("empty-compare", "/ui/compare", "text=No students of emoji-64 yet")
    page = visitor.open("/")
    page.get_by_role("link", name="Make the first job").click()
    expect(page.locator("#estimate")).to_contain_text("Parameters")
    expect(page.locator("#estimate")).to_contain_text("not known")
    with work():
        submit_small_job(page)
        page.wait_for_url("**/ui/jobs/*")
        page.evaluate("window.isTheSamePage = true")
        status = page.locator(".job-facts .status")
        expect(status).to_have_text("running", timeout=LONGEST_RUN_MILLISECONDS)
        expect(page.locator("#loss-plot canvas")).to_be_visible(timeout=LONGEST_RUN_MILLISECONDS)
        expect(page.locator(".pair")).to_have_count(6, timeout=LONGEST_RUN_MILLISECONDS)
        expect(status).to_have_text("succeeded", timeout=LONGEST_RUN_MILLISECONDS)
    assert page.evaluate("window.isTheSamePage") is True
    look_through_the_job(page, site, eventually)
    path = page.url.removeprefix(site.url)
    look("job", path, "#loss-plot canvas")
    look("new-job", f"/ui/new?clone={path.rpartition('/')[2]}", "#estimate dl b")
    look("jobs", "/", "table.jobs")
    compare(page)
    look("compare", "/ui/compare", ".grid-rows canvas")


def look_through_the_job(page: Page, site: Any, eventually: Callable[..., Any]) -> None:
    """Use every part of the page of a job that has succeeded."""
    for phase in ("Captions", "Teacher pictures", "Training", "Evaluation", "Export"):
        expect(page.locator("#phases li", has_text=phase)).to_have_count(1)
    expect(page.locator("#sample-label")).to_have_text("the exported student")
    slider = page.locator("#sample-step")
    assert slider.get_attribute("max") == "3"  # steps 2, 4, 6 and the exported student
    canvas = page.locator(".pair canvas").nth(1)
    before = canvas.evaluate("canvas => canvas.toDataURL()")
    slider.fill("0")
    expect(page.locator("#sample-label")).to_have_text("step 2")
    eventually(lambda: canvas.evaluate("canvas => canvas.toDataURL()") != before)
    page.locator(".pair").nth(2).click()
    expect(page.locator("#comparator-prompt")).to_have_text("red apple")
    expect(page.locator("#result")).to_contain_text("Fréchet distance")
    expect(page.locator("#log")).to_contain_text("Training begins")
    page.get_by_text("The same job in Python").click()
    expect(page.locator("#call-python")).to_contain_text("condenser.jobs.create(")
    link = page.get_by_role("link", name="student.zip").get_attribute("href")
    session = {each["name"]: each["value"] for each in page.context.cookies()}
    answer = httpx.get(f"{site.url}{link}", cookies=session, follow_redirects=True, trust_env=False)
    assert answer.content.startswith(b"PK")
    assert "student.zip" in answer.headers["content-disposition"]


def compare(page: Page) -> None:
    """Go from the job to the comparison and back by a point of a plot."""
    job = page.url
    page.get_by_role("link", name="Compare with other students").click()
    expect(page.locator("svg.scatter")).to_have_count(3)
    expect(page.locator(".grid-rows canvas")).to_have_count(2 * 6)
    page.get_by_label("Captions").select_option("text_only")
    page.wait_for_url("**split=text_only**")
    point = page.locator("svg.scatter").first.get_by_role("link", name="b-small")
    point.press("Enter")
    page.wait_for_url(job)
