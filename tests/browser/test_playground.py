"""A play in a browser: nobody there to draw, a page that closes, and pictures by the real worker."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import Engine, select

from store.database import server_now, transaction
from store.leases import NewArtifact, add_artifacts
from store.models import Generation
from store.objects import ObjectStore

REPOSITORY = Path(__file__).parents[2]
TEACHER = REPOSITORY / "teachers" / "emoji_64" / "weights"
LONGEST_LOAD_MILLISECONDS = 240_000


@pytest.fixture
def job_id(jobs: Any, engine: Engine, object_store: ObjectStore) -> str:
    """A job that has succeeded; its student is as large as the teacher, for it is the teacher's own U-Net."""
    claim = jobs.claim(jobs.submit(evaluation={"steps": 4, "grid_prompts": ["red apple"]})[0])
    paths = [("student.zip", "student_archive", TEACHER / "unet" / "config.json")]
    paths += [
        (f"student/unet/{file.name}", "student_file", file)
        for file in sorted((TEACHER / "unet").iterdir())
        if file.suffix in (".json", ".safetensors")
    ]
    files = []
    for path, kind, file in paths:
        stored = object_store.upload_file(file, f"jobs/{claim.job_id}/attempts/1/{path}")
        files.append(
            NewArtifact(
                path=path, kind=kind, step=None, key=stored.key, size=stored.size, sha256=stored.sha256
            )
        )
    with transaction(engine) as session:
        add_artifacts(
            session,
            job_id=claim.job_id,
            lease_token=claim.lease_token,
            artifacts=files,
            event=None,
            now=server_now(session),
        )
    jobs.succeed(claim, {})
    return str(claim.job_id)


def statuses(engine: Engine) -> list[str]:
    with transaction(engine) as session:
        return list(session.scalars(select(Generation.status).order_by(Generation.id)))


@pytest.mark.timeout(600)  # a real drawing, on a machine that may have much else to do
def test_teacher_and_student_draw_side_by_side_while_the_page_is_open(
    visitor: Any,
    site: Any,
    work: Callable[..., Any],
    look: Callable[..., None],
    engine: Engine,
    request: pytest.FixtureRequest,
    eventually: Callable[..., Any],
) -> None:
    look("empty-playground", "/ui/playground", "text=Nothing to play with yet")
    job_id = request.getfixturevalue("job_id")
    page: Page = visitor.open(f"/ui/jobs/{job_id}")
    page.get_by_role("link", name="Play", exact=True).click()
    expect(page.locator("#no-worker")).to_contain_text("No interactive worker is there")
    expect(page.get_by_label("Prompt")).to_have_value("red apple")
    page.get_by_label("Sampler steps").fill("3")
    expect(page.locator("output").first).to_have_text("3")
    page.get_by_role("button", name="Draw").press("Enter")
    expect(page.locator("#play .status")).to_have_text("waiting")
    expect(page.locator("#play")).to_contain_text("No interactive worker has been heard of lately")
    look("playground-waiting", f"/ui/playground?job={job_id}", "#no-worker")
    page.get_by_role("button", name="Draw").press("Enter")
    eventually(lambda: statuses(engine) == ["cancelled", "queued"])  # one page has one play
    page.goto("/")
    eventually(lambda: statuses(engine) == ["cancelled"] * 2)

    page.goto(f"/ui/playground?job={job_id}")
    page.get_by_label("Sampler steps").fill("3")
    page.get_by_label("Seed", exact=True).fill("11")
    with work("worker.interactive"):
        page.get_by_role("button", name="Draw").click()
        expect(page.locator("#play .status")).to_have_text("drawn", timeout=LONGEST_LOAD_MILLISECONDS)
    pictures = page.locator("#play img")
    expect(pictures).to_have_count(2)
    for number in range(2):
        assert pictures.nth(number).evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    expect(page.locator("#play figcaption .time")).to_have_count(2)
    expect(page.locator("#play figcaption").last).to_contain_text("3 steps, guidance 7.5")
    link = page.get_by_role("link", name="Link to these pictures").get_attribute("href")
    assert link is not None
    look("playground", link, "#play img")
    assert statuses(engine) == ["cancelled", "cancelled", "succeeded"]
