"""The reference of the API as a page: ``/docs``.

Written by the server from the OpenAPI document, without a script and without anything from elsewhere, so that
it works offline and under a policy that allows neither.
"""

import html
import json
import re
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

STYLE_PATH = "/docs/style.css"
STYLE = """\
:root { color-scheme: light dark; --quiet: #71717a; --line: #a1a1aa55; --accent: #2563eb; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 2rem 1rem; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 3rem; text-transform: capitalize; }
nav a { margin-right: 1rem; }
a { color: var(--accent); }
details { border-top: 1px solid var(--line); padding: .6rem 0; }
summary { cursor: pointer; }
summary .method { display: inline-block; width: 4.5rem; font-weight: 600; }
summary .title { color: var(--quiet); margin-left: .75rem; }
code, pre { font: .875rem/1.45 ui-monospace, monospace; }
pre { overflow-x: auto; padding: .75rem; border: 1px solid var(--line); border-radius: .375rem; }
table { border-collapse: collapse; width: 100%; font-size: .9375rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0; }
th, td { border-bottom: 1px solid var(--line); }
th { white-space: nowrap; font-weight: 500; }
.quiet { color: var(--quiet); }
"""

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def read_reference(request: Request) -> HTMLResponse:
    """Write the page."""
    return HTMLResponse(render(request.app.openapi()))


@router.get(STYLE_PATH)
async def read_style() -> Response:
    """Send the page's style."""
    return Response(STYLE, media_type="text/css", headers={"Cache-Control": "max-age=3600"})


def render(document: dict[str, Any]) -> str:
    """Write the page of an OpenAPI document."""
    info, tags = document["info"], document["tags"]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(info['title'])} API</title>",
            f'<link rel="stylesheet" href="{STYLE_PATH}"></head><body>',
            f"<h1>{_text(info['title'])} <span class=quiet>{_text(info['version'])}</span></h1>",
            _prose(info["description"]),
            "<nav>",
            *(f'<a href="#{_text(tag["name"])}">{_text(tag["name"])}</a>' for tag in tags),
            '<a href="/openapi.json">openapi.json</a></nav>',
            *(line for tag in tags for line in _section(document, tag)),
            "</body></html>",
        ]
    )


def _section(document: dict[str, Any], tag: dict[str, str]) -> Iterator[str]:
    yield f'<h2 id="{_text(tag["name"])}">{_text(tag["name"])}</h2>{_prose(tag["description"])}'
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if tag["name"] in operation["tags"]:
                yield from _operation(method, path, operation)


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield (
        f'<details id="{_text(operation["operationId"])}"><summary><span class=method>{method.upper()}</span>'
        f"<code>{_text(path)}</code><span class=title>{_text(operation['summary'])}</span></summary>"
    )
    yield _prose(operation["description"])
    if parameters := operation.get("parameters"):
        rows = ((_parameter(parameter), parameter.get("description", "")) for parameter in parameters)
        yield _table("Parameters", rows)
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<h3>Body <span class=quiet>{_text(media_type)}</span></h3>"
        for example in content.get("examples", {}).values():
            yield f"<p class=quiet>{_text(example['summary'])}</p>"
            yield f"<pre>{_text(json.dumps(example['value'], indent=2))}</pre>"
    rows = ((status, answer["description"]) for status, answer in sorted(operation["responses"].items()))
    yield _table("Answers", rows)
    yield "</details>"


def _parameter(parameter: dict[str, Any]) -> str:
    needed = ", required" if parameter.get("required") else ""
    return f"`{parameter['name']}` ({parameter['in']}{needed})"


def _table(title: str, rows: Iterator[tuple[str, str]]) -> str:
    lines = "".join(f"<tr><th>{_inline(name)}</th><td>{_inline(words)}</td></tr>" for name, words in rows)
    return f"<h3>{title}</h3><table>{lines}</table>"


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(paragraph)}</p>" for paragraph in re.split(r"\n\s*\n", text.strip()))


def _inline(text: str) -> str:
    """Escape a text, with what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(text))


def _text(text: str) -> str:
    return html.escape(text)
