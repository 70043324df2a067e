"""The base class of everything in a job's specification; free of torch."""

from pydantic import BaseModel, ConfigDict


class SpecModel(BaseModel):
    """A frozen model that refuses unknown fields, so that a misspelt knob is an error and not a no-op."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
