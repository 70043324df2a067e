"""Whatever a client sends, the service answers with a problem and never fails."""

import json
from typing import Any

import httpx
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.sampled_from(
        ["b-small", "inline", "file", "bundled", "uploaded", "s3", "emoji-64", "tiny", "\x00", "\ud800"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
spec_fields = st.sampled_from(
    [
        "student",
        "captions",
        "drawn",
        "latents",
        "method",
        "training",
        "few_step",
        "evaluation",
        "seed",
        "teacher",
        "options",
    ]
)
nested_fields = st.sampled_from(
    [
        "kind",
        "texts",
        "path",
        "uri",
        "id",
        "name",
        "count",
        "width",
        "steps",
        "batch_size",
        "micro_batch_size",
        "features",
        "priority",
        "not_before",
    ]
)
specs = st.dictionaries(
    spec_fields | st.text(max_size=5),
    json_values | st.dictionaries(nested_fields, json_values, max_size=4),
    max_size=5,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=specs, whole=st.booleans())
@example(change={"captions": {"kind": "inline", "texts": ["ok"], "inline": 1}}, whole=False)
@example(change={"training": {"batch_size": "6", "micro_batch_size": 4}}, whole=False)
@example(change={"drawn": {"count": 1, "texts": ["a"]}}, whole=False)
def test_no_body_makes_the_service_fail(offline: httpx.Client, change: dict[str, Any], whole: bool) -> None:
    body = json.dumps(change if whole else {"teacher": "tiny"} | change)
    answer = offline.post("/jobs", content=body, headers={"Content-Type": "application/json"})
    # 503: the specification was good, and only the database is missing.
    assert answer.status_code in {400, 422, 503}
    assert answer.headers["content-type"] == "application/problem+json"
    if answer.status_code == 422:
        assert answer.json()["errors"]
