"""What the trainer says, read from its ``events.jsonl`` while it writes it.

The reader never trusts a line further than its schema: text that Postgres cannot hold is replaced, a line of
an unknown kind is passed over, an incomplete last line waits for its rest.
"""

import json
import logging
import math
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from store.models import Phase

logger = logging.getLogger(__name__)

TrainerReason = Literal[
    "bad_teacher", "bad_captions", "out_of_memory", "diverged", "storage_full", "internal_error"
]


def _stays_inside(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise ValueError("the path leaves the work folder")
    return str(parts)


InnerPath = Annotated[str, AfterValidator(_stays_inside)]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class PhaseEvent(_Event):
    """A stage begins."""

    type: Literal["phase"]
    phase: Phase


class ProgressEvent(_Event):
    """Units of a stage are done."""

    type: Literal["progress"]
    phase: Phase
    done: int = Field(ge=0)
    total: int = Field(ge=0)
    unit: str
    eta_seconds: float | None = None


class CaptionsEvent(_Event):
    """The caption set is complete: how many captions there are of each kind, and what was dropped and why."""

    type: Literal["captions"]
    count: int = Field(ge=0)
    drawn: int = Field(ge=0)
    text_only: int = Field(ge=0)
    held_out: int = Field(ge=0)
    report: dict[str, Any]


class MetricsEvent(_Event):
    """Values of a training step; None stands for a value that is no number."""

    type: Literal["metrics"]
    step: int = Field(ge=0)
    values: dict[str, float | None]


class CheckpointEvent(_Event):
    """A complete checkpoint lies in the work folder."""

    type: Literal["checkpoint"]
    step: int = Field(ge=0)
    path: InnerPath


class SampleEvent(_Event):
    """A picture lies in the work folder."""

    type: Literal["sample"]
    step: int = Field(ge=0)
    path: InnerPath
    prompts: list[str] = []


class ArtifactEvent(_Event):
    """The exported student is complete."""

    type: Literal["artifact"]
    path: InnerPath


class WarningEvent(_Event):
    """Something that the user should know."""

    type: Literal["warning"]
    message: str


class ResultEvent(_Event):
    """The measured result."""

    type: Literal["result"]
    values: dict[str, Any]


class FailedEvent(_Event):
    """The trainer gives up."""

    type: Literal["failed"]
    reason: TrainerReason
    message: str
    hint: str | None = None


TrainerEvent = Annotated[
    PhaseEvent
    | ProgressEvent
    | CaptionsEvent
    | MetricsEvent
    | CheckpointEvent
    | SampleEvent
    | ArtifactEvent
    | WarningEvent
    | ResultEvent
    | FailedEvent,
    Field(discriminator="type"),
]
# A refused line is logged without what it says: samples are told with their captions.
_ADAPTER: TypeAdapter[TrainerEvent] = TypeAdapter(TrainerEvent, config=ConfigDict(hide_input_in_errors=True))


class EventTail:
    """Reads the event file from where it stopped last.

    Attributes
    ----------
    position
        Byte after the last line read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.position = 0

    def read(self) -> list[TrainerEvent]:
        """Return the events of the lines completed since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self.position)
            whole_lines, newline, _ = file.read().rpartition(b"\n")
        self.position += len(whole_lines) + len(newline)
        events = [_parse(line) for line in whole_lines.split(b"\n") if line.strip()]
        return [event for event in events if event is not None]


def _parse(line: bytes) -> TrainerEvent | None:
    try:
        return _ADAPTER.validate_python(_storable(json.loads(line)))
    except (ValueError, ValidationError) as error:
        logger.warning("passed over a line of the trainer's events: %s", error)
        return None


def _storable(value: Any) -> Any:
    """Replace what JSON in Postgres cannot hold: NUL, lone surrogates, infinities and not-a-number."""
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_storable(entry) for entry in value]
    if isinstance(value, dict):
        return {_storable(key): _storable(entry) for key, entry in value.items()}
    return value
