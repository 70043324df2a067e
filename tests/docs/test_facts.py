"""What the manual says of the code, and repeats of other pages, is what is found there."""

import json
import re
from typing import Any

import pytest

from api.app import create_app
from store.settings import Settings
from tests.deploy.repository import compose, text
from tests.docs.pages import DOCS, PAGES

# Where a container's process listens is the container's own.
OF_A_CONTAINER = {"--host", "--port"}
CALL = re.compile(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`\s?,]*)")


def image_command(name: str) -> list[str]:
    """The command of an image."""
    [found] = re.findall(
        r"^CMD (\[.+\])$", text(f"docker/{name}.Dockerfile").replace("\\\n", ""), re.MULTILINE
    )
    command: list[str] = json.loads(found)
    return command


def without_address(command: list[str]) -> list[str]:
    """A command less the options that say where it listens."""
    left, words = [], iter(command)
    for word in words:
        if word in OF_A_CONTAINER:
            next(words)
        else:
            left.append(word)
    return left


@pytest.mark.parametrize(
    ("process", "run"),
    [
        ("API", image_command("api")),
        ("worker", image_command("worker")),
        ("interactive worker", compose()["services"]["interactive"]["command"]),
        ("migrations", compose()["services"]["migrate"]["command"]),
    ],
)
def test_the_manual_starts_a_process_as_its_container_does(process: str, run: list[str]) -> None:
    [told] = re.findall(rf"^\| {process} \| `(.+?)` \|", text("docs/operations.md"), re.MULTILINE)
    assert told.split() == without_address(run)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    settings = Settings(
        database_url="postgresql://nobody@localhost/nothing",
        redis_url="redis://localhost",
        api_key_pepper="nobody comes in by this, for nobody asks",
    )
    return create_app(settings).openapi()


def test_every_call_in_the_manual_is_one_of_the_service(document: dict[str, Any]) -> None:
    known = {
        (method.upper(), re.sub(r"\{\w+\}", "{}", path))
        for path, methods in document["paths"].items()
        for method in methods
    }
    named = {
        (str(page.relative_to(DOCS.parent)), method, re.sub(r"\{\w+\}|\bJOB\b", "{}", path))
        for page in PAGES
        for method, path in CALL.findall(page.read_text(encoding="utf-8"))
    }
    assert len(named) > 20
    assert {call for call in named if call[1:] not in known} == set()


def test_what_one_process_carries_is_what_was_measured() -> None:
    """`docs/load.md` is written anew by its command, and this page repeats it."""
    measured = text("docs/load.md").partition("## What it carries")[2].partition("## What it took")[0]
    rows = re.findall(
        r"^\| ([\d.]+) \| (\d) \| \d+ ms and (\d+) ms \| \d+ ms and (\d+) ms", measured, re.MULTILINE
    )
    figures = {(share, processes): (get, post) for share, processes, get, post in rows}
    told = " ".join(
        text("docs/scaling.md").partition("**API processes first.**")[2].partition("2. **")[0].split()
    )
    get, post = figures["0.25", "1"]
    assert f"within {get} ms (`GET`, 99th percentile) and {post} ms (`POST`)" in told
    alone, two = (int(figures["1", processes][1]) / 1000 for processes in ("1", "2"))
    assert f"for up to {alone:.0f} s" in told
    assert f"brought the {alone:.0f} s down to {two:.1f} s" in told
