"""The playground: a prompt, and what the teacher and the student make of it from the same seed.

A play is a generation of the public API. The page asks for it again and again while it is open, which keeps
it wanted, and cancels it when it closes.
"""

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from api.field_errors import FieldError, explain_validation_error
from api.generations import hints, schemas, service
from api.generations.schemas import MAX_SEED, MAX_STEPS, GenerationRequest
from api.jobs.schemas import JobSummary
from api.pages.forms import Form, FormDependency
from api.pages.rendering import PageRoute, render
from api.pages.session import MAY_CHANGE, PageServices, Viewer, ViewerDependency
from api.tenant_services import TenantServices
from core.spec import DistillationSpec
from store.errors import ConflictError, InvalidInputError, NotFoundError
from store.job_queries import get_job, list_jobs, read_settings
from store.models import Job

OFFERED_JOBS = 100
NOBODY = ""
POSITIONS = ("first", "second")
STOP_ASKING = 286
"""What htmx takes for the end of its asking."""

router = APIRouter(route_class=PageRoute, include_in_schema=False)

GenerationId = Annotated[str, Path(max_length=64)]


@dataclass(frozen=True)
class Offer:
    """A model that can be chosen."""

    value: str
    label: str


@dataclass(frozen=True)
class Offers:
    """All models that can be chosen, and the jobs that they are of."""

    teachers: Sequence[Offer]
    students: Sequence[Offer]
    jobs: Mapping[str, Job]

    @classmethod
    def of(cls, jobs: Sequence[Job]) -> "Offers":
        """Offer the student of every job, and each teacher once."""
        newest = {job.teacher: job for job in reversed(jobs)}
        students = [
            Offer(f"student:{job.id}", f"{JobSummary.of(job).student} of {job.teacher} ({_when(job)})")
            for job in jobs
        ]
        teachers = [Offer(f"teacher:{job.id}", teacher) for teacher, job in sorted(newest.items())]
        return cls(teachers, students, {job.id: job for job in jobs})

    def teacher_of(self, job: Job) -> str:
        """Return the choice of a job's teacher: by the newest job that has it."""
        return next((each.value for each in self.teachers if each.label == job.teacher), f"teacher:{job.id}")


def _when(job: Job) -> str:
    ended = "" if job.finished_at is None else f"{job.finished_at:%Y-%m-%d %H:%M}, "
    return f"{ended}{job.id[-6:]}"


@router.get("/playground")
async def find_page() -> Response:
    """Lead on to the page."""
    return RedirectResponse("/ui/playground", status_code=307)


@router.get("/ui/playground")
def show_playground(
    services: PageServices,
    viewer: ViewerDependency,
    job: Annotated[str, Query(max_length=64)] = "",
    generation: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Show the form, filled for a job or else for the newest one that has succeeded; or an earlier play."""
    offers = _offers(services, job)
    if generation:
        earlier = service.read_generation(services, generation)
        return _render(services, viewer, offers, _form_of(offers, earlier), generation=earlier)
    chosen = offers.jobs.get(job) or next(iter(offers.jobs.values()), None)
    return _render(services, viewer, offers, {} if chosen is None else _first_form(services, offers, chosen))


@router.post("/ui/playground", dependencies=MAY_CHANGE)
def play(
    request: Request,
    services: PageServices,
    viewer: ViewerDependency,
    background: BackgroundTasks,
    form: FormDependency,
) -> Response:
    """Ask for the pictures, and show what becomes of them; a part of the page is enough for its script."""
    errors: Sequence[FieldError] = ()
    generation: schemas.Generation | None = None
    with suppress(ConflictError, NotFoundError):
        if previous := _field(form, "previous"):
            service.cancel_generation(services, previous)
    try:
        job_id, wanted = _read(form)
        carried = service.generate(services, job_id, wanted)
        generation = schemas.Generation.model_validate_json(carried.answer.body)
        background.add_task(hints.send, services)
    except (RequestValidationError, InvalidInputError, ConflictError, NotFoundError) as error:
        errors = _field_errors(error)
    if "hx-request" in request.headers:
        context = {"generation": generation, "errors": errors, "viewer": viewer}
        return render("fragments/generation.html", context)
    return _render(
        services,
        viewer,
        _offers(services),
        form,
        generation=generation,
        errors=errors,
        status=422 if errors else 200,
    )


@router.get("/ui/fragments/generations/{generation_id}")
def refresh_generation(
    services: PageServices, viewer: ViewerDependency, generation_id: GenerationId
) -> Response:
    """Give a generation anew, for a page that is open; the status of the answer says when it has ended."""
    generation = service.read_generation(services, generation_id)
    status = STOP_ASKING if service.has_ended(generation) else 200
    return render("fragments/pictures.html", {"generation": generation, "viewer": viewer}, status=status)


@router.post("/ui/generations/{generation_id}/cancel", dependencies=MAY_CHANGE)
def cancel(services: PageServices, viewer: ViewerDependency, generation_id: GenerationId) -> Response:
    """Give a generation up, because of the button or because its page closes."""
    with suppress(ConflictError):
        service.cancel_generation(services, generation_id)
    generation = service.read_generation(services, generation_id)
    return render("fragments/pictures.html", {"generation": generation, "viewer": viewer})


@router.get("/ui/generations/{generation_id}/pictures/{position}")
async def read_picture(
    services: PageServices, viewer: ViewerDependency, generation_id: GenerationId, position: int
) -> Response:
    """Give a picture from this very origin."""
    content = await service.read_picture(services, generation_id, position)
    headers = {"Cache-Control": "private, max-age=86400, immutable", "Vary": "Cookie"}
    return Response(content, media_type="image/png", headers=headers)


def _offers(services: TenantServices, job_id: str = "") -> Offers:
    """Offer the newest jobs that have succeeded, and the one that a link names."""
    with services.transaction() as session:
        found = list_jobs(session, status="succeeded", limit=OFFERED_JOBS).items
        if job_id and job_id not in {job.id for job in found}:
            named = get_job(session, job_id)
            found += [named] if named.status == "succeeded" else []
    return Offers.of(found)


def _first_form(services: TenantServices, offers: Offers, job: Job) -> Form:
    """Fill the form for a job: how it was evaluated, and a prompt that its models know."""
    with services.transaction() as session:
        spec = DistillationSpec.model_validate(read_settings(session, [job.id])[job.id])
    how = spec.evaluation
    filled = {
        "prompt": next(iter(spec.evaluation.grid_prompts or []), ""),
        "first": offers.teacher_of(job),
        "second": f"student:{job.id}",
        "steps": str(min(how.steps, MAX_STEPS)),
        "guidance_scale": f"{how.guidance_scale:g}",
        "seed": str(secrets.randbelow(10_000)),
    }
    if spec.few_step:
        filled["own"] = "on"
    return {name: [value] for name, value in filled.items()}


def _form_of(offers: Offers, generation: schemas.Generation) -> Form:
    """Fill the form with an earlier play."""
    models = [
        next((each.value for each in offers.teachers if each.label == picture.name), "")
        if picture.model == "teacher"
        else f"student:{picture.job_id}"
        for picture in generation.pictures
    ]
    first = generation.pictures[0]
    filled = {
        "prompt": generation.prompt,
        "seed": str(generation.seed),
        "steps": str(first.steps),
        "guidance_scale": f"{first.guidance_scale:g}",
        **dict(zip(POSITIONS, models, strict=False)),
    }
    if len({(each.steps, each.guidance_scale) for each in generation.pictures}) > 1:
        filled["own"] = "on"
    return {name: [value] for name, value in filled.items()}


def _read(form: Form) -> tuple[str, GenerationRequest]:
    """Read the job and the request from the form; `RequestValidationError` as for a request's body."""
    chosen = [choice.partition(":") for name in POSITIONS if (choice := _field(form, name)) != NOBODY]
    document: dict[str, Any] = {
        "prompt": _field(form, "prompt"),
        "models": [{"model": model, "job_id": job_id} for model, _, job_id in chosen],
        "seed": _field(form, "seed") or None,
    }
    if "own" not in form:
        document |= {name: _field(form, name) or None for name in ("steps", "guidance_scale")}
    try:
        return chosen[0][2] if chosen else "", GenerationRequest.model_validate(document)
    except ValidationError as error:
        located = [{**entry, "loc": ("body", *entry["loc"])} for entry in error.errors(include_url=False)]
        raise RequestValidationError(located, body=document) from error


def _field(form: Form, name: str) -> str:
    return form.get(name, [""])[-1].strip()


def _field_errors(error: Exception) -> list[FieldError]:
    if isinstance(error, RequestValidationError):
        return explain_validation_error(error, GenerationRequest)
    field = getattr(error, "field", None)
    return [FieldError(field=field or "", message=getattr(error, "detail", str(error)), allowed=None)]


def _render(
    services: TenantServices,
    viewer: Viewer,
    offers: Offers,
    form: Form,
    *,
    generation: schemas.Generation | None = None,
    errors: Sequence[FieldError] = (),
    status: int = 200,
) -> Response:
    context = {
        "viewer": viewer,
        "offers": offers,
        "form": {name: values[-1] for name, values in form.items()},
        "max_steps": MAX_STEPS,
        "max_seed": MAX_SEED,
        "capacity": service.capacity(services),
        "generation": generation,
        "errors": errors,
    }
    return render("playground.html", context, status=status)
