"""What clients send about jobs: a submission, and a clone's changes to another job's submission."""

from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError

from core.spec import DistillationSpec
from store.job_options import JobOptions


class Submission(DistillationSpec):
    """A specification, and how the job is to be treated."""

    options: JobOptions = Field(default=JobOptions(), description="Not part of the specification.")

    @property
    def spec(self) -> DistillationSpec:
        """The specification alone; what the request left out counts as left out."""
        fields = {name: getattr(self, name) for name in DistillationSpec.model_fields}
        return DistillationSpec.model_construct(_fields_set=self.model_fields_set - {"options"}, **fields)


def changed_submission(
    spec: Mapping[str, Any], options: JobOptions, changes: Mapping[str, Any]
) -> Submission:
    """Make the submission of a clone.

    Parameters
    ----------
    spec, options
        Those of the job to clone.
    changes
        Fields of a submission. A group of fields, such as ``training``, is changed field by field; whatever
        comes in several kinds, such as ``captions``, is replaced.

    Raises
    ------
    RequestValidationError
        It names the fields at fault.
    """
    return read_submission(_merged(Submission, {**spec, "options": options.model_dump(mode="json")}, changes))


def read_submission(document: Mapping[str, Any]) -> Submission:
    """Read a submission that did not come as a request's body; `RequestValidationError` as if it had."""
    try:
        return Submission.model_validate(document)
    except ValidationError as error:
        located = [{**entry, "loc": ("body", *entry["loc"])} for entry in error.errors(include_url=False)]
        raise RequestValidationError(located, body=document) from error


def _merged(model: type[BaseModel], base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    whole = dict(base)
    for name, value in changes.items():
        field = model.model_fields.get(name)
        group: Any = field.annotation if field is not None else None
        is_group = isinstance(group, type) and issubclass(group, BaseModel)
        if is_group and isinstance(value, dict) and isinstance(whole.get(name), dict):
            value = _merged(group, whole[name], value)
        whole[name] = value
    return whole
