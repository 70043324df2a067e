"""The form of a submission: whatever a submission says can be filled in, and comes out again."""

from typing import Any

import pytest

from api.errors import SeveralLinesError
from api.jobs.requests import Submission
from api.pages import spec_form
from api.pages.presets import PRESETS
from api.pages.spec_form import Choice, Constant, Group, Node

SUBMISSIONS: list[dict[str, Any]] = [
    {},
    {"student": "koala-1b", "drawn": {"fraction": 0.25, "hold_out": ["polar bear", "cat"]}},
    {"student": {"width": 0.7, "initialisation": "random"}, "drawn": {"texts": ["a cat", "a dog"]}},
    {"student": {"max_params": 5_000_000}, "captions": {"kind": "inline", "texts": ["one", "two"]}},
    {"captions": {"kind": "inline", "texts": ["a\u2028b", "c\x85d", "e\x0bf", "g\x0ch"]}},
    {"drawn": {"texts": ["a\u2029b"]}},
    {"student": {"max_macs": 10**9}, "captions": {"kind": "hub", "dataset": "owner/name", "column": "text"}},
    {"captions": {"kind": "file", "path": "captions.csv.zst", "format": "csv", "limit": 10}},
    {"few_step": {"steps": 4, "start_steps": 16, "learning_rate": 1e-7}},
    {"evaluation": {"more_steps": [5, 12], "grid_prompts": ["panda"]}, "export": {"variants": []}},
    {"export": {"single_file": False}, "method": {"features": {"cross_attention": True}}},
    {"options": {"priority": -3, "max_runtime_s": 60.5, "not_before": "2026-03-02T10:15:00Z"}},
    *(preset.fields for preset in PRESETS.values()),
]


@pytest.mark.parametrize("number", range(len(SUBMISSIONS)))
def test_a_submission_comes_out_of_the_form_as_it_was_filled_in(number: int) -> None:
    submission = Submission.model_validate({"teacher": "emoji-64", **SUBMISSIONS[number]})
    form = spec_form.write_form(submission.model_dump(mode="json"))
    assert Submission.model_validate(spec_form.read_document(form)) == submission


@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize(("field", "kind"), [("captions", {"kind": "inline"}), ("drawn", {})])
def test_a_text_of_several_lines_is_not_taken_apart(
    field: str, kind: dict[str, str], line_break: str
) -> None:
    value = {**kind, "texts": ["a dog", f"a cat{line_break}on a mat"]}
    submission = Submission.model_validate({"teacher": "emoji-64", field: value})
    with pytest.raises(SeveralLinesError, match=rf"A text of {field}\.texts has several lines"):
        spec_form.write_form(submission.model_dump(mode="json"))


def test_lines_are_read_however_they_end() -> None:
    form = spec_form.write_form({"teacher": "emoji-64", "captions": {"kind": "inline", "texts": ["a"]}})
    form["captions~InlineCaptions.texts"] = ["one\r\ntwo\rthree\n\nfour\n"]
    assert spec_form.read_document(form)["captions"]["texts"] == ["one", "two", "three", "four"]


def fields(node: Node) -> list[Node]:
    if isinstance(node, Group):
        return [inner for child in node.children for inner in fields(child)]
    if isinstance(node, Choice):
        return [node, *(inner for kind in node.kinds.values() if kind for inner in fields(kind))]
    return [] if isinstance(node, Constant) else [node]


def test_every_field_has_a_name_of_its_own_and_a_label() -> None:
    found = fields(spec_form.submission_form())
    names = [node.name for node in found]
    assert len(set(names)) == len(names) > 50
    assert all(node.label for node in found)
    paths = {node.path for node in found}
    assert set(spec_form.ESSENTIAL) <= paths
    assert {"drawn.count", "student.width", "training.micro_batch_size"} <= paths
    kinds = {key for node in found if isinstance(node, Choice) for key in node.kinds}
    assert kinds <= spec_form.KIND_LABELS.keys()


def test_an_empty_field_is_left_to_the_service() -> None:
    form = spec_form.write_form({"teacher": "emoji-64"})
    form |= {"training.steps": [" "], "training.micro_batch_size": [""], "training.batch_size": ["12.5"]}
    training = spec_form.read_document(form)["training"]
    assert "steps" not in training
    assert "micro_batch_size" not in training
    assert training["batch_size"] == "12.5"  # no whole number: the service says so


def test_a_kind_that_is_none_is_the_first() -> None:
    form = spec_form.write_form({"teacher": "emoji-64"}) | {"few_step~": ["nonsense"]}
    assert "few_step" not in spec_form.read_document(form)
