"""The files of jobs, passed on from the object store to whoever holds a link (`store.file_links`).

The route wants no key, as a presigned link of the object store wants none: the signature says that a caller
who might read the file was given the link. Only with ``FILES_THROUGH_API`` are such links made, and opened.
"""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from api.openapi import problems
from api.services import Services, ServicesDependency
from store.errors import BadFileLinkError
from store.file_links import FILES_PATH, is_good_file_link

router = APIRouter(tags=["files"])
_BINARY = "application/octet-stream"
_CONTENT = {_BINARY: {"schema": {"type": "string", "format": "binary"}}}


@router.get(
    FILES_PATH,
    summary="Download a file by its link",
    response_class=StreamingResponse,
    responses={
        200: {"description": "The whole file.", "content": _CONTENT},
        206: {"description": "The range that was asked for.", "content": _CONTENT},
        **problems(404, 416, 422, 503),
    },
)
async def read_file(
    services: ServicesDependency,
    key: Annotated[str, Query(max_length=1_024)],
    filename: Annotated[str, Query(max_length=1_024)],
    expires: Annotated[int, Query(ge=0)],
    signature: Annotated[str, Query(max_length=64)],
    byte_range: Annotated[str | None, Header(alias="Range", max_length=100)] = None,
) -> StreamingResponse:
    """Send the file that a link leads to, or a range of it.

    Links come in the `url` of a job's files and in the `Location` of its weights, where the service has them
    lead here; they work for an hour.
    """
    is_good = services.settings.files_through_api and is_good_file_link(
        key,
        filename=filename,
        expires=expires,
        signature=signature,
        pepper=services.keys.pepper,
        now=datetime.now(UTC),
    )
    if not is_good:
        raise BadFileLinkError("The link is not one of this service's, or its hour is over: ask for another.")
    # Only one range of bytes is passed on; whatever else the header says, the whole file is an answer to it.
    is_single = byte_range is not None and byte_range.startswith("bytes=") and "," not in byte_range
    opened = await services.object_store_threads.run(
        services.objects.open_object, key, byte_range=byte_range if is_single else None
    )
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(filename, safe='')}",
        "Content-Length": str(opened.size),
        "ETag": opened.etag,
        "Cache-Control": "private",
    }
    if opened.content_range is not None:
        headers["Content-Range"] = opened.content_range
    status = 200 if opened.content_range is None else 206
    pieces = _pass_on(services, opened.pieces)
    return StreamingResponse(pieces, status_code=status, headers=headers, media_type=_BINARY)


async def _pass_on(services: Services, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while piece := await services.object_store_threads.run(lambda: next(pieces, b"")):
        yield piece
