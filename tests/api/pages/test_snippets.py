"""The calls to copy make the very job that they stand beside."""

import ast
import json
import shlex
from typing import Any

import pytest

from api.pages import snippets
from core.spec import DistillationSpec

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
    words = shlex.split(snippets.curl("http://127.0.0.1:8000", resolved))
    assert "Authorization: Bearer $CONDENSER_API_KEY" in words
    body = words[-1]
    assert DistillationSpec.model_validate(json.loads(body)) == spec
    program = ast.parse(snippets.python("http://127.0.0.1:8000", resolved))
    (call,) = (
        node
        for node in ast.walk(program)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "create"
    )
    assert DistillationSpec.model_validate(ast.literal_eval(call.args[0])) == spec


def test_what_the_service_puts_in_by_itself_is_left_out() -> None:
    resolved = DistillationSpec(teacher="emoji-64", seed=3).model_dump(mode="json")
    assert snippets.shortened(resolved) == {"teacher": "emoji-64", "seed": 3}
