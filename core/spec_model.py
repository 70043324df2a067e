"""The base class of everything in a job's specification; free of torch."""

from pydantic import BaseModel, ConfigDict


class SpecModel(BaseModel):
    """A frozen model that refuses unknown fields, so that a misspelt knob is an error and not a no-op."""

    # Errors without the values at fault: they go into logs, and captions do not belong there.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)
