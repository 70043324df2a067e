"""The pictures of the README and of the manual, of jobs that really ran.

``make pictures`` writes them anew; without ``--manual-pictures`` the same pages are looked at all the same.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from sqlalchemy import Engine

from store.objects import ObjectStore
from tests.browser.recorded import Recording

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "benchmarks" / "paper" / "measured"
STEPS_OF_SIZES = 400
MOST_BYTES = 300_000


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> Callable[[str, Page, str], None]:
    """Writes a picture of a page, from its top to the end of one of its parts."""
    folder: Path | None = request.config.getoption("--manual-pictures")

    def picture(name: str, page: Page, last_part: str) -> None:
        box = page.locator(last_part).last.bounding_box()
        assert box is not None
        whole = Image.open(io.BytesIO(page.screenshot(full_page=True)))
        shown = whole.crop((0, 0, whole.width, round(box["y"] + box["height"]) + 24))
        written = io.BytesIO()
        shown.save(written, "WEBP", lossless=True, method=6)
        assert len(written.getvalue()) < MOST_BYTES
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.webp").write_bytes(written.getvalue())

    return picture


def test_the_manual_shows_a_job_while_it_trains(
    visitor: Any, engine: Engine, object_store: ObjectStore, keep: Callable[..., None]
) -> None:
    recording = Recording(engine, object_store)
    page = visitor.open(f"/ui/jobs/{recording.tell()}")
    grids = [event for event in recording.events if event["type"] == "sample"]
    expect(page.locator("#distance-plot canvas")).to_be_visible()
    expect(page.locator(".pair")).to_have_count(len(grids[-1]["prompts"]))
    expect(page.locator("#sample-label")).to_have_text(f"step {grids[-1]['step']:,}")
    expect(page.locator("#comparator-prompt")).not_to_be_empty()
    keep("job", page, "#samples")


def test_the_manual_compares_what_was_measured(visitor: Any, jobs: Any, keep: Callable[..., None]) -> None:
    """The experiment on sizes: every student of the bundled teacher after the same few steps."""
    measured = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(MEASURED.glob("*.json"))]
    shown = [
        each
        for each in measured
        if each["spec"]["training"]["steps"] == STEPS_OF_SIZES
        and each["spec"]["seed"] == 0
        and each["result"]["text_only"]["student"]["frechet_distance"] < 0.5  # those that began with weights
    ]
    for each in shown:
        (job_id,) = jobs.submit(**each["spec"])
        jobs.succeed(jobs.claim(job_id), each["result"])
    page = visitor.open("/ui/compare?teacher=emoji-64&split=text_only")
    points = page.locator("svg.scatter").first.get_by_role("link")
    expect(points).to_have_count(len(shown) + 1)
    keep("compare", page, "section.card")


def test_the_manual_shows_the_form_of_a_job(visitor: Any, keep: Callable[..., None]) -> None:
    page = visitor.open("/ui/new?preset=demo")
    expect(page.locator("#estimate")).to_contain_text("Training memory")
    keep("new-job", page, ".essentials")
