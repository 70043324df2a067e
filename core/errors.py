"""The errors that a job can end with, each with the reason code that its ``failed`` event carries.

An error's message says what is wrong in the user's own terms; its hint says what to do about it. This module
is free of torch, because the API process raises some of these errors too.
"""

from typing import ClassVar, Literal

FailureReason = Literal[
    "bad_teacher", "bad_captions", "out_of_memory", "diverged", "storage_full", "internal_error"
]


class CoreError(Exception):
    """An error that ends a job for a reason its user can read.

    Parameters
    ----------
    message
        What is wrong.
    hint
        What to do about it.
    """

    reason: ClassVar[FailureReason] = "internal_error"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UnexpectedError(CoreError):
    """An error that nobody foresaw, wrapped: a fault of ours or of the machine, or another rank's death."""


class AcceleratorLostError(UnexpectedError):
    """The job is to run on an accelerator, and there is none: on the processor it would take for ever."""

    def __init__(self) -> None:
        super().__init__(
            "this machine's accelerator is gone, or its driver does not fit the installed torch (a worker "
            "with an empty CUDA_VISIBLE_DEVICES trains on the processor)",
            "look at nvidia-smi and restart the worker",
        )


class BadTeacherError(CoreError):
    """The teacher cannot be read, or is of a kind that cannot be distilled."""

    reason = "bad_teacher"


class UnknownTeacherError(BadTeacherError):
    """No teacher of that id is registered.

    Parameters
    ----------
    teacher_id
        The id that was asked for.
    known
        The ids that are registered.
    """

    def __init__(self, teacher_id: str, known: list[str]) -> None:
        names = ", ".join(known) if known else "none"
        super().__init__(f"no teacher {teacher_id!r} is registered", f"registered teachers: {names}")
        self.teacher_id = teacher_id
        self.known = known


class InvalidStudentError(BadTeacherError):
    """The student that was asked for cannot be derived from this teacher.

    Parameters
    ----------
    field
        Path of the specification's field at fault, such as ``student.width``.
    value
        The value given there.
    allowed
        Values that would do; for a width, the nearest ones.
    message
        What is wrong.
    """

    def __init__(self, field: str, value: str | float, allowed: list[str], message: str) -> None:
        super().__init__(message, f"allowed: {', '.join(allowed)}" if allowed else "")
        self.field = field
        self.value = value
        self.allowed = allowed


class BadCaptionsError(CoreError):
    """The captions cannot be read, or there are none."""

    reason = "bad_captions"


class OutOfMemoryError(CoreError):
    """The machine's or the accelerator's memory is used up."""

    reason = "out_of_memory"


class DivergedError(CoreError):
    """The loss exploded or is no longer a finite number, also at a lower learning rate."""

    reason = "diverged"


class StorageFullError(CoreError):
    """The disk is full."""

    reason = "storage_full"
