"""The system's Chromium before a served API, and jobs moved as a worker moves them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright
from sqlalchemy import Engine

from store.api_keys import CreatedKey, create_key
from store.database import server_now, transaction
from store.models import Scope
from store.session_tokens import new_session_token, session_cookie
from store.settings import Settings
from tests.browser.site import Figures, Jobs, Site
from tests.conftest import TEST_PEPPER

COOKIE = session_cookie(TEST_PEPPER)
REPOSITORY = Path(__file__).parents[2]
COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = {1440: 900, 360: 740}
LOOKS = ((1440, "light"), (360, "dark"), (1440, "dark"), (360, "light"))
AXE = Path(__file__).with_name("vendored") / "axe.min.js"
# What a browser and htmx say of a service that is away, of an answer that refuses, and of a request that is
# given up for a newer one.
EXPECTED = (
    "net::ERR_",
    "the server responded with a status",
    "htmx:sendError",
    "htmx:sendAbort",
    "htmx:afterRequest",
)


# Playwright keeps a loop running in this thread, and tests elsewhere run loops of their own.
@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """A Chromium without a window: the system's, or else playwright's own."""
    found = next((path for command in COMMANDS if (path := shutil.which(command))), None)
    own = playwright.chromium.executable_path
    if found is None and not Path(own).exists():
        pytest.fail(
            "These tests need Chromium. Install the system's (Debian: apt-get install chromium), or "
            "playwright's own: python -m playwright install --with-deps chromium",
            pytrace=False,
        )
    # The sandbox cannot be set up by root, as whom CI's containers run.
    sandbox = [] if os.getuid() else ["--no-sandbox"]
    browser = playwright.chromium.launch(executable_path=found, args=sandbox)
    yield browser
    browser.close()


@pytest.fixture
def site_settings(settings: Settings) -> Settings:
    """This test's servers, and changes that are seen soon."""
    return settings.model_copy(update={"watch_seconds": 0.05, "ping_seconds": 0.5})


@pytest.fixture
def site(site_settings: Settings) -> Iterator[Site]:
    """A served API of this test's own, that can be stopped and started again."""
    site = Site(site_settings)
    site.start()
    yield site
    site.stop()


class Visitor:
    """Opens pages, and fails the test when a page breaks a promise: no error, no foreign request."""

    def __init__(self, browser: Browser, site: Site, token: str) -> None:
        self._browser = browser
        self._site = site
        self._token = token
        self._contexts: list[BrowserContext] = []
        self.complaints: list[str] = []

    def open(self, path: str, *, scheme: Any = "light", width: int = 1440, signed_in: bool = True) -> Page:
        """Open a page in a browser that knows nothing yet but its session."""
        context = self._browser.new_context(
            color_scheme=scheme,
            viewport={"width": width, "height": WIDTHS[width]},
            reduced_motion="reduce",
            base_url=self._site.url,
        )
        context.set_default_timeout(20_000)
        self._contexts.append(context)
        if signed_in:
            context.add_cookies([{"name": COOKIE, "value": self._token, "url": self._site.url}])
        page = context.new_page()
        page.on("console", lambda message: self._hear(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._look_at(request.url))
        page.goto(path)
        return page

    def _hear(self, kind: str, text: str) -> None:
        if kind == "error" and not any(expected in text for expected in EXPECTED):
            self.complaints.append(text)

    def _look_at(self, url: str) -> None:
        if not url.startswith(self._site.url + "/"):
            self.complaints.append(f"asked {url}")

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@pytest.fixture
def make_key(engine: Engine, settings: Settings) -> Callable[..., CreatedKey]:
    """Makes a key of a tenant, the default one if none is named, as an operator does."""

    def make(*scopes: Scope, tenant_id: str | None = None, name: str = "pages") -> CreatedKey:
        with transaction(engine, tenant_id=tenant_id) as session:
            now, pepper = server_now(session), settings.required_pepper()
            return create_key(session, name=name, scopes=scopes or ["write"], pepper=pepper, now=now)

    return make


@pytest.fixture
def sign_in_as(make_key: Callable[..., CreatedKey], settings: Settings) -> Callable[..., str]:
    """Gives what the sign-in leaves in a browser, without going through it, for a key of some scopes."""

    def session_of(*scopes: Scope) -> str:
        expires_at = datetime.now(UTC) + timedelta(hours=1)
        key_id = make_key(*scopes).row.id
        return new_session_token(key_id, expires_at=expires_at, pepper=settings.required_pepper())

    return session_of


@pytest.fixture
def session_token(sign_in_as: Callable[..., str]) -> str:
    """The session of a visitor who may change things."""
    return sign_in_as("write")


@pytest.fixture
def visitor(browser: Browser, site: Site, session_token: str) -> Iterator[Visitor]:
    visitor = Visitor(browser, site, session_token)
    yield visitor
    visitor.close()
    assert visitor.complaints == []


@pytest.fixture
def jobs(engine: Engine) -> Jobs:
    return Jobs(engine)


@pytest.fixture
def work(service_environment: dict[str, str], tmp_path: Path) -> Callable[..., Any]:
    """Runs a real worker, of jobs unless another application is named, for as long as a block lasts."""

    @contextmanager
    def working(application: str = "worker.app") -> Iterator[None]:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "PYTHONPATH": str(REPOSITORY),
            "OMP_NUM_THREADS": "1",
            "HEARTBEAT_SECONDS": "0.2",
            **service_environment,
        }
        command = [sys.executable, "-m", "celery", "-A", application, "worker", "--loglevel=INFO"]
        command += ["--without-gossip", "--without-mingle"]
        with (tmp_path / "worker.log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=REPOSITORY)
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)

    return working


@pytest.fixture
def look(visitor: Visitor, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Looks at a page in light and dark, wide and narrow: axe finds nothing serious, nothing overflows.

    With ``--screenshots FOLDER`` it looks at all four of them and keeps the pictures.
    """
    folder: Path | None = request.config.getoption("--screenshots")

    def look_at(name: str, path: str, ready: str, *, signed_in: bool = True) -> None:
        for width, scheme in LOOKS if folder else LOOKS[:2]:
            page = visitor.open(path, scheme=scheme, width=width, signed_in=signed_in)
            page.locator(ready).first.wait_for()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} overflows"
            assert _violations(page) == [], f"{name}, {scheme}, {width}"
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=folder / f"{name}-{scheme}-{width}.png", full_page=True)
            page.close()

    return look_at


def _violations(page: Page) -> list[str]:
    """Ask axe what is seriously wrong with a page for those who hear it or use its keys."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then(each => each.violations)")
    return [
        f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:200]}"
        for each in found
        if each["impact"] in {"serious", "critical"}
    ]


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Keeps what is measured, beside the pictures."""
    return Figures(request.config.getoption("--screenshots"))
