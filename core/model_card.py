"""The model card of an exported student: what it is, what was measured, its use and its licence."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from core.spec import DistillationSpec
from core.teacher_folder import TeacherInfo

COSTS = {
    "parameters": ("U-Net parameters", "{:,.0f}"),
    "gmacs": ("GMACs of one U-Net pass (linear and convolution)", "{:.2f}"),
    "milliseconds_per_picture": ("ms per picture", "{:.0f}"),
    "peak_memory_bytes": ("bytes of memory for a picture", "{:,}"),
}
SCORES = {
    "frechet_distance": ("Fréchet distance", "{:.4g}"),
    "kid": ("KID", "{:.4g}"),
    "cmmd": ("CMMD", "{:.4g}"),
    "clip_score": ("CLIP score", "{:.4f}"),
    "inception_score": ("Inception score", "{:.3g}"),
    "precision": ("precision", "{:.2f}"),
    "recall": ("recall", "{:.2f}"),
    "nearest_top1": ("nearest reference is the named one", "{:.0%}"),
    "nearest_top5": ("named one is among the nearest five", "{:.0%}"),
}
SPLITS = {
    "drawn": "captions the teacher drew",
    "text_only": "captions seen as text only",
    "held_out": "captions held out of the drawing",
}
NO_MID_BLOCK = (
    "the student has no mid block: diffusers draws with it, some other tools take a mid block for granted "
    "and refuse it"
)


def write_model_card(
    path: Path,
    teacher: TeacherInfo,
    spec: DistillationSpec,
    values: dict[str, Any],
    grid: str,
    licences: list[str],
    has_mid_block: bool,
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
    has_mid_block
        Whether the student's U-Net has one; some tools need it.
    """
    name, training, captions = values["student"]["name"], spec.training, values["captions"]
    path.write_text(
        f"""---
{_front_matter(teacher)}
---

# {name} of {teacher.id}

![teacher above, student below]({grid})

A {name} student of the text-to-image diffusion model `{teacher.id}`, made by distillation with random
conditioning: the teacher drew its own training pictures for {captions["drawn"]:,} of {captions["count"]:,}
captions, and the student met the others as text alone.

{_usage(spec, has_mid_block)}

## Measured

{_table(values)}

{_explanation(values, spec)}
{_steps_table(values)}
## Training

{training.steps:,} steps of {training.batch_size:,} samples, learning rate {training.learning_rate:g}, seed
{spec.seed}, replacement schedule {spec.method.random_conditioning.schedule}.{_transfer(spec)}
The averaged weights were measured and saved. `manifest.json` holds the whole specification and the
hash of every file, which `condenser verify` checks.

## Licence

{_licence(teacher, licences)}
""",
        encoding="utf-8",
    )


def _front_matter(teacher: TeacherInfo) -> str:
    """Return what the Hub reads of a card."""
    data = ModelCardData(
        library_name="diffusers",
        pipeline_tag="text-to-image",
        license="other" if teacher.licence_is_other else teacher.licence or "other",
        license_name=teacher.licence if teacher.licence_is_other else None,
        base_model=teacher.id,
        tags=["distillation", "random-conditioning"],
    )
    return str(data.to_yaml())


def _usage(spec: DistillationSpec, has_mid_block: bool) -> str:
    lines = [
        "```python",
        "from diffusers import DiffusionPipeline",
        "",
        'pipeline = DiffusionPipeline.from_pretrained("path/of/this/folder")',
        f'pipeline("a prompt", {_arguments(spec)}).images[0]',
        "```",
    ]
    notes = []
    if spec.export.variants:
        named = " or ".join(f'`variant="{variant}"`' for variant in spec.export.variants)
        notes.append(f"{named} loads the U-Net in half precision.")
    if spec.export.single_file:
        notes.append("`unet.fp16.safetensors` is the U-Net alone, under the names that other tools read.")
    if not has_mid_block:
        notes.append(f"Note that {NO_MID_BLOCK}.")
    return "\n".join([*lines, "", *notes])


def _arguments(spec: DistillationSpec) -> str:
    """Return what the student is drawn with; a few-step student needs its own number of steps."""
    drawing = spec.student_drawing
    steps = f"num_inference_steps={drawing.steps}, " if spec.few_step else ""
    return f"{steps}guidance_scale={drawing.guidance_scale:g}"


def _table(values: dict[str, Any]) -> str:
    rows = ["| | teacher | student |", "|---|---|---|"]
    rows += [
        f"| {label} | {form.format(values['teacher'][key])} | {form.format(values['student'][key])} |"
        for key, (label, form) in COSTS.items()
        if key in values["teacher"]
    ]
    for split, described in SPLITS.items():
        if split in values:
            rows += [
                f"| {label}, {described} | {_cell(values[split], 'teacher', key, form)} "
                f"| {_cell(values[split], 'student', key, form)} |"
                for key, (label, form) in SCORES.items()
                if key in values[split]["teacher"]
            ]
    return "\n".join(rows)


def _cell(scores: dict[str, Any], model: str, key: str, form: str) -> str:
    """Return a score and its interval."""
    interval = scores["intervals"][model].get(key)
    between = f" ({' to '.join(map(form.format, interval))})" if interval else ""
    return form.format(scores[model][key]) + between


def _steps_table(values: dict[str, Any]) -> str:
    """Return the Fréchet distances at all measured numbers of steps, if there are several."""
    measured = [(split, values[split]) for split in SPLITS if "by_steps" in values.get(split, {})]
    if not measured:
        return ""
    key, (label, form) = "frechet_distance", SCORES["frechet_distance"]
    rows = [f"\n| {label} | U-Net calls | teacher | U-Net calls | student |", "|---|---|---|---|---|"]
    for split, scores in measured:
        for steps, at_steps in scores["by_steps"].items():
            cells = [
                f"{at_steps['unet_calls'][model]} | {_cell(at_steps, model, key, form)}"
                for model in ("teacher", "student")
            ]
            rows.append(f"| {steps} steps, {SPLITS[split]} | {' | '.join(cells)} |")
    return "\n".join([*rows, ""])


def _transfer(spec: DistillationSpec) -> str:
    """Return what came after the distillation, if anything did."""
    transfer = spec.few_step
    if transfer is None:
        return ""
    rounds = [f"to {steps} steps" if steps else "guidance folded in" for steps in transfer.rounds]
    return (
        f"\nThen few-step transfer ({', '.join(rounds)}): {transfer.training_steps:,} steps a round, "
        f"learning rate {transfer.learning_rate:g}, "
        f"replacement schedule {transfer.random_conditioning.schedule}."
    )


def _explanation(values: dict[str, Any], spec: DistillationSpec) -> str:
    evaluation = spec.evaluation
    drawing = (
        f"Pictures were drawn one at a time for the times, with {evaluation.sampler}, "
        f"{evaluation.steps} steps, guidance {evaluation.guidance_scale:g}."
    )
    if spec.few_step:
        drawing += f" The student was drawn with its own {spec.few_step.steps} steps, without guidance."
    if not any(split in values for split in SPLITS):
        return f"{drawing} There was no CLIP to judge the pictures by."
    judge = {"clip": "A CLIP", "inception": "Inception"}[evaluation.features]
    intervals = (
        "In brackets is where 95 % of such measurements would lie, by bootstrap over the pictures. "
        if evaluation.bootstrap_resamples
        else ""
    )
    return (
        f"{drawing} {judge} judged {evaluation.samples} pictures of each model and kind of caption. "
        "Distances are to the teacher's drawings of the same captions from other seeds; they depend on the "
        f"number of pictures, so compare them within this table only. {intervals}"
        "Of costs and distances (Fréchet, KID, CMMD) the lower is better, of all else the higher."
    )


def _licence(teacher: TeacherInfo, licences: list[str]) -> str:
    named = f"The teacher's licence is {teacher.licence}. " if teacher.licence else ""
    if not licences:
        return f"{named}Its folder holds no licence text: find out its terms before you pass this model on."
    files = ", ".join(f"[{name}]({name})" for name in licences)
    return f"{named}A distilled student is a derivative of its teacher: the terms in {files} hold for it too."
