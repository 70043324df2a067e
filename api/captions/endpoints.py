"""Routes of caption files."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from api.captions import service
from api.captions.schemas import CaptionFile
from api.captions.uploading import receive_file
from api.errors import UnsupportedMediaTypeError
from api.openapi import problems
from api.pagination import Limit, ListPage
from api.tenant_services import TenantServicesDependency
from core.caption_formats import SUFFIXES, SUPPORTED, format_of
from store.errors import InvalidInputError

FORM = "multipart/form-data"
UPLOAD_PATH = "/captions"
PLAIN_NAME = r"^[^\x00-\x1f\x7f/\\]+$"

router = APIRouter(prefix=UPLOAD_PATH, tags=["captions"])

FileId = Annotated[str, Path(description="Id of a caption file.")]
Name = Annotated[
    str,
    Query(
        min_length=1,
        max_length=200,
        pattern=PLAIN_NAME,
        description="The file's name; its ending says how it is read.",
        examples=["captions.jsonl.zst"],
    ),
]


@router.post(
    "",
    status_code=201,
    summary="Upload captions",
    response_description="The file is stored.",
    responses={
        200: {"model": CaptionFile, "description": "The very same file was there already."},
        201: {"headers": {"Location": {"description": "Path of the file.", "schema": {"type": "string"}}}},
        **problems(400, 408, 409, 413, 415, 422, 503),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload_captions(
    services: TenantServicesDependency, request: Request, response: Response, name: Name
) -> CaptionFile:
    """Store the request's body, as it is, as a file of captions.

    Text, CSV, TSV, JSON Lines or Parquet by the ending of `name`; all but Parquet may be compressed (`.gz`,
    `.zst`). The same content under the same name is stored once and answered with 200, so an upload whose
    answer was lost may be repeated. An upload that breaks off leaves nothing.
    """
    if request.headers.get("content-type", "").lower().startswith(FORM):
        raise UnsupportedMediaTypeError("Send the file itself as the body, not a form.")
    _check_ending(name)
    with services.upload_slots.take(services.caller.tenant_id):
        file, is_new = await receive_file(services, request, name)
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"{UPLOAD_PATH}/{file.id}"
    return CaptionFile.of(file)


def _check_ending(name: str) -> None:
    if format_of(name) is None:
        raise InvalidInputError(
            f"The name's ending says of no format that it has it; {SUPPORTED}.",
            field="name",
            allowed=[f"*{suffix}" for suffix in SUFFIXES],
        )


@router.get("", summary="List caption files", responses=problems(422, 503))
def list_caption_files(
    services: TenantServicesDependency,
    after: Annotated[
        str | None, Query(max_length=100, description="Cursor: the `next` of the page before.")
    ] = None,
    limit: Limit = 20,
) -> ListPage[CaptionFile]:
    """List the files that were uploaded, the newest first."""
    return service.list_files(services, after=after, limit=limit)


@router.get("/{file_id}", summary="Read a caption file's description", responses=problems(404, 422, 503))
def read_caption_file(services: TenantServicesDependency, file_id: FileId) -> CaptionFile:
    """Read name, size and hash of a file."""
    return service.read_file(services, file_id)


@router.delete(
    "/{file_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a caption file",
    responses=problems(404, 409, 422, 503),
)
def delete_caption_file(services: TenantServicesDependency, file_id: FileId) -> None:
    """Delete a file, unless a job that has not ended reads it."""
    service.delete_file(services, file_id)
