"""The form of a submission, made from the submission's own JSON schema.

A form's fields are texts with names. The name of a field is its path in the submission, so that an error of
the API finds its field; what comes in several kinds has a choice whose name ends in ``~``, and the fields of
each kind bear the kind in their names, as in ``drawn~DrawnByCount.count``. An empty field is left out of the
submission, and the service puts its default there.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from api.errors import SeveralLinesError
from api.jobs.requests import Submission
from api.pages.forms import Form

KIND_MARK = "~"
LINE_BREAK = re.compile(r"\r\n|\r|\n")  # as a browser sees it: `splitlines` breaks at more characters
NONE = "none"
PLAIN = "preset"
ESSENTIAL = (
    "teacher",
    "student",
    "captions",
    "drawn",
    "training.steps",
    "training.batch_size",
    "training.learning_rate",
    "seed",
)
KIND_LABELS = {
    "count": "How many",
    "training.steps": "Training steps",
    "ema_decay": "Decay of the weights' average",
    "warmup_steps": "Warm-up steps",
    NONE: "None",
    PLAIN: "A preset",
    "WidthStudent": "A width",
    "ParameterBudget": "A budget of parameters",
    "ComputeBudget": "A budget of computation",
    "InlineCaptions": "Captions written here",
    "FileCaptions": "A file on the server",
    "HubCaptions": "A data set of the Hugging Face Hub",
    "BundledCaptions": "The set of a bundled teacher",
    "UploadedCaptions": "A file that was uploaded",
    "S3Captions": "A file in an object store",
    "DrawnByCount": "A number of captions",
    "DrawnByFraction": "A fraction of the captions",
    "DrawnByText": "Exactly these captions",
    "FewStepSpec": "Teach it to draw in few steps",
}
LABELS = {
    "count": "How many",
    "training.steps": "Training steps",
    "ema_decay": "Decay of the weights' average",
    "warmup_steps": "Warm-up steps",
    "drawn": "Captions that the teacher draws",
    "few_step": "Few-step transfer",
    "max_params": "Most parameters",
    "max_macs": "Most multiply-accumulates a pass",
    "max_runtime_s": "Longest run time (seconds)",
    "not_before": "Not before (UTC)",
    "texts": "Captions, one a line",
    "hold_out": "Words never to draw, one a line",
    "grid_prompts": "Prompts of the sample grids, one a line",
}


class _Omitted:
    """Stands for a field that the form left empty."""


OMITTED = _Omitted()


@dataclass(frozen=True)
class Node:
    """A part of the form.

    Attributes
    ----------
    name
        Of its field in the form.
    label, help
        For people.
    """

    widget: ClassVar[str]

    name: str
    label: str
    help: str

    @property
    def path(self) -> str:
        """Where its value is in the submission."""
        return re.sub(rf"{KIND_MARK}\w*", "", self.name)

    def read(self, form: Form) -> Any:
        """Return the value that the form gives it, `OMITTED` where it gives none."""
        raise NotImplementedError

    def write(self, value: Any, form: Form) -> None:
        """Fill the form's fields with a value."""
        raise NotImplementedError


@dataclass(frozen=True)
class Input(Node):
    """A line: a number, a text, or a moment."""

    widget = "input"

    kind: str
    limits: Mapping[str, str]

    def read(self, form: Form) -> Any:
        """Read a number as a number; what is none goes to the service as it is, which says so."""
        text = form.get(self.name, [""])[-1].strip()
        if not text:
            return OMITTED
        if self.kind == "moment":
            return text if text.endswith("Z") else f"{text}Z"
        for number in {"integer": (int,), "number": (int, float)}.get(self.kind, ()):
            try:
                return number(text)
            except ValueError:
                continue
        return text

    def write(self, value: Any, form: Form) -> None:
        """Write the value as a text."""
        text = "" if value is None else str(value)
        form[self.name] = [text.removesuffix("Z") if self.kind == "moment" else text]


@dataclass(frozen=True)
class Select(Node):
    """One of a few values."""

    widget = "select"

    options: Sequence[str]
    is_optional: bool

    def read(self, form: Form) -> Any:
        """Return the option chosen."""
        text = form.get(self.name, [""])[-1]
        return text or OMITTED

    def write(self, value: Any, form: Form) -> None:
        """Choose an option."""
        form[self.name] = ["" if value is None else str(value)]


@dataclass(frozen=True)
class Flag(Node):
    """Yes or no."""

    widget = "flag"

    def read(self, form: Form) -> Any:
        """Return whether it is ticked."""
        return self.name in form

    def write(self, value: Any, form: Form) -> None:
        """Tick it."""
        if value:
            form[self.name] = ["on"]


@dataclass(frozen=True)
class Several(Node):
    """Any of a few values."""

    widget = "several"

    options: Sequence[str]

    def read(self, form: Form) -> Any:
        """Return the options ticked."""
        return form.get(self.name, [])

    def write(self, value: Any, form: Form) -> None:
        """Tick options."""
        form[self.name] = [str(each) for each in value or []]


@dataclass(frozen=True)
class Lines(Node):
    """A list: texts one a line, or numbers one a line."""

    widget = "lines"

    of_numbers: bool

    def read(self, form: Form) -> Any:
        """Return what stands on the lines, without the empty ones."""
        lines = [line.strip() for line in LINE_BREAK.split(form.get(self.name, [""])[-1])]
        values: list[Any] = [line for line in lines if line]
        if self.of_numbers:
            values = [int(line) if line.isdecimal() else line for line in values]
        return values or OMITTED

    def write(self, value: Any, form: Form) -> None:
        """Write a line for each value; `SeveralLinesError` for a text that would come back as many."""
        lines = [str(each) for each in value or []]
        if any(LINE_BREAK.search(line) for line in lines):
            raise SeveralLinesError(
                f"A text of {self.path} has several lines, and the form would make a text of each."
            )
        form[self.name] = ["\n".join(lines)]


@dataclass(frozen=True)
class Constant(Node):
    """A value that tells one kind from another; it has no field."""

    widget = "constant"

    value: str

    def read(self, form: Form) -> Any:
        """Return the value."""
        return self.value

    def write(self, value: Any, form: Form) -> None:
        """Write nothing."""


@dataclass(frozen=True)
class Group(Node):
    """Fields that belong together."""

    widget = "group"

    key: str
    children: Sequence[Node]
    defaults: Mapping[str, Any]

    def read(self, form: Form) -> Any:
        """Return what its fields give."""
        values = {_last(child.name): child.read(form) for child in self.children}
        return {name: value for name, value in values.items() if value is not OMITTED}

    def write(self, value: Any, form: Form) -> None:
        """Fill its fields; what the value lacks is as by default."""
        for child in self.children:
            name = _last(child.name)
            child.write((value or {}).get(name, self.defaults.get(name)), form)


@dataclass(frozen=True)
class Choice(Node):
    """One of several kinds, each with fields of its own; a kind without fields stands for nothing at all."""

    widget = "choice"

    kinds: Mapping[str, Node | None]

    def chosen(self, form: Form) -> str:
        """Return the kind that the form has chosen."""
        kind = form.get(self.name + KIND_MARK, [""])[-1]
        return kind if kind in self.kinds else next(iter(self.kinds))

    def read(self, form: Form) -> Any:
        """Return what the fields of the chosen kind give."""
        kind = self.kinds[self.chosen(form)]
        return OMITTED if kind is None else kind.read(form)

    def write(self, value: Any, form: Form) -> None:
        """Choose the kind that the value is of and fill its fields; those of the others are as by default."""
        chosen = next((key for key, kind in self.kinds.items() if _is_of(value, kind)), None)
        for key, kind in self.kinds.items():
            if kind is not None:
                kind.write(value if key == chosen else None, form)
        form[self.name + KIND_MARK] = [chosen or next(iter(self.kinds))]


def _is_of(value: Any, kind: Node | None) -> bool:
    if not isinstance(kind, Group):
        return not isinstance(value, dict) and (value is None) == (kind is None)
    if not isinstance(value, dict):
        return False
    constants = {_last(child.name): child.value for child in kind.children if isinstance(child, Constant)}
    known = {_last(child.name) for child in kind.children}
    return value.keys() <= known and all(value.get(name) == constant for name, constant in constants.items())


@cache
def submission_form() -> Group:
    """Return the form of a submission."""
    schema = Submission.model_json_schema()
    return _group("", "", schema, schema["$defs"])


def read_document(form: Form) -> dict[str, Any]:
    """Return the submission that a form holds, unchecked."""
    document: dict[str, Any] = submission_form().read(form)
    return document


def write_form(document: Mapping[str, Any]) -> Form:
    """Return a form that holds a submission; what the submission lacks is as by default.

    `SeveralLinesError` for one that no form can hold.
    """
    form: Form = {}
    submission_form().write(document, form)
    return form


def _node(name: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Node:
    resolved, key = _resolve(schema, definitions)
    kinds = resolved.get("anyOf") or resolved.get("oneOf")
    label, words = _label(name), _first_sentence(resolved.get("description", ""))
    if kinds:
        present = [kind for kind in kinds if kind.get("type") != "null"]
        optional = len(present) < len(kinds)
        if len(present) > 1 or "$ref" in present[0]:
            return _choice(name, label, words, present, definitions, optional=optional)
        resolved = {**present[0], **resolved}
        return _simple(name, label, words, resolved, optional=optional)
    if resolved.get("type") == "object":
        return _group(name, key, resolved, definitions)
    return _simple(name, label, words, resolved, optional=False)


def _choice(
    name: str,
    label: str,
    words: str,
    kinds: Sequence[Mapping[str, Any]],
    definitions: Mapping[str, Any],
    *,
    optional: bool,
) -> Choice:
    nodes: dict[str, Node | None] = {NONE: None} if optional else {}
    for kind in kinds:
        resolved, key = _resolve(kind, definitions)
        key = key or PLAIN
        nodes[key] = (
            _group(f"{name}{KIND_MARK}{key}", key, resolved, definitions)
            if resolved.get("type") == "object"
            else _simple(f"{name}{KIND_MARK}{key}", _label(key), "", resolved, optional=False)
        )
    return Choice(name, label, words, nodes)


def _group(name: str, key: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Group:
    fields = schema.get("properties", {})
    children = [
        _node(f"{name}.{field}" if name else field, field_schema, definitions)
        for field, field_schema in fields.items()
    ]
    children.sort(key=lambda child: isinstance(child, Lines))  # what takes much room comes last
    defaults = {field: field_schema.get("default") for field, field_schema in fields.items()}
    label = KIND_LABELS.get(key) or _label(name)
    return Group(name, label, _first_sentence(schema.get("description", "")), key, children, defaults)


def _simple(name: str, label: str, words: str, schema: Mapping[str, Any], *, optional: bool) -> Node:
    kind = schema.get("type")
    if "const" in schema:
        return Constant(name, label, words, schema["const"])
    if "enum" in schema:
        return Select(name, label, words, schema["enum"], optional)
    if kind == "boolean":
        return Flag(name, label, words)
    if kind == "array":
        items = schema["items"]
        if "enum" in items:
            return Several(name, label, words, items["enum"])
        return Lines(name, label, words, items.get("type") == "integer")
    if schema.get("format") == "date-time":
        return Input(name, label, words, "moment", {})
    if kind in {"integer", "number"}:
        names = {"minimum": "min", "maximum": "max"}
        limits = {names[bound]: f"{schema[bound]:g}" for bound in names if bound in schema}
        return Input(name, label, words, kind, limits | {"step": "1" if kind == "integer" else "any"})
    return Input(name, label, words, "text", {})


def _resolve(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Follow a reference; what stands beside it counts more than what it leads to."""
    if "$ref" not in schema:
        return dict(schema), ""
    key = schema["$ref"].rpartition("/")[2]
    beside = {name: value for name, value in schema.items() if name != "$ref"}
    return {**definitions[key], **beside}, key


def _last(name: str) -> str:
    return re.sub(rf"{KIND_MARK}\w*$", "", name).rpartition(".")[2]


def _label(name: str) -> str:
    last = _last(name)
    return LABELS.get(name) or LABELS.get(last) or last.replace("_", " ").capitalize()


def _first_sentence(text: str) -> str:
    flat = " ".join(text.split())
    return re.split(r"(?<=[.;]) ", flat)[0].rstrip(";.") + "." if flat else ""
