"""The page of one job: where it stands, what it has drawn and left, and what can be done to it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, BackgroundTasks, Path, Query, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from api.comparisons.schemas import SPLITS
from api.estimates.schemas import JobEstimate
from api.estimates.service import estimate_submitted_job
from api.jobs import hints, schemas, service
from api.jobs.endpoints import NO_NUL
from api.pages import snippets
from api.pages.forms import FormDependency
from api.pages.rendering import PageRoute, render
from api.pages.session import MAY_CHANGE, PageServices, Viewer, ViewerDependency
from api.pages.sizes import known_teachers, student_size
from api.pages.timeline import Timeline
from api.pagination import MAX_INTEGER
from api.tenant_services import TenantServices
from core.grid_layout import CAPTION_LINES, CELL, GAP, LABEL_WIDTH, LINE
from store import artifacts
from store.database import Session
from store.errors import ConflictError, NotFoundError
from store.events import list_latest_events
from store.job_queries import find_job, get_job
from store.models import Artifact, ArtifactKind, JobEvent
from store.phases import list_phases
from store.step_wishes import STEP_PHASES, StepWish

SHOWN_EVENTS = 100
SHOWN_LOG_BYTES = 64 * 1_024
FINAL_GRID = "student/teacher-vs-student.png"
GRID_LAYOUT = {
    "label": LABEL_WIDTH,
    "cell": CELL,
    "gap": GAP,
    "footer": CAPTION_LINES * LINE + GAP,
}

Move = Literal["cancel", "pause", "resume", "retry", "delete", "save-now", "sample-now"]
STEP_MOVES: Mapping[Move, StepWish] = {"save-now": "checkpoint", "sample-now": "sample"}
JobId = Annotated[str, Path(max_length=64)]
Attempt = Annotated[int, Query(ge=0, le=MAX_INTEGER)]
FilePath = Annotated[str, Query(max_length=1_024, pattern=NO_NUL)]

router = APIRouter(prefix="/ui", route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True)
class Sample:
    """A grid of pictures: teacher's above, student's below, a column for each prompt."""

    step: int
    label: str
    url: str
    prompts: list[str]


@router.get("/jobs/{job_id}")
def show_job(request: Request, services: PageServices, viewer: ViewerDependency, job_id: JobId) -> Response:
    """Show a job."""
    return _render(request, services, viewer, job_id)


@router.get("/fragments/jobs/{job_id}")
def refresh_job(services: PageServices, viewer: ViewerDependency, job_id: JobId) -> Response:
    """Give what changes of a job's page anew."""
    return render("fragments/job.html", _describe(services, job_id) | {"viewer": viewer})


@router.post("/jobs/{job_id}/{move}", dependencies=MAY_CHANGE)
def move_job(
    request: Request,
    services: PageServices,
    viewer: ViewerDependency,
    background: BackgroundTasks,
    job_id: JobId,
    move: Move,
    form: FormDependency,
) -> Response:
    """Do to a job what a button says, and show it again."""
    try:
        if move == "delete":
            service.delete_job(services, job_id)
            return RedirectResponse("/", status_code=303)
        job = _move(services, job_id, move, from_scratch="from_scratch" in form)
    except ConflictError as error:
        return _render(request, services, viewer, job_id, notice=error.detail, status=409)
    if job.status == "queued":
        background.add_task(hints.send, services, job)
    return RedirectResponse(f"/ui/jobs/{job.id}", status_code=303)


def _move(services: TenantServices, job_id: str, move: Move, *, from_scratch: bool) -> schemas.Job:
    if move == "retry":
        carried = service.retry_job(services, job_id, from_scratch=from_scratch, idempotency_key=None)
        return schemas.Job.model_validate_json(carried.answer.body)
    if move in STEP_MOVES:
        return service.request_at_step(services, job_id, STEP_MOVES[move])
    moves = {"cancel": service.cancel_job, "pause": service.pause_job, "resume": service.resume_job}
    return moves[move](services, job_id)


@router.get("/jobs/{job_id}/files")
def download_file(
    services: PageServices,
    viewer: ViewerDependency,
    job_id: JobId,
    attempt: Attempt,
    path: FilePath,
) -> Response:
    """Redirect to one of a job's files, under a name that says whose it is."""
    row = _find_file(services, job_id, attempt, path)
    name = f"{row.job_id}-{path.replace('/', '-')}".replace('"', "")
    return RedirectResponse(services.link_to_file(row.key, filename=name), status_code=307)


@router.get("/jobs/{job_id}/picture")
async def read_picture(
    services: PageServices,
    viewer: ViewerDependency,
    job_id: JobId,
    attempt: Attempt,
    path: FilePath,
) -> Response:
    """Give a grid from this very origin, so that scripts may cut pictures out of it."""
    row = await run_in_threadpool(_find_file, services, job_id, attempt, path)
    if not path.endswith(".png"):
        raise NotFoundError("The job has no such picture.")
    headers = {"Cache-Control": "private, max-age=31536000, immutable", "Vary": "Cookie"}
    content = await services.object_store_threads.run(services.objects.read_object, row.key)
    return Response(content, media_type="image/png", headers=headers)


@router.get("/jobs/{job_id}/log")
async def read_log(
    services: PageServices, viewer: ViewerDependency, job_id: JobId, attempt: Attempt
) -> Response:
    """Give the end of what the trainer of an attempt printed."""
    row = await run_in_threadpool(_find_file, services, job_id, attempt, "trainer.log", kind="log")
    content = await services.object_store_threads.run(
        services.objects.read_object, row.key, last_bytes=SHOWN_LOG_BYTES
    )
    text = content.decode("utf-8", "replace")
    return render("fragments/log.html", {"text": text, "cut": row.size > SHOWN_LOG_BYTES})


def _find_file(
    services: TenantServices,
    job_id: str,
    attempt: int,
    path: str,
    kind: ArtifactKind | None = None,
) -> Artifact:
    with services.transaction() as session:
        job_id = find_job(session, job_id)
        found = artifacts.find_artifact(session, job_id, attempt=attempt, path=path, kind=kind)
    if found is None:
        raise NotFoundError("The job has no such file.")
    return found


def _render(
    request: Request,
    services: TenantServices,
    viewer: Viewer,
    job_id: str,
    *,
    notice: str | None = None,
    status: int = 200,
) -> Response:
    context = _describe(services, job_id)
    job = context["job"]
    address = str(request.base_url).rstrip("/")
    calls = {
        "notice": notice,
        "viewer": viewer,
        "grid_layout": json.dumps(GRID_LAYOUT),
        "spec_json": json.dumps(snippets.abridged(job.spec), indent=2, ensure_ascii=False),
        "curl": snippets.curl(address, job.id, job.spec),
        "python": snippets.python(address, job.id, job.spec),
    }
    return render("job.html", context | calls, status=status)


def _describe(services: TenantServices, job_id: str) -> dict[str, Any]:
    with services.transaction() as session:
        row = get_job(session, job_id)
        spans = list_phases(session, row.id)
        log = list_latest_events(session, row.id, limit=SHOWN_EVENTS)
        sampled = list_latest_events(session, row.id, limit=1_000, types=["sample"])
        files = artifacts.list_artifacts(session, row.id)
        checkpoints = artifacts.list_checkpoints(session, row.id)
    job = schemas.Job.of(row)
    teacher = known_teachers(services.settings.teachers_dirs).get(job.teacher)
    return {
        "job": job,
        "has_ended": service.has_ended(job),
        "makes_steps": job.status == "running" and job.phase in STEP_PHASES,
        "teacher_parameters": teacher.parameters if teacher else None,
        "student_size": student_size(teacher, job.spec["student"]),
        "timeline": Timeline.of(spans, datetime.now(UTC)),
        "estimate": _find_estimate(services, row.id) if job.status == "succeeded" else None,
        "log": log,
        "samples": _samples(row.id, [file for file in files if file.attempt > row.scratch_attempt], sampled),
        "checkpoints": checkpoints,
        "files": [file for file in files if file.kind != "checkpoint_file"],
        "archive": next((file for file in reversed(files) if file.kind == "student_archive"), None),
        "logs": [file for file in files if file.kind == "log" and file.size],
        "splits": [split for split in SPLITS if (job.result or {}).get(split)],
    }


def _find_estimate(services: TenantServices, job_id: str) -> JobEstimate | None:
    try:
        return estimate_submitted_job(services, job_id)
    except NotFoundError:
        return None


def _samples(job_id: str, files: Sequence[Artifact], events: Sequence[JobEvent]) -> list[Sample]:
    """List the grids by step, each as the latest attempt drew it; the exported student's is the last."""
    prompts = {(event.attempt, event.data["path"]): event.data.get("prompts", []) for event in events}
    by_step: dict[int, Sample] = {}
    for file in files:  # by attempt, so that a later one replaces what an earlier one drew
        if file.kind == "sample" and file.step is not None:
            shown = prompts.get((file.attempt, file.path), [])
            by_step[file.step] = Sample(file.step, f"step {file.step:,}", _picture_url(job_id, file), shown)
    samples = [by_step[step] for step in sorted(by_step)]
    final = next((file for file in reversed(files) if file.path == FINAL_GRID), None)
    if final is not None:
        last_step, shown = (samples[-1].step, samples[-1].prompts) if samples else (0, [])
        samples.append(Sample(last_step, "the exported student", _picture_url(job_id, final), shown))
    return samples


def newest_grid(session: Session, job_id: str) -> Sample | None:
    """Find the newest grid of a job's pictures."""
    kinds: Sequence[ArtifactKind] = ["sample", "student_file"]
    files = artifacts.list_artifacts(session, job_id, kinds=kinds, since_scratch=True)
    samples = _samples(job_id, files, list_latest_events(session, job_id, limit=1_000, types=["sample"]))
    return samples[-1] if samples else None


def _picture_url(job_id: str, file: Artifact) -> str:
    return f"/ui/jobs/{job_id}/picture?attempt={file.attempt}&path={file.path}"
