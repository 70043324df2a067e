"""The stages of a job, in order: captions, latents, training, evaluation, export.

Each stage leaves what it made in the job's folder, and takes up what an earlier run of the same job left
there.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from core.artist import Artist
from core.batches import BatchSource
from core.captions import CaptionSet, prepare_captions
from core.conditioning import replacement_probability
from core.embeddings import CaptionEmbeddings, captions_to_keep
from core.evaluation import evaluate
from core.events import EventWriter, Progress
from core.export import FOLDER, as_exported, export_student
from core.files import remove_leftovers, write_json
from core.latents import LatentSet, prepare_latents
from core.loop import train
from core.optimisation import choose_precision
from core.samples import SampleGrid, prepare_samples
from core.spec import DistillationSpec, DrawnByCount, derive_student, student_name
from core.stopping import StopRequest
from core.student_weights import build_student
from core.students import student_rule
from core.teacher import Teacher, load_teacher, resolve_teacher

RESULT_FILE = "result.json"


@dataclass(frozen=True)
class Job:
    """One job and where it works.

    Attributes
    ----------
    spec
        What to do.
    workdir
        Its own folder.
    teachers
        Folders of registered teachers.
    cache
        Folder of latents, shared between jobs.
    events
        Where it reports.
    stop
        Whether it has been asked to stop.
    """

    spec: DistillationSpec
    workdir: Path
    teachers: list[Path]
    cache: Path
    events: EventWriter
    stop: StopRequest


def run_job(job: Job) -> None:
    """Do the job's work, from wherever an earlier run of it stopped."""
    remove_leftovers(job.workdir)
    spec, events, stop = job.spec, job.events, job.stop
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    events.phase("captions")
    info = resolve_teacher(spec.teacher, job.teachers)
    student_config = derive_student(info.unet_config, spec.student)
    captions = prepare_captions(spec, job.workdir / "captions", job.teachers)
    Progress(events, "captions", "captions", len(captions)).report(len(captions))
    if isinstance(spec.drawn, DrawnByCount) and spec.drawn.count > len(captions):
        events.warning(f"there are only {len(captions)} captions: the teacher draws all of them")

    events.phase("latents")
    teacher = load_teacher(info, device, choose_precision(spec.training, device))
    latents = prepare_latents(teacher, captions, spec.latents, spec.seed, job.cache, events, stop)

    events.phase("training")
    samples = prepare_samples(Artist(teacher, teacher.unet, spec.evaluation), captions, spec)
    student = build_student(student_config, student_rule(spec.student), teacher.unet, spec.seed)
    student = _train(job, teacher, student, captions, latents, samples)

    events.phase("evaluation")
    student = as_exported(student, teacher)
    values = _evaluate(job, teacher, student, captions)

    events.phase("export")
    _export(job, teacher, student, captions, samples, values)
    events.write("artifact", path=FOLDER)
    events.write("result", values=values)


def _train(
    job: Job,
    teacher: Teacher,
    student: UNet2DConditionModel,
    captions: CaptionSet,
    latents: LatentSet,
    samples: SampleGrid,
) -> UNet2DConditionModel:
    spec = job.spec
    timesteps = len(teacher.noise_schedule())
    batches = BatchSource(
        latents=latents,
        embeddings=_embed_captions(spec, teacher, captions, timesteps),
        caption_count=len(captions),
        method=spec.method,
        timesteps=timesteps,
        seed=spec.seed,
        device=teacher.device,
    )

    def draw_samples(average: UNet2DConditionModel, step: int) -> None:
        artist = Artist(teacher, average, spec.evaluation)
        samples.save_sample(artist, step, job.workdir / "samples", job.events)

    return train(
        teacher,
        student,
        batches,
        spec,
        job.workdir / "checkpoints",
        draw_samples,
        job.events,
        job.stop,
    )


def _embed_captions(
    spec: DistillationSpec, teacher: Teacher, captions: CaptionSet, timesteps: int
) -> CaptionEmbeddings:
    blank = teacher.encode([""])
    u = torch.arange(timesteps) / timesteps
    replaced = replacement_probability(spec.method.random_conditioning, u).mean().item()
    replacements = replaced * spec.training.steps * spec.training.batch_size
    kept = captions_to_keep(captions, blank.numel() * blank.element_size(), replacements)
    return CaptionEmbeddings(teacher, captions, kept)


def _evaluate(
    job: Job, teacher: Teacher, student: UNet2DConditionModel, captions: CaptionSet
) -> dict[str, Any]:
    result = job.workdir / RESULT_FILE
    if result.exists():
        return json.loads(result.read_text(encoding="utf-8"))
    values = evaluate(
        Artist(teacher, teacher.unet, job.spec.evaluation),
        Artist(teacher, student, job.spec.evaluation),
        captions,
        job.spec.seed,
        job.events,
        job.stop,
    )
    values["teacher"].update(id=teacher.info.id, revision=teacher.info.revision)
    values["student"].update(name=student_name(job.spec.student))
    values["captions"] = {
        "count": len(captions),
        "drawn": len(captions.drawn),
        "sha256": captions.content_hash,
    }
    values["training"] = {
        "steps": job.spec.training.steps,
        "samples": job.spec.training.steps * job.spec.training.batch_size,
    }
    write_json(result, values)
    return values


def _export(
    job: Job,
    teacher: Teacher,
    student: UNet2DConditionModel,
    captions: CaptionSet,
    samples: SampleGrid,
    values: dict[str, Any],
) -> None:
    grid = job.workdir / "samples" / "final.png"
    teacher_cost, student_cost = values["teacher"], values["student"]
    samples.save(
        Artist(teacher, student, job.spec.evaluation),
        grid,
        (_label("teacher", teacher_cost), _label(values["student"]["name"], student_cost)),
        title=f"{teacher.info.id} and its student {values['student']['name']}: same prompts, same seeds",
    )
    folder = export_student(student, teacher, captions, job.spec, values, grid, job.workdir)
    if not any(folder.glob("LICEN[CS]E*")):
        job.events.warning(
            "the teacher's folder holds no licence text; find out its terms before passing the student on"
        )


def _label(name: str, cost: dict[str, Any]) -> str:
    return f"{name}\n{cost['parameters'] / 1e6:.1f}M\n{cost['milliseconds_per_picture']:.0f} ms/picture"
