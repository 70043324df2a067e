"""The model card of an exported student: what it is, what was measured, its use and its licence."""

from pathlib import Path
from typing import Any

from core.registry import TeacherInfo
from core.spec import DistillationSpec, student_name

COSTS = {
    "parameters": ("U-Net parameters", "{:,.0f}"),
    "gmacs": ("GMACs of one U-Net pass (linear and convolution)", "{:.2f}"),
    "milliseconds_per_picture": ("ms per picture", "{:.0f}"),
}
SCORES = {
    "frechet_distance": ("Fréchet distance", "{:.4f}"),
    "clip_score": ("CLIP score", "{:.4f}"),
    "nearest_top1": ("nearest reference is the named one", "{:.0%}"),
    "nearest_top5": ("named one is among the nearest five", "{:.0%}"),
}
SPLITS = {"drawn": "captions the teacher drew", "text_only": "captions seen as text only"}


def write_model_card(
    path: Path,
    teacher: TeacherInfo,
    spec: DistillationSpec,
    values: dict[str, Any],
    grid: str,
    licences: list[str],
) -> None:
    """Write the card.

    Parameters
    ----------
    path
        The card's file.
    teacher
        What the student was distilled from.
    spec
        The job.
    values
        What was measured.
    grid
        File name of the picture beside the card.
    licences
        File names of the teacher's licence texts beside the card.
    """
    name, training, captions = student_name(spec.student), spec.training, values["captions"]
    path.write_text(
        f"""---
library_name: diffusers
pipeline_tag: text-to-image
license: {teacher.licence or "other"}
base_model: {teacher.id}
tags: [distillation, random-conditioning]
---

# {name} of {teacher.id}

![teacher above, student below]({grid})

A {name} student of the text-to-image diffusion model `{teacher.id}`, made by distillation with random
conditioning: the teacher drew its own training pictures for {captions["drawn"]:,} of {captions["count"]:,}
captions, and the student met the others as text alone.

```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("path/of/this/folder")
pipeline("a prompt", guidance_scale={spec.evaluation.guidance_scale:g}).images[0]
```

## Measured

{_table(values)}

{_explanation(values, spec)}

## Training

{training.steps:,} steps of {training.batch_size:,} samples, learning rate {training.learning_rate:g}, seed
{spec.seed}, replacement schedule {spec.method.random_conditioning.schedule}. The averaged weights were
measured and saved. `manifest.json` holds the whole specification and the hash of every file.

## Licence

{_licence(teacher, licences)}
""",
        encoding="utf-8",
    )


def _table(values: dict[str, Any]) -> str:
    rows = ["| | teacher | student |", "|---|---|---|"]
    rows += [
        f"| {label} | {form.format(values['teacher'][key])} | {form.format(values['student'][key])} |"
        for key, (label, form) in COSTS.items()
    ]
    for split, described in SPLITS.items():
        scores = values.get(split, {"teacher": {}, "student": {}})
        rows += [
            f"| {label}, {described} | {form.format(theirs)} | {form.format(scores['student'][key])} |"
            for key, (label, form) in SCORES.items()
            if (theirs := scores["teacher"].get(key)) is not None
        ]
    return "\n".join(rows)


def _explanation(values: dict[str, Any], spec: DistillationSpec) -> str:
    drawing = (
        f"Pictures were drawn one at a time for the times, with {spec.evaluation.sampler}, "
        f"{spec.evaluation.steps} steps, guidance {spec.evaluation.guidance_scale:g}."
    )
    if not any(split in values for split in SPLITS):
        return f"{drawing} The teacher comes with no evaluation CLIP, so pictures were not judged."
    return (
        f"{drawing} The teacher's evaluation CLIP judged {spec.evaluation.samples} pictures of each model "
        "and kind of caption. The Fréchet distance is to the teacher's drawings of the same captions from "
        "other seeds, in unit embeddings; it depends on the number of pictures, so compare it within this "
        "table only. Of costs and distances the lower is better, of all else the higher."
    )


def _licence(teacher: TeacherInfo, licences: list[str]) -> str:
    named = f"The teacher's licence is {teacher.licence}. " if teacher.licence else ""
    if not licences:
        return f"{named}Its folder holds no licence text: find out its terms before you pass this model on."
    files = ", ".join(f"[{name}]({name})" for name in licences)
    return f"{named}A distilled student is a derivative of its teacher: the terms in {files} hold for it too."
