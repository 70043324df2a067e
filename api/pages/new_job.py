"""The page that makes a job: a form of the specification, and beside it what the job would take."""

import uuid
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Query, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from api.captions import service as caption_service
from api.errors import SeveralLinesError
from api.estimates import service as estimates
from api.field_errors import FieldError, explain_validation_error
from api.jobs import hints, schemas, service
from api.jobs.requests import Submission, read_submission
from api.pages import spec_form
from api.pages.forms import Form, FormDependency
from api.pages.presets import BUNDLED_TEACHER, PRESETS
from api.pages.rendering import PageRoute, render
from api.pages.session import MAY_CHANGE, REQUIRE_OWN_FORM, PageServices, Viewer, ViewerDependency
from api.pages.sizes import known_teachers
from api.tenant_services import TenantServices
from core.spec import PRESETS as STUDENT_PRESETS
from store.errors import IdempotencyConflictError, InvalidInputError, QuotaExceededError, UnavailableError

DEFAULT_PRESET = "demo"
KEY_FIELD = "idempotency_key"
TRY_AGAIN = "A server that this service depends on does not answer. Send the form again in a moment."
MADE_ALREADY = "This form has made a job already. Send it again to make another one."

router = APIRouter(prefix="/ui", route_class=PageRoute, include_in_schema=False)


@router.get("/new")
def show_form(
    services: PageServices,
    viewer: ViewerDependency,
    preset: Annotated[str, Query(max_length=40)] = "",
    teacher: Annotated[str, Query(max_length=512)] = "",
    student: Annotated[str, Query(max_length=40)] = "",
    clone: Annotated[str, Query(max_length=64)] = "",
    captions: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Show the form, filled with a preset, or with the specification of a job to be cloned.

    ``captions`` is the id of an uploaded file, or ``bundled``.
    """
    if clone:
        job = service.read_job(services, clone)
        options = {"priority": job.priority, "max_runtime_s": job.max_runtime_s}
        try:
            form = spec_form.write_form({**job.spec, "options": options})
        except SeveralLinesError as error:
            raise SeveralLinesError(
                f"{error.detail} `condenser clone {job.id}`, or POST /jobs/{job.id}/clone, "
                "makes the job again with its texts as they are."
            ) from error
        return _render(services, viewer, form, clone=job.id)
    preset = preset if preset in PRESETS else DEFAULT_PRESET
    teachers = known_teachers(services.settings.teachers_dirs)
    if teacher not in teachers:
        teacher = BUNDLED_TEACHER if BUNDLED_TEACHER in teachers else next(iter(teachers), "")
    fields: dict[str, Any] = {"teacher": teacher, **PRESETS[preset].fields}
    if student in STUDENT_PRESETS:
        fields["student"] = student
    if captions:
        fields["captions"] = _captions(services, captions)
    # What a preset leaves open is shown as the service would resolve it.
    filled = Submission.model_validate({**fields, "teacher": teacher or BUNDLED_TEACHER}).model_dump(
        mode="json"
    )
    return _render(services, viewer, spec_form.write_form(filled), preset=preset)


@router.post("/new", dependencies=MAY_CHANGE)
async def submit_form(
    services: PageServices,
    viewer: ViewerDependency,
    background: BackgroundTasks,
    form: FormDependency,
) -> Response:
    """Make the job and show it, or show the form again with what is wrong at its field."""
    key = form.get(KEY_FIELD, [None])[-1]
    try:
        submission = read_submission(spec_form.read_document(form))
        carried = await service.submit_job(services, submission, key)
    except (RequestValidationError, InvalidInputError) as error:
        return await run_in_threadpool(
            _render, services, viewer, form, errors=_field_errors(error), status=422
        )
    except IdempotencyConflictError:
        return await run_in_threadpool(_render, services, viewer, form, notice=MADE_ALREADY, status=409)
    except QuotaExceededError as error:
        return await run_in_threadpool(_render, services, viewer, form, notice=error.detail, status=409)
    except UnavailableError:
        return await run_in_threadpool(_render, services, viewer, form, notice=TRY_AGAIN, status=503)
    job = schemas.Job.model_validate_json(carried.answer.body)
    if not carried.is_replay:
        background.add_task(hints.send, services, job)
    return RedirectResponse(f"/ui/jobs/{job.id}", status_code=303)


@router.post("/fragments/estimate", dependencies=[REQUIRE_OWN_FORM])
async def show_estimate(services: PageServices, viewer: ViewerDependency, form: FormDependency) -> Response:
    """Say what the job in the form would take, or what keeps it from being one."""
    try:
        estimate = await estimates.estimate(services, read_submission(spec_form.read_document(form)))
    except (RequestValidationError, InvalidInputError) as error:
        return render("fragments/estimate.html", {"estimate": None, "errors": _field_errors(error)})
    return render("fragments/estimate.html", {"estimate": estimate, "errors": []})


def _captions(services: TenantServices, named: str) -> dict[str, Any]:
    """Name captions as a specification does; `NotFoundError` for a file that the tenant does not have."""
    if named == "bundled":
        return {"kind": "bundled"}
    return {"kind": "uploaded", "id": caption_service.read_file(services, named).id}


def _field_errors(error: RequestValidationError | InvalidInputError) -> list[FieldError]:
    if isinstance(error, RequestValidationError):
        return explain_validation_error(error)
    return [FieldError(field=error.field or "body", message=error.detail, allowed=error.allowed)]


def _render(
    services: TenantServices,
    viewer: Viewer,
    form: Form,
    *,
    preset: str | None = None,
    clone: str | None = None,
    errors: list[FieldError] | None = None,
    notice: str | None = None,
    status: int = 200,
) -> Response:
    context = {
        "viewer": viewer,
        "form": form,
        "fields": spec_form.submission_form().children,
        "essential": spec_form.ESSENTIAL,
        "teachers": list(known_teachers(services.settings.teachers_dirs)),
        "presets": PRESETS,
        "preset": preset,
        "clone": clone,
        "errors": errors or [],
        "errors_by_field": _by_field(errors or []),
        "notice": notice,
        "idempotency_key": str(uuid.uuid4()),
    }
    return render("new.html", context, status=status)


def _by_field(errors: list[FieldError]) -> Mapping[str, FieldError]:
    """Find errors by their fields; an error within a list is told at the list."""
    found: dict[str, FieldError] = {}
    for error in errors:
        parts = error.field.split(".")
        while parts and parts[-1].isdecimal():
            parts.pop()
        found.setdefault(".".join(parts), error)
    return found
