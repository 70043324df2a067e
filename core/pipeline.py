"""The stages of a job, in order: captions, latents, training, few-step transfer, evaluation, export.

Each stage leaves what it made in the job's folder, and takes up what an earlier run of the same job left
there.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from core.artist import Artist
from core.attention import attention_kernels
from core.batches import BatchSource
from core.captions import CaptionSet, prepare_captions, report_captions
from core.checkpoints import Origin, check_origin, checkpoint_scores, complete_checkpoints
from core.conditioning import replacement_probability
from core.embeddings import CaptionEmbeddings, captions_to_keep
from core.evaluation import Evaluation, evaluate
from core.events import EventWriter
from core.export import FOLDER, as_exported, export_student, export_warnings
from core.few_step import transfer
from core.files import remove_leftovers, write_json
from core.judges import check_judge
from core.latents import LatentSet, prepare_latents
from core.loop import train
from core.optimisation import EMULATED_BFLOAT16, choose_precision, emulates_bfloat16
from core.ranks import ALONE, Ranks
from core.samples import SampleGrid, prepare_samples
from core.spec import DistillationSpec, EvaluationSpec, FewStepSpec
from core.stopping import Stopped, StopRequest
from core.student_choice import StudentChoice, choose_student
from core.student_weights import build_student
from core.students import student_rule
from core.teacher import Teacher, load_teacher
from core.teacher_refs import resolve_teacher
from core.training_scores import TrainingScorer

RESULT_FILE = "result.json"
CHECKPOINTS = "checkpoints"


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
        Folder of what jobs on this machine share: latents, and judgements of pictures.
    events
        Where it reports.
    stop
        Whether it has been asked to stop.
    fetched_teacher, fetched_captions
        The folder and the file that the specification's teacher and captions were fetched into, where they
        lie where core does not read.
    ranks
        This process among those that do the job together. All train; the first alone writes, evaluates and
        exports.
    """

    spec: DistillationSpec
    workdir: Path
    teachers: list[Path]
    cache: Path
    events: EventWriter
    stop: StopRequest
    fetched_teacher: Path | None = None
    fetched_captions: Path | None = None
    ranks: Ranks = ALONE


def run_job(job: Job) -> None:
    """Do the job's work, from wherever an earlier run of it stopped."""
    spec, events, ranks = job.spec, job.events, job.ranks
    if ranks.is_first:
        remove_leftovers(job.workdir)
    ranks.share(spec.training.batch_size)

    events.phase("captions")
    info = resolve_teacher(spec.teacher, job.teachers, job.fetched_teacher)
    choice = choose_student(info.unet_config, spec.student, info.prompt_tokens)
    if not ranks.is_first:
        ranks.wait()  # until the first has written them
    captions = prepare_captions(spec, job.workdir / "captions", job.teachers, job.fetched_captions, job.stop)
    if ranks.is_first:
        ranks.wait()
    report_captions(captions, spec, events)
    check_origin(job.workdir / CHECKPOINTS, Origin(captions.content_hash, info.revision))
    for warning in check_judge(info, spec.evaluation):
        events.warning(warning)

    events.phase("latents")
    precision = choose_precision(spec.training, ranks.device)
    if precision == torch.bfloat16 and emulates_bfloat16(ranks.device):
        events.warning(EMULATED_BFLOAT16)
    teacher = load_teacher(info, ranks.device, precision)
    with attention_kernels(teacher):
        _distil(job, teacher, choice, captions)


def _distil(job: Job, teacher: Teacher, choice: StudentChoice, captions: CaptionSet) -> None:
    """Do all that runs the teacher: the stages from the latents on."""
    spec, events = job.spec, job.events
    latents = prepare_latents(
        teacher, captions, spec.latents, spec.seed, job.cache, events, job.stop, job.ranks
    )

    events.phase("training")
    samples = prepare_samples(Artist(teacher, teacher.unet, spec.evaluation), captions, spec)
    student = build_student(choice.config, student_rule(choice.student), teacher.unet, spec.seed)
    batches = _make_batches(job, teacher, captions, latents)
    scorer = TrainingScorer(teacher, captions, spec, job.cache, events, job.stop)
    student = _train(job, teacher, student, batches, samples, scorer)

    if spec.few_step:
        events.phase("few_step")
        student = _transfer(job, spec.few_step, teacher, student, batches, samples, scorer)

    stopped = False
    if job.ranks.is_first:
        try:
            _evaluate_and_export(job, teacher, choice, student, captions, samples)
        except Stopped:
            stopped = True
    # The others wait: one that had ended could not be started again together with a first one that dies.
    if job.ranks.any(stopped):
        raise Stopped


def _evaluate_and_export(
    job: Job,
    teacher: Teacher,
    choice: StudentChoice,
    student: UNet2DConditionModel,
    captions: CaptionSet,
    samples: SampleGrid,
) -> None:
    job.events.phase("evaluation")
    student = as_exported(student, teacher)
    values = _evaluate(job, teacher, choice, student, captions)

    job.events.phase("export")
    _export(job, teacher, student, captions, samples, values)
    job.events.write("artifact", path=FOLDER)
    job.events.write("result", values=values)


def _make_batches(job: Job, teacher: Teacher, captions: CaptionSet, latents: LatentSet) -> BatchSource:
    timesteps = len(teacher.noise_schedule())
    return BatchSource(
        latents=latents,
        embeddings=_embed_captions(job.spec, teacher, captions, timesteps),
        caption_count=len(captions),
        method=job.spec.method,
        timesteps=timesteps,
        seed=job.spec.seed,
        device=teacher.device,
    )


def _train(
    job: Job,
    teacher: Teacher,
    student: UNet2DConditionModel,
    batches: BatchSource,
    samples: SampleGrid,
    scorer: TrainingScorer,
) -> UNet2DConditionModel:
    def draw_samples(average: UNet2DConditionModel, step: int) -> None:
        artist = Artist(teacher, average, job.spec.evaluation)
        samples.save_sample(artist, step, job.workdir / "samples", job.events)

    checkpoints = job.workdir / CHECKPOINTS
    return train(
        teacher,
        student,
        batches,
        job.spec,
        checkpoints,
        draw_samples,
        job.events,
        job.stop,
        job.ranks,
        partial(scorer.score, job.spec.evaluation),
    )


def _transfer(
    job: Job,
    few_step: FewStepSpec,
    teacher: Teacher,
    student: UNet2DConditionModel,
    batches: BatchSource,
    samples: SampleGrid,
    scorer: TrainingScorer,
) -> UNet2DConditionModel:
    def draw_samples(drawing: EvaluationSpec, average: UNet2DConditionModel, step: int) -> None:
        artist = Artist(teacher, average, drawing)
        samples.save_sample(artist, step, job.workdir / "samples", job.events)

    checkpoints = job.workdir / CHECKPOINTS
    return transfer(
        teacher,
        student,
        batches,
        job.spec,
        few_step,
        checkpoints,
        draw_samples,
        job.events,
        job.stop,
        job.ranks,
        scorer.score,
    )


def _embed_captions(
    spec: DistillationSpec, teacher: Teacher, captions: CaptionSet, timesteps: int
) -> CaptionEmbeddings:
    stages = [(spec.training.steps, spec.method.random_conditioning)]
    if spec.few_step:
        stages.append((spec.optimiser_steps - spec.training.steps, spec.few_step.random_conditioning))
    u = torch.arange(timesteps) / timesteps
    replaced = sum(steps * replacement_probability(how, u).mean().item() for steps, how in stages)
    replacements = replaced * spec.training.batch_size
    kept = captions_to_keep(captions, teacher.encode([""]).size_in_bytes, replacements)
    return CaptionEmbeddings(teacher, captions, kept)


def _evaluate(
    job: Job, teacher: Teacher, choice: StudentChoice, student: UNet2DConditionModel, captions: CaptionSet
) -> dict[str, Any]:
    result = job.workdir / RESULT_FILE
    if result.exists():
        return json.loads(result.read_text(encoding="utf-8"))
    evaluation = Evaluation(
        Artist(teacher, teacher.unet, job.spec.evaluation),
        Artist(teacher, student, job.spec.student_drawing),
        captions,
        job.spec.seed,
        job.cache,
    )
    values = evaluate(evaluation, job.events, job.stop)
    values["teacher"].update(id=teacher.info.id, revision=teacher.info.revision)
    values["student"].update(choice.describe())
    values["captions"] = {
        "count": len(captions),
        **captions.splits,
        "sha256": captions.content_hash,
        "report": captions.report,
    }
    values["training"] = {
        "steps": job.spec.training.steps,
        "samples": job.spec.training.steps * job.spec.training.batch_size,
        "scores": _training_scores(job),
    }
    if few_step := job.spec.few_step:
        values["few_step"] = {
            "steps": few_step.steps,
            "rounds": few_step.rounds,
            "training_steps": len(few_step.rounds) * few_step.training_steps,
        }
    write_json(result, values)
    return values


def _training_scores(job: Job) -> dict[str, Any]:
    """Return the scores of the unfinished student by step, with how many pictures each is of."""
    last = complete_checkpoints(job.workdir / CHECKPOINTS)[-1]
    points = sorted(checkpoint_scores(last).items())
    return {
        "pictures": job.spec.evaluation.score_samples,
        "points": [{"step": step, **score} for step, score in points],
    }


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
        Artist(teacher, student, job.spec.student_drawing),
        grid,
        (_label("teacher", teacher_cost), _label(values["student"]["name"], student_cost)),
        title=f"{teacher.info.id} and its student {values['student']['name']}: same prompts, same seeds",
    )
    folder = export_student(student, teacher, captions, job.spec, values, grid, job.workdir)
    for warning in export_warnings(folder):
        job.events.warning(warning)


def _label(name: str, cost: dict[str, Any]) -> str:
    return f"{name}\n{cost['parameters'] / 1e6:.1f}M\n{cost['milliseconds_per_picture']:.0f} ms/picture"
