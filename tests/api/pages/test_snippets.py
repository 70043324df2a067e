"""The calls to copy make the very job that they stand beside."""

import ast
import json
import shlex
from typing import Any

import pytest

from api.pages import snippets
from core.spec import DistillationSpec

JOB_ID = "019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa"
SPECS: list[dict[str, Any]] = [
    {},
    {"student": {"width": 0.7}, "training": {"steps": 7}, "drawn": {"count": 3}},
    {
        "captions": {"kind": "inline", "texts": ["it's a cat", 'a "dog"', "`fish` $HOME"]},
        "drawn": {"texts": ["x"]},
    },
    {"few_step": {"steps": 4}, "method": {"features": {"weight": 1, "normalisation": "none"}}},
]


@pytest.mark.parametrize("number", range(len(SPECS)))
def test_both_calls_submit_the_same_specification(number: int) -> None:
    spec = DistillationSpec.model_validate({"teacher": "emoji-64", **SPECS[number]})
    resolved = spec.model_dump(mode="json")
    words = shlex.split(snippets.curl("http://127.0.0.1:8000", JOB_ID, resolved))
    assert "Authorization: Bearer $CONDENSER_API_KEY" in words
    body = words[-1]
    assert DistillationSpec.model_validate(json.loads(body)) == spec
    program = ast.parse(snippets.python("http://127.0.0.1:8000", JOB_ID, resolved))
    (call,) = (
        node
        for node in ast.walk(program)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "create"
    )
    assert DistillationSpec.model_validate(ast.literal_eval(call.args[0])) == spec


def test_many_captions_are_shown_by_some_of_them_and_the_calls_clone_the_job() -> None:
    texts = [f"caption {number}" for number in range(1_000)]
    captions = {"kind": "inline", "texts": texts}
    spec = DistillationSpec.model_validate({"teacher": "emoji-64", "captions": captions})
    resolved = spec.model_dump(mode="json")
    shown = snippets.abridged(resolved)
    assert shown["captions"]["texts"] == [*texts[:50], "… and 950 more"]
    assert shown | {"captions": resolved["captions"]} == resolved
    words = shlex.split(snippets.curl("http://127.0.0.1:8000", JOB_ID, resolved))
    assert f"http://127.0.0.1:8000/jobs/{JOB_ID}/clone" in words
    program = snippets.python("http://127.0.0.1:8000", JOB_ID, resolved)
    assert f"condenser.jobs.get('{JOB_ID}').clone()" in ast.unparse(ast.parse(program))
    assert "caption 7" not in program


def test_what_the_service_puts_in_by_itself_is_left_out() -> None:
    resolved = DistillationSpec(teacher="emoji-64", seed=3).model_dump(mode="json")
    assert snippets.shortened(resolved) == {"teacher": "emoji-64", "seed": 3}
