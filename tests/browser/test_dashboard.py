"""The pages of jobs that nobody trains: moves by keyboard, long lists, live rows, a restart, errors."""

import statistics
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, expect

MAX_SCRIPT_BYTES = 150_000
LISTED = 25


def status_of(page: Page) -> Any:
    return page.locator(".job-facts .status")


def test_a_job_is_cancelled_and_tried_again_by_keyboard_alone(visitor: Any, jobs: Any) -> None:
    (job_id,) = jobs.submit()
    page = visitor.open("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    link = page.get_by_role("link", name="emoji-64")
    for _ in range(8):
        page.keyboard.press("Tab")
        if link.evaluate("link => link === document.activeElement"):
            break
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/ui/jobs/{job_id}")
    page.locator("#confirm-cancel summary").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Cancel the job")).to_be_focused()
    page.keyboard.press("Enter")
    expect(status_of(page)).to_have_text("cancelled")
    assert jobs.status(job_id) == "cancelled"
    page.get_by_role("button", name="Retry").press("Enter")
    expect(status_of(page)).to_have_text("queued")
    assert jobs.status(job_id) == "queued"


def test_a_running_job_is_asked_paused_and_resumed_and_a_paused_one_deleted(
    visitor: Any, jobs: Any, look: Callable[..., None]
) -> None:
    running, waiting = jobs.submit(2)
    claim = jobs.claim(running)
    page = visitor.open(f"/ui/jobs/{running}", width=360)
    expect(page.get_by_role("button", name="Save now")).to_have_count(0)
    jobs.report(claim, 1, ("phase", {"phase": "training"}))
    for button, waits, told in (
        ("Save now", "Saving…", "Asked for a checkpoint"),
        ("Sample now", "Drawing…", "Asked for pictures"),
    ):
        page.get_by_role("button", name=button).click()
        expect(page.get_by_role("button", name=waits)).to_be_disabled()
        expect(page.locator("#log")).to_contain_text(told)
    look("asked", f"/ui/jobs/{running}", "h1")
    page.get_by_role("button", name="Pause").click()
    expect(status_of(page)).to_have_text("pausing")
    page.get_by_role("button", name="Resume").click()
    expect(status_of(page)).to_have_text("running")
    page.goto(f"/ui/jobs/{waiting}")
    page.get_by_role("button", name="Pause").click()
    expect(status_of(page)).to_have_text("paused")
    page.locator("#confirm-delete summary").click()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="Delete for good").click()
    expect(page.locator("table.jobs tbody tr")).to_have_count(1)
    page.goto(f"/ui/jobs/{waiting}")
    expect(page.get_by_role("heading")).to_have_text("Not found")


def test_the_tick_for_a_retry_from_scratch_outlives_a_refresh(visitor: Any, jobs: Any) -> None:
    (job_id,) = jobs.submit()
    jobs.fail(jobs.claim(job_id))
    page = visitor.open(f"/ui/jobs/{job_id}")
    tick = page.get_by_label("from scratch")
    tick.check()
    with page.expect_response("**/ui/fragments/jobs/*"):
        turn(page, away=False)
    expect(page.locator(".htmx-request, .htmx-settling")).to_have_count(0)
    expect(tick).to_be_checked()
    page.get_by_role("button", name="Retry").click()
    expect(status_of(page)).to_have_text("queued")
    expect(page.get_by_role("button", name="Retry")).to_have_count(0)


def test_a_list_of_two_hundred_jobs_is_paged_searched_and_filtered(visitor: Any, jobs: Any) -> None:
    jobs.submit(199)
    (wide,) = jobs.submit(student={"width": 0.8})
    jobs.fail(jobs.claim(wide))
    page = visitor.open("/")
    rows = page.locator("table.jobs tbody tr")
    expect(rows).to_have_count(LISTED)
    seen = set(rows.evaluate_all("rows => rows.map(row => row.id)"))
    for _ in range(7):
        page.get_by_role("link", name="Older").click()
        expect(page.locator(f"#{min(seen)}")).to_have_count(0)
        seen |= set(rows.evaluate_all("rows => rows.map(row => row.id)"))
    assert len(seen) == 200
    expect(page.get_by_role("link", name="Older")).to_have_count(0)
    page.get_by_label("Search").fill("width-0.8")
    page.get_by_label("Search").press("Enter")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("is no longer a finite number")
    page.goto("/")
    page.get_by_label("Status").select_option("failed")
    page.wait_for_url("**status=failed**")
    expect(rows).to_have_count(1)
    page.get_by_label("Status").select_option("succeeded")
    expect(page.get_by_role("heading", name="No job matches")).to_be_visible()


def test_only_the_rows_that_change_are_touched(visitor: Any, jobs: Any) -> None:
    still, moving = jobs.submit(2)
    page = visitor.open("/")
    page.evaluate(
        """() => {
            window.changed = new Set();
            const rows = document.querySelectorAll("table.jobs tbody tr");
            const watch = new MutationObserver((changes) => changes.forEach(({ target }) => {
                const element = target.nodeType === Node.TEXT_NODE ? target.parentElement : target;
                if (!element.closest("time")) window.changed.add(element.closest("tr")?.id);
            }));
            const everything = {subtree: true, childList: true, characterData: true, attributes: true};
            for (const row of rows) watch.observe(row, everything);
        }"""
    )
    claim = jobs.claim(moving)
    progress = {"phase": "training", "done": 50, "total": 100, "unit": "steps", "eta_seconds": 30.0}
    jobs.report(claim, 1, ("phase", {"phase": "training"}), ("progress", progress))
    expect(page.locator(f"#job-{moving}")).to_contain_text("Training, 30 s left")
    assert page.evaluate("[...window.changed]") == [f"job-{moving}"]
    expect(page.locator(f"#job-{still}")).to_contain_text("Waits for a worker")
    (new,) = jobs.submit()
    expect(page.locator("table.jobs tbody tr").first).to_have_attribute("id", f"job-{new}")


def test_open_pages_are_right_again_after_the_service_was_restarted(
    visitor: Any, site: Any, jobs: Any
) -> None:
    (job_id,) = jobs.submit()
    claim = jobs.claim(job_id)
    jobs.report(claim, 1, ("phase", {"phase": "training"}))
    pages = [visitor.open("/"), visitor.open(f"/ui/jobs/{job_id}")]
    expect(status_of(pages[1])).to_have_text("running")
    site.stop()
    for page in pages:
        expect(page.locator("#connection")).to_be_visible()
    jobs.report(claim, 2, ("metrics", {"step": 1, "values": {"loss": 2.0, "samples_per_second": 9.0}}))
    site.start()
    for page in pages:
        expect(page.locator("#connection")).to_be_hidden()
    expect(pages[1].locator("#loss-plot canvas")).to_be_visible()
    jobs.fail(claim)
    expect(status_of(pages[1])).to_have_text("failed")
    expect(pages[0].locator(f"#job-{job_id} .status")).to_have_text("failed")


def turn(page: Page, *, away: bool) -> None:
    """Have a page believe that its tab is left, or returned to: without a window every tab is seen."""
    page.evaluate(
        """away => {
            Object.defineProperty(document, "hidden", {configurable: true, get: () => away});
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        away,
    )


def test_tabs_that_nobody_sees_leave_the_connections_to_others(visitor: Any, jobs: Any) -> None:
    ids = jobs.submit(9)
    first = visitor.open(f"/ui/jobs/{ids[0]}")
    pages = [first]
    for job_id in ids[1:]:  # more than a browser has connections to a server
        turn(pages[-1], away=True)
        pages.append(first.context.new_page())
        pages[-1].goto(f"/ui/jobs/{job_id}")
        expect(status_of(pages[-1])).to_have_text("queued")
    claim = jobs.claim(ids[0])
    jobs.report(claim, 1, ("phase", {"phase": "training"}), losses(50), losses(100))
    expect(status_of(first)).to_have_text("queued")
    with first.expect_request("**/events?*") as returned:
        turn(first, away=False)
    assert returned.value.url.endswith("?after=1"), "it goes on where it was"
    expect(status_of(first)).to_have_text("running")
    expect(first.locator("#loss-plot canvas")).to_be_visible()
    jobs.fail(claim)
    expect(status_of(first)).to_have_text("failed")


def test_distances_appear_below_the_losses_as_they_are_told(visitor: Any, jobs: Any) -> None:
    (job_id,) = jobs.submit()
    claim = jobs.claim(job_id)
    page = visitor.open(f"/ui/jobs/{job_id}")
    jobs.report(claim, 1, ("phase", {"phase": "training"}), losses(50), losses(100))
    expect(page.locator("#loss-plot canvas")).to_be_visible()
    expect(page.locator("#distance")).to_be_hidden()
    jobs.report(claim, 2, distances(100, 0.5))  # after the losses of its step have been read
    expect(page.locator("#distance")).to_contain_text("32 pictures of each kind")
    legend = page.locator("#distance-plot .u-legend")
    expect(legend).to_contain_text("the teacher's, text-only")
    jobs.report(claim, 3, losses(150), losses(200), distances(200, 0.25))
    expect(legend).to_contain_text("0.250 (0.225 to 0.275)")
    total = page.locator("#loss-plot .u-legend tr", has_text="total")
    expect(total).to_contain_text("0.500")
    page.get_by_label("Smoothing").fill("0.9")
    expect(total).to_contain_text("1.65")  # 0.9 of the mean so far and 0.1 of each of 2, 1, 2/3 and 1/2
    before = page.locator("#loss-plot canvas").evaluate("canvas => canvas.toDataURL()")
    page.get_by_label("logarithmic").uncheck()
    assert page.locator("#loss-plot canvas").evaluate("canvas => canvas.toDataURL()") != before
    # One axis of steps: what is pointed at in one plot is told below the others too.
    page.locator("#loss-plot .u-over").hover(position={"x": 2, "y": 50})
    expect(page.locator("#speed-plot .u-legend")).to_contain_text("50")


def losses(step: int) -> tuple[str, dict[str, Any]]:
    values = {"loss": 100 / step, "loss_output": 60 / step, "loss_feature": 40 / step}
    return "metrics", {"step": step, "values": values | {"samples_per_second": 9.0}}


def distances(step: int, drawn: float) -> tuple[str, dict[str, Any]]:
    values = {}
    for split, value in (("drawn", drawn), ("text_only", 2 * drawn)):
        name = f"frechet_distance_{split}"
        ends = {f"{name}_low": 0.9 * value, f"{name}_high": 1.1 * value, f"{name}_teacher": 0.1}
        values |= {name: value, **ends}
    return "metrics", {"step": step, "values": values}


@pytest.mark.parametrize("has_clipboard", [True, False])
def test_calls_are_copied_where_the_browser_lets_a_page_and_selected_elsewhere(
    has_clipboard: bool, visitor: Any, jobs: Any
) -> None:
    (job_id,) = jobs.submit()
    page = visitor.open("/")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    if not has_clipboard:
        page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.goto(f"/ui/jobs/{job_id}")
    page.get_by_text("The same job with curl").click()
    call = page.locator("#call-curl").text_content()
    page.locator("button[data-copy=call-curl]").click()
    if has_clipboard:
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        assert page.evaluate("navigator.clipboard.readText()") == call
    else:
        expect(page.get_by_role("button", name="Selected: press Ctrl+C")).to_be_visible()
        assert page.evaluate("getSelection().toString()").strip() == call.strip()


def test_what_is_wrong_with_a_job_stands_at_its_field(visitor: Any, look: Callable[..., None]) -> None:
    page = visitor.open("/ui/new?preset=quick")
    page.locator('[name="training.steps"]').fill("0")
    expect(page.locator("#estimate")).to_contain_text("greater than or equal to 1")
    page.locator("summary", has_text="Training").first.click()
    page.locator('[name="training.micro_batch_size"]').fill("5")
    page.get_by_role("button", name="Submit the job").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The job was not submitted")
    steps = page.locator('[name="training.steps"]')
    expect(steps).to_have_attribute("aria-invalid", "true")
    steps.fill("4")
    page.get_by_role("button", name="Submit the job").click()
    knob = page.locator('[name="training.micro_batch_size"]')
    expect(knob).to_be_visible()  # the folded part that holds it has been opened
    expect(knob).to_have_attribute("aria-invalid", "true")
    knob.fill("4")
    page.get_by_role("button", name="Submit the job").click()
    page.wait_for_url("**/ui/jobs/*")


def test_the_estimate_follows_the_form(visitor: Any) -> None:
    page = visitor.open("/ui/new?preset=demo")
    estimate = page.locator("#estimate")
    expect(estimate).to_contain_text("b-small")
    page.locator('[name="student~preset"]').select_option("c-micro")
    expect(estimate).to_contain_text("c-micro")
    page.get_by_label("Kind of student").select_option("ParameterBudget")
    page.locator('[name="student~ParameterBudget.max_params"]').fill("5000000")
    expect(estimate).to_contain_text("c-tiny")
    page.locator('[name="student~ParameterBudget.max_params"]').fill("5")
    expect(estimate).to_contain_text("no student of this teacher keeps within 5")


@pytest.mark.parametrize("path", ["/ui/teachers", "/ui/new", "/ui/nothing"])
def test_pages_that_show_no_job_are_fit_for_everybody(path: str, look: Callable[..., None]) -> None:
    look(path.rpartition("/")[2], path, "h1")


def test_a_job_that_waits_and_one_that_failed_are_fit_for_everybody(
    jobs: Any, look: Callable[..., None]
) -> None:
    waiting, failed = jobs.submit(2)
    jobs.fail(jobs.claim(failed))
    look("waiting", f"/ui/jobs/{waiting}", "h1")
    look("failed", f"/ui/jobs/{failed}", "h1")


def test_students_are_compared_by_the_score_that_is_chosen(
    visitor: Any, jobs: Any, look: Callable[..., None]
) -> None:
    for parameters, distance in ((7_500_000, 0.5), (3_300_000, 1.25)):
        (job_id,) = jobs.submit(student="b-small" if distance < 1 else "c-micro")
        jobs.succeed(jobs.claim(job_id), result_of(parameters, distance))
    look("figures", "/ui/compare", "svg.scatter")
    page = visitor.open("/ui/compare?teacher=emoji-64")
    points = page.locator("svg.scatter").first.get_by_role("link")
    expect(points).to_have_count(3)
    expect(points.filter(has_text="c-micro: Parameters (M) 3.3, Fréchet distance 1.25")).to_have_count(1)
    page.get_by_label("Quality").select_option("clip_score")
    page.wait_for_url("**score=clip_score**")
    expect(page.get_by_text("CLIP score: higher is better")).to_be_visible()
    page.locator("svg.scatter").first.get_by_role("link", name="c-micro").press("Enter")
    page.wait_for_url(f"**/ui/jobs/{job_id}")
    expect(page.locator("#result")).to_contain_text("1.25")


def result_of(parameters: int, distance: float) -> dict[str, Any]:
    """A result in the shape in which a trainer leaves it."""
    cost = {"gmacs": 0.187, "milliseconds_per_picture": 900.0}
    scores = {"frechet_distance": distance, "clip_score": 1 - distance / 2}
    return {
        "teacher": cost | {"parameters": 12_600_000},
        "student": cost | {"parameters": parameters, "gmacs": parameters / 5e7},
        "drawn": {
            "pictures": 16,
            "teacher": {"frechet_distance": 0.02, "clip_score": 0.92},
            "student": scores,
            "intervals": {
                "teacher": {"frechet_distance": [0.01, 0.03]},
                "student": {name: [value - 0.1, value + 0.1] for name, value in scores.items()},
            },
            "unet_calls": {"teacher": 16, "student": 16},
        },
    }


def test_pages_are_light_and_paint_early(visitor: Any, jobs: Any, figures: Any) -> None:
    (job_id,) = jobs.submit()
    page = visitor.open(f"/ui/jobs/{job_id}")
    page.wait_for_load_state("load")
    scripts = page.evaluate(
        "performance.getEntriesByType('resource').filter(each => each.initiatorType === 'script')"
        ".map(each => [each.name, each.decodedBodySize, each.encodedBodySize])"
    )
    assert len(scripts) >= 6
    weight = sum(decoded for _, decoded, _ in scripts)
    assert 0 < weight < MAX_SCRIPT_BYTES
    figures.keep("script_bytes", weight)
    figures.keep("script_bytes_sent", sum(encoded for _, _, encoded in scripts))
    paints = {}
    for name, path in (
        ("jobs", "/"),
        ("job", f"/ui/jobs/{job_id}"),
        ("new", "/ui/new"),
        ("compare", "/ui/compare"),
    ):
        times = [first_paint(visitor.open(path)) for _ in range(5 if figures.are_kept else 1)]
        assert all(time > 0 for time in times)
        paints[name] = statistics.median(times)
    figures.keep("first_contentful_paint_milliseconds", paints)


def first_paint(page: Page) -> float:
    """Milliseconds from the navigation to the first contentful paint."""
    time: float = page.evaluate(
        """() => new Promise((resolve) => new PerformanceObserver((list) => {
            const paint = list.getEntriesByName("first-contentful-paint")[0];
            if (paint) resolve(paint.startTime);
        }).observe({type: "paint", buffered: true}))"""
    )
    return time


def test_workers_are_listed_as_they_come_and_work(visitor: Any, jobs: Any, look: Callable[..., None]) -> None:
    page = visitor.open("/ui/workers")
    expect(page.get_by_role("heading", name="No workers")).to_be_visible()
    jobs.announce("test")
    jobs.announce("spare", silent_for=timedelta(minutes=2))
    expect(page.get_by_text("1 idle, 1 silent.")).to_be_visible(timeout=20_000)
    (job_id,) = jobs.submit()
    jobs.claim(job_id)
    link = page.get_by_role("link", name=job_id)
    expect(link).to_be_visible(timeout=20_000)
    look("workers", "/ui/workers", "table.rows")
    link.click()
    expect(status_of(page)).to_have_text("running")
