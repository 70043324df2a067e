"""Few-step transfer: what can be asked for, and the rounds that it is made of; free of torch."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from core.method_spec import RandomConditioningSpec
from core.spec_model import SpecModel

TIMESTEPS = 1_000


class FewStepSpec(SpecModel):
    """Teaching the distilled student to draw in few sampler steps and without guidance.

    First guidance is folded in: without it the student learns to predict what its teacher predicts with it.
    Then rounds, each with its own share of `training_steps`, take it from `start_steps` to `steps`. What is
    not said here, such as the batch size, is as in ``training``.
    """

    steps: int = Field(default=5, ge=1, le=125, description="N', the sampler steps of the final student.")
    start_steps: int = Field(
        default=20, ge=2, le=250, description="N, the sampler steps that draw well before the first round."
    )
    guidance_scale: float = Field(
        default=7.5, ge=1, le=30, description="The guidance that is folded in; 1 for none, and no such round."
    )
    training_steps: int = Field(
        default=5_000, ge=1, le=10_000_000, description="Optimiser steps of each round."
    )
    learning_rate: float = Field(default=1e-5, gt=0, le=1)
    learning_rate_schedule: Literal["constant", "cosine"] = Field(
        default="cosine", description="Over each round, from the learning rate on."
    )
    random_conditioning: RandomConditioningSpec = Field(
        default=RandomConditioningSpec(schedule="constant"),
        description="Of all rounds, in place of method.random_conditioning: the exponential schedule loses "
        "more of what was learned of captions that are only read.",
    )

    @model_validator(mode="after")
    def _steps_become_fewer(self) -> Self:
        if self.steps >= self.start_steps:
            raise ValueError(f"steps {self.steps} must be below start_steps {self.start_steps}")
        return self

    @model_validator(mode="after")
    def _every_round_can_be_drawn(self) -> Self:
        for steps in halving_rounds(self.start_steps, self.steps):
            if oversteps(steps):
                raise ValueError(
                    f"a round of this transfer leads to {steps} sampler steps, of which diffusers' DDIM "
                    "scheduler makes one too many by a rounding error: choose other steps or start_steps"
                )
        return self

    @property
    def rounds(self) -> list[int | None]:
        """The sampler steps that each round leads to, in order; None for the one that folds guidance in."""
        folding = [None] if self.guidance_scale > 1 else []
        return [*folding, *halving_rounds(self.start_steps, self.steps)]


def oversteps(steps: int) -> bool:
    """Return whether diffusers' DDIM scheduler with trailing timesteps makes a step more than asked for.

    It lists its timesteps by ``numpy.arange(timesteps, 0, -timesteps / steps)``, whose length is rounded up
    from a quotient that may come out just above `steps`. The last timestep is then -1, and the step from it
    destroys the picture. Every published teacher of the families has 1,000 timesteps.
    """
    return math.ceil(TIMESTEPS / (TIMESTEPS / steps)) > steps


def halving_rounds(start_steps: int, steps: int) -> list[int]:
    """Return the sampler steps after each round of a transfer from `start_steps` to `steps`.

    There are as few rounds as there can be when none more than halves the steps, and all take them down by
    about the same factor: from 20 to 12 in one round, from 20 to 5 by way of 10, from 50 to 6 by way of 30,
    18 and 11.
    """
    count = math.ceil(math.log2(start_steps / steps))
    factor = (start_steps / steps) ** (1 / count)
    # Whole powers may come out a rounding error above themselves.
    return [math.ceil(steps * factor**left - 1e-9) for left in range(count - 1, -1, -1)]
