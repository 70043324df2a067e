"""Which student a job trains: the one it names, or the largest of its teacher's that keeps within a budget.

The search goes over every rule of the teacher's family: all presets that fit, and all widths. Counts come
from the configs alone; this module is free of torch.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from core.errors import InvalidStudentError
from core.students import (
    PRESETS,
    ComputeBudget,
    ExactStudent,
    ParameterBudget,
    Student,
    UNetConfig,
    WidthStudent,
    allowed_widths,
    derive_student,
    fitting_presets,
    student_name,
)
from core.teacher_folder import PROMPT_TOKENS
from core.unet_layout import unet_layout


@dataclass(frozen=True)
class Candidate:
    """A student with what it costs.

    Attributes
    ----------
    student
        The preset or width.
    parameters
        Of its U-Net.
    multiply_accumulates
        Of one pass of one picture through the U-Net's linear and convolution layers.
    """

    student: ExactStudent
    parameters: int
    multiply_accumulates: int

    def describe(self) -> dict[str, Any]:
        """Return it as a job's result shows it."""
        return {
            "name": student_name(self.student),
            "parameters": self.parameters,
            "gmacs": self.multiply_accumulates / 1e9,
        }


@dataclass(frozen=True)
class StudentChoice:
    """The student that a job trains.

    Attributes
    ----------
    student
        A preset or a width.
    config
        Its U-Net's config.
    candidates
        What it was chosen from, the largest first; empty where the job named it.
    """

    student: ExactStudent
    config: UNetConfig
    candidates: list[Candidate]

    def describe(self) -> dict[str, Any]:
        """Return it as a job's result shows it: its name, and what else the budget could have bought."""
        candidates = [candidate.describe() for candidate in self.candidates]
        return {"name": student_name(self.student)} | ({"candidates": candidates} if candidates else {})


def choose_student(
    unet_config: Mapping[str, Any], student: Student, prompt_tokens: int = PROMPT_TOKENS
) -> StudentChoice:
    """Return the student that a specification asks for.

    Parameters
    ----------
    unet_config
        The teacher's U-Net config.
    student
        A preset, a width, or a budget.
    prompt_tokens
        Length of the text condition, on which multiply-accumulates depend.

    Raises
    ------
    InvalidStudentError
        If the student does not fit the teacher, or no student keeps within the budget.
    """
    match student:
        case ParameterBudget(max_params=limit):
            return _largest_within(unet_config, "max_params", limit, prompt_tokens)
        case ComputeBudget(max_macs=limit):
            return _largest_within(unet_config, "max_macs", limit, prompt_tokens)
    return StudentChoice(student, derive_student(unet_config, student), candidates=[])


def list_candidates(unet_config: Mapping[str, Any], prompt_tokens: int = PROMPT_TOKENS) -> list[Candidate]:
    """Return every student smaller than the teacher, of more parameters first, then of more computation.

    A width that a preset has already is listed under the preset's name.
    """
    return list(_candidates(json.dumps(unet_config), prompt_tokens))


@lru_cache(maxsize=64)
def _candidates(unet_config_json: str, prompt_tokens: int) -> tuple[Candidate, ...]:
    unet_config = json.loads(unet_config_json)
    students: list[ExactStudent] = list(fitting_presets(unet_config))
    named = [PRESETS[preset].width for preset in fitting_presets(unet_config)]
    students += [
        WidthStudent(width=width)
        for width in allowed_widths(unet_config)
        if not any(math.isclose(width, other) for other in (1, *named))
    ]
    candidates = []
    for student in students:
        layout = unet_layout(derive_student(unet_config, student), prompt_tokens=prompt_tokens)
        candidates.append(Candidate(student, layout.parameters, layout.layer_multiply_accumulates))
    candidates.sort(key=lambda each: (each.parameters, each.multiply_accumulates), reverse=True)
    return tuple(candidates)


def _largest_within(
    unet_config: Mapping[str, Any], budget: str, limit: int, prompt_tokens: int
) -> StudentChoice:
    candidates = list_candidates(unet_config, prompt_tokens)
    costs = [each.parameters if budget == "max_params" else each.multiply_accumulates for each in candidates]
    for candidate, cost in zip(candidates, costs, strict=True):
        if cost <= limit:
            config = derive_student(unet_config, candidate.student)
            return StudentChoice(candidate.student, config, candidates)
    raise InvalidStudentError(
        f"student.{budget}",
        limit,
        [f"{min(costs)} or more"] if costs else [],
        f"no student of this teacher keeps within {limit:,}",
    )
