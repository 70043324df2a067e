"""Writes the reference pages that follow from the code: the API's calls and the ``condenser`` command."""

import html
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

REFERENCE = Path(__file__).parents[1] / "reference"
METHODS = ("get", "post", "put", "patch", "delete")


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for what there is to read."""
    app.connect("config-inited", lambda *_: _write_pages())
    return {"parallel_read_safe": True}


def _write_pages() -> None:
    from api.app import create_app  # the service is loaded when the manual is built, not before
    from store.settings import Settings

    nowhere = Settings(database_url="postgresql://manual.invalid/manual", redis_url="redis://manual.invalid")
    document = create_app(nowhere).openapi()  # it connects on first use
    REFERENCE.mkdir(exist_ok=True)
    _write(REFERENCE / "http.md", "\n".join(http_page(document)))
    _write(REFERENCE / "command-line.md", command_line_page())


def _write(path: Path, text: str) -> None:
    """Write a page unless it is as it was, so that Sphinx does not read it again."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def http_page(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the page of calls.

    Parameters
    ----------
    document
        The API's OpenAPI document.
    """
    yield "# HTTP reference\n"
    yield "Made from the service's OpenAPI document, which `/openapi.json` serves whole, with every field of"
    yield "every body; `/docs` of a running service shows that document as a page.\n"
    for tag in document["tags"]:
        calls = [
            (path, method, call)
            for path, item in document["paths"].items()
            for method, call in item.items()
            if method in METHODS and tag["name"] in call.get("tags", ())
        ]
        if calls:
            yield f"## {tag['name'].capitalize()}\n\n{tag['description']}\n"
        for path, method, call in calls:
            yield from _call(path, method, call)
    yield from _statuses(document)


def _call(path: str, method: str, call: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {call['summary']}\n\n`{method.upper()} {path}`\n"
    yield f"{call.get('description', '')}\n"
    parameters = call.get("parameters", [])
    if parameters:
        yield "| parameter | where | |\n|---|---|---|"
    for parameter in parameters:
        text = " ".join(parameter.get("description", "").split()).replace("|", "\\|")
        yield f"| `{parameter['name']}` | {parameter['in']} | {text} |"
    yield f"\nAnswers with {', '.join(sorted(call['responses']))}.\n"


def _statuses(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield what each status means; what is said of it most often."""
    told: dict[str, Counter[str]] = {}
    for item in document["paths"].values():
        for method in METHODS:
            for status, answer in item.get(method, {}).get("responses", {}).items():
                told.setdefault(status, Counter())[answer["description"].rstrip(".")] += 1
    yield "## What the statuses mean\n\n| status | |\n|---|---|"
    for status, descriptions in sorted(told.items()):
        if int(status) >= HTTPStatus.BAD_REQUEST:
            yield f"| {status} | {descriptions.most_common(1)[0][0]} |"
    yield ""


def command_line_page() -> str:
    """Return the page of the ``condenser`` command, as its library describes it."""
    command = [sys.executable, "-m", "typer", "--app", "_commands", "client.cli", "utils", "docs"]
    command += ["--name", "condenser", "--title", "Command line reference"]
    written = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
    # What follows a dollar sign is what is typed; a lexer for console output would want to know more.
    return re.sub(r"```console\n", "```text\n", html.unescape(written))
