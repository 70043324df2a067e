"""Routes of estimates."""

from fastapi import APIRouter

from api.estimates import schemas, service
from api.jobs.endpoints import JobId, SubmissionBody
from api.openapi import problems
from api.request_headers import RequireJson
from api.tenant_services import TenantServicesDependency

router = APIRouter(tags=["estimates"])


@router.post(
    "/estimates",
    summary="Estimate a job",
    response_description="What the job would take.",
    dependencies=[RequireJson],
    responses=problems(400, 413, 415, 422, 503),
)
async def estimate_job(services: TenantServicesDependency, submission: SubmissionBody) -> schemas.Estimate:
    """Say what a job would take, without submitting it; the body is that of a submission.

    Parameters and weights are exact, memory and disk are counted. Times are there once a job of the same
    teacher has run through, and hold for machines like its own. The teacher must be on this server: there is
    no estimate for one in an object store.
    """
    return await service.estimate(services, submission)


@router.get(
    "/jobs/{job_id}/estimate", summary="Estimate of a submitted job", responses=problems(404, 422, 503)
)
def estimate_submitted_job(services: TenantServicesDependency, job_id: JobId) -> schemas.JobEstimate:
    """Say what a job was to take, by what was measured when it was submitted, and what it took.

    404 also where the teacher is not on this server, or is another one by now.
    """
    return service.estimate_submitted_job(services, job_id)
