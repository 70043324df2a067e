"""What is compared with what: every experiment as a set of job specifications that differ in one thing.

References
----------
Kim et al., "Random Conditioning for Diffusion Model Compression with Distillation", CVPR 2025.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from core.students import PRESETS

WEIGHTS = Path(__file__).parents[2] / "teachers" / "emoji_64" / "weights"
HELD_OUT_CATEGORY = "Animals & Nature"
FULL_STEPS = 20
FEWER_STEPS = (12, 5)  # 40 % fewer, and a quarter
# The many jobs of the experiments that compare parts with each other are a third as long.
LONG, SHORT = {"training": {"steps": 1_200}}, {"training": {"steps": 400}}

WITH, WITHOUT = "with random conditioning", "without"

BASE: dict[str, Any] = {
    "teacher": "emoji-64",
    "student": "b-small",
    "captions": {"kind": "bundled", "name": "emoji-64"},
    "drawn": {"count": 200},
    "latents": {"sampler": "dpm-solver++", "steps": FULL_STEPS, "guidance_scale": 3.0, "batch_size": 32},
    "training": {
        "batch_size": 64,
        "learning_rate": 5e-4,
        "warmup_steps": 50,
        "learning_rate_schedule": "cosine",
        "ema_decay": 0.995,
        "checkpoint_every": 100,
        "sample_every": 400,
    },
    "evaluation": {"samples": 256, "steps": FULL_STEPS, "guidance_scale": 3.0, "batch_size": 32},
    "export": {"variants": [], "single_file": False},
}


@dataclass(frozen=True)
class Experiment:
    """One question put to the method.

    Attributes
    ----------
    name
        How it is called on the command line, and its results' file name.
    question
        What it asks, in a sentence.
    split
        The captions that its answer is read from.
    specs
        The jobs to run, by label.
    axis
        What the jobs differ in where that is a number, to be plotted against; None for a comparison.
    compared
        Which of the jobs is held against which other with the same seed.
    """

    name: str
    question: str
    split: Literal["drawn", "text_only", "held_out"]
    specs: Mapping[str, Mapping[str, Any]]
    axis: Literal["drawn pictures", "parameters", "U-Net calls"] | None = None
    compared: Mapping[str, str] = field(default_factory=dict)


def every_experiment() -> dict[str, Experiment]:
    """Return the experiments by name."""
    experiments = [unseen_concepts(), whole_set(), fewer_steps(), drawn_pictures(), ablation(), sizes()]
    return {experiment.name: experiment for experiment in experiments}


def unseen_concepts() -> Experiment:
    """Hold every animal and plant out of the drawn captions."""
    drawn = {"count": 200, "hold_out": names_of(HELD_OUT_CATEGORY)}
    return Experiment(
        "unseen-concepts",
        "Does the student learn concepts that were never drawn for it?",
        "held_out",
        with_and_without({**LONG, "drawn": drawn}),
        compared={WITH: WITHOUT},
    )


def whole_set() -> Experiment:
    """Draw few captions of the whole set."""
    return Experiment(
        "whole-set",
        "Do text-only captions help where only a few of the whole set are drawn?",
        "text_only",
        with_and_without(LONG),
        compared={WITH: WITHOUT},
    )


def fewer_steps() -> Experiment:
    """Transfer the student to fewer sampler steps, and draw with the untransferred one in as few."""
    more_steps = {**LONG, "evaluation": {"more_steps": list(FEWER_STEPS)}}
    transfer = {
        "start_steps": FULL_STEPS,
        "guidance_scale": 3.0,
        "training_steps": 400,
        "learning_rate": 3e-4,
    }
    transferred = {
        f"transferred to {steps} steps": changed({**LONG, "few_step": {**transfer, "steps": steps}})
        for steps in FEWER_STEPS
    }
    return Experiment(
        "fewer-steps",
        "What does a picture cost after few-step transfer?",
        "drawn",
        {"distilled": changed(more_steps), **transferred},
        axis="U-Net calls",
        compared=dict.fromkeys(transferred, "distilled"),
    )


def drawn_pictures() -> Experiment:
    """Draw more and more captions, with and without random conditioning."""
    counts = (50, 100, 200, 400, 800)
    return Experiment(
        "drawn-pictures",
        "How few drawn pictures suffice?",
        "text_only",
        {
            f"{count} drawn, {label}": spec
            for count in counts
            for label, spec in with_and_without({**SHORT, "drawn": {"count": count}}).items()
        },
        axis="drawn pictures",
        compared={f"{count} drawn, {WITH}": f"{count} drawn, {WITHOUT}" for count in counts},
    )


def ablation() -> Experiment:
    """Change one part of the method at a time."""
    schedules = ("sigmoid", "two-sided", "quadratic", "constant", "off")
    features = {
        "no features": {"weight": 0},
        "published sum of features": {"weight": 1, "normalisation": "none"},
        "and cross-attention features": {"cross_attention": True},
        "and direction of features": {"cross_attention": True, "direction_weight": 0.1},
    }
    default = "the default"
    specs = {
        **{
            f"schedule {name}": changed({**SHORT, "method": {"random_conditioning": {"schedule": name}}})
            for name in schedules
        },
        **{label: changed({**SHORT, "method": {"features": value}}) for label, value in features.items()},
        **{f"{k} visited states": changed({**SHORT, "method": {"noise_matching_steps": k}}) for k in (2, 3)},
    }
    return Experiment(
        "ablation",
        "Which part of the method does what?",
        "text_only",
        {default: changed(SHORT), **specs},
        compared=dict.fromkeys(specs, default),
    )


def sizes() -> Experiment:
    """Distil every student; the width students from sliced and from random weights."""
    specs = {name: changed({**SHORT, "student": name}) for name in PRESETS if name.startswith("b-")}
    compared = {}
    for name, rule in PRESETS.items():
        if name.startswith("c-"):
            width = {"width": rule.width}
            specs[f"{name}, sliced"] = changed({**SHORT, "student": width | {"initialisation": "sliced"}})
            specs[f"{name}, random"] = changed({**SHORT, "student": width | {"initialisation": "random"}})
            compared[f"{name}, sliced"] = f"{name}, random"
    return Experiment(
        "sizes",
        "What does each size cost in quality?",
        "text_only",
        specs,
        axis="parameters",
        compared=compared,
    )


def with_and_without(changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the base specification with these changes, with and without random conditioning."""
    off = {"method": {"random_conditioning": {"schedule": "off"}}}
    return {
        WITH: changed(changes),
        WITHOUT: changed({**changes, **off}),
    }


def changed(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base specification with `changes` laid over it, object by object."""
    return _overlaid(deepcopy(BASE), changes)


def names_of(category: str) -> list[str]:
    """Return every name of the teacher's concepts of one category."""
    concepts = json.loads((WEIGHTS / "references.json").read_text(encoding="utf-8"))
    return [name for concept in concepts if concept["category"] == category for name in concept["captions"]]


def _overlaid(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict) and key != "drawn":
            _overlaid(base[key], value)
        else:
            base[key] = deepcopy(value)
    return base
