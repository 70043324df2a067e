"""From pydantic's validation errors to the fields at fault, in the names that the client used.

Pydantic reports every branch of a union and puts the branch's name into the location. A client knows
neither: here each error gets the path of the field in the request, and of a union's branches only the one
that the client most likely meant is kept. Values that the client sent are never echoed.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field

from api.jobs.requests import Submission

MAX_REPORTED_ERRORS = 20
MAX_FIELD_CHARACTERS = 200
MAX_MESSAGE_CHARACTERS = 500

Location = tuple[int | str, ...]


class FieldError(BaseModel):
    """One field at fault, and what it may hold."""

    field: str = Field(description="Path of the field in the request, or the name of a header or parameter.")
    message: str
    allowed: list[str] | None = Field(default=None, description="The values, or bounds, that are allowed.")


def explain_validation_error(
    error: RequestValidationError, body_model: type[BaseModel] = Submission
) -> list[FieldError]:
    """Name the fields at fault, each with its allowed values where they can be listed.

    Parameters
    ----------
    error
        What pydantic found.
    body_model
        The shape that the request's body should have.
    """
    located = [(entry, *_field_and_branch(entry, error.body)) for entry in error.errors()]
    kept = _likeliest_branches(located)
    return [
        FieldError(
            field=_dotted(_named_field(entry, field, body_model)),
            message=_message(entry),
            allowed=_allowed(entry, field, body_model),
        )
        for entry, field, _ in kept[:MAX_REPORTED_ERRORS]
    ]


Located = tuple[Mapping[str, Any], Location, tuple[Location, str] | None]


def _field_and_branch(entry: Mapping[str, Any], body: Any) -> tuple[Location, tuple[Location, str] | None]:
    """Split a location into the field's path and the union branch it went through, if any.

    A segment that the request's body does not hold is the name of a branch, unless it is the missing field.
    """
    source, *segments = entry["loc"]
    if source != "body":
        return tuple(segments) or (source,), None
    field: Location = ()
    branch: tuple[Location, str] | None = None
    cursor = body
    for position, segment in enumerate(segments):
        is_missing_field = entry["type"] == "missing" and position == len(segments) - 1
        if isinstance(cursor, dict) and segment in cursor:
            cursor = cursor[segment]
        elif isinstance(cursor, list) and isinstance(segment, int):
            cursor = cursor[segment] if segment < len(cursor) else None
        elif not is_missing_field:
            branch = branch or (field, str(segment))
            continue
        field = (*field, segment)
    return field, branch


def _likeliest_branches(located: Sequence[Located]) -> list[Located]:
    """Keep, of every union, the errors of the branch that fits the request best.

    A branch that refused the value as a whole fits worst; then count missing and unknown fields.
    """
    cost: dict[Location, dict[str, tuple[int, int]]] = {}
    for entry, field, branch in located:
        if branch is not None:
            union, name = branch
            whole, structural = cost.setdefault(union, {}).get(name, (0, 0))
            whole += field == union
            structural += entry["type"] in {"missing", "extra_forbidden"}
            cost[union][name] = (whole, structural)
    best = {union: min(branches, key=lambda name: branches[name]) for union, branches in cost.items()}
    return [item for item in located if item[2] is None or best[item[2][0]] == item[2][1]]


def _named_field(entry: Mapping[str, Any], field: Location, body_model: type[BaseModel]) -> Location:
    """Point at the very field where an error is reported for the whole object that holds it.

    A rule over several fields begins its message with the name of the one to change.
    """
    if entry["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        return (*field, "kind")
    first_word = _message(entry).partition(" ")[0]
    if entry["type"] == "value_error" and any(
        first_word in model.model_fields for model in _models_at(field, body_model)
    ):
        return (*field, first_word)
    return field


def _dotted(field: Location) -> str:
    return ".".join(str(segment) for segment in field)[:MAX_FIELD_CHARACTERS] or "body"


def _message(entry: Mapping[str, Any]) -> str:
    if entry["type"] == "extra_forbidden":
        return "There is no such field"
    if entry["type"] == "json_invalid":
        return f"The body is not valid JSON: {entry['ctx']['error']}"
    if entry["type"] == "union_tag_invalid":
        return "There is no such kind"
    if entry["type"] == "union_tag_not_found":
        return "Field required"
    return str(entry["msg"]).removeprefix("Value error, ")[:MAX_MESSAGE_CHARACTERS]


BOUNDS = {
    "ge": "at least {}",
    "gt": "greater than {}",
    "le": "at most {}",
    "lt": "less than {}",
    "min_length": "length of at least {}",
    "max_length": "length of at most {}",
}


def _allowed(entry: Mapping[str, Any], field: Location, body_model: type[BaseModel]) -> list[str] | None:
    context: Mapping[str, Any] = entry.get("ctx") or {}
    listed = context.get("expected_tags") or context.get("expected")
    if listed is not None:
        return re.findall(r"'([^']*)'", listed) or [str(listed)]
    if entry["type"] == "union_tag_not_found":
        return sorted(_tags(field, body_model))
    if entry["type"] == "extra_forbidden":
        return sorted(name for model in _models_at(field[:-1], body_model) for name in model.model_fields)
    if indivisible := re.search(r"does not divide batch_size (\d+)$", _message(entry)):
        return _divisors(int(indivisible[1]))
    return [text.format(context[bound]) for bound, text in BOUNDS.items() if bound in context] or None


def _divisors(batch_size: int) -> list[str]:
    return [str(divisor) for divisor in range(1, batch_size + 1) if batch_size % divisor == 0]


def _models_at(field: Location, body_model: type[BaseModel]) -> list[type[BaseModel]]:
    """The models that may stand at a path of a body."""
    models: list[type[BaseModel]] = [body_model]
    for segment in field:
        models = [
            nested
            for model in models
            if segment in model.model_fields
            for nested in _nested_models(model.model_fields[str(segment)].annotation)
        ]
    return models


def _nested_models(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _nested_models(argument)


def _tags(field: Location, body_model: type[BaseModel]) -> set[str]:
    return {
        str(tag)
        for model in _models_at(field, body_model)
        if "kind" in model.model_fields
        for tag in get_args(model.model_fields["kind"].annotation)
    }
